/* Damaged libraries against mapped.c: map_weights LIBRARY SCRATCH COUNT changes bytes of the headers, cuts the end off, and maps what is left. What is accepted is
 * read to its end, so that weights which are not there end the program. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mapped.h"
#include "model.h"

static struct pcc_model model = {.name = "toy", .library = "libtoy.so", .abi = "x86_64-linux"};
const struct pcc_model *const pcc_models[] = {&model};
const int32_t pcc_model_count = 1;

static uint64_t state = 88172645463325252u; /* xorshift64 (Marsaglia, 2003) */

static size_t below(size_t limit) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (size_t)(state % limit);
}

static unsigned char *read_all(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) exit(3);
  *size = (size_t)ftell(file);
  rewind(file);
  unsigned char *content = malloc(*size);
  if (!content || fread(content, 1, *size, file) != *size) exit(3);
  fclose(file);
  return content;
}

static size_t find(const unsigned char *content, size_t size, const char *text) {
  for (size_t i = 0; i + strlen(text) <= size; i++)
    if (!memcmp(content + i, text, strlen(text))) return i;
  exit(3);
}

int main(int count, char **words) {
  if (count != 4) return 3;
  size_t size, accepted = 0;
  unsigned char *whole = read_all(words[1], &size), *changed = malloc(size);
  const size_t weights = find(whole, size, "pccweigh"), sections = (size_t) * (const uint64_t *)(whole + 40);
  model.weight_bytes = (size_t) * (const uint64_t *)(whole + weights + 8);
  memcpy(model.weight_digest, whole + weights + 16, sizeof model.weight_digest);
  const long cases = strtol(words[3], NULL, 10);
  for (long i = 0; i < cases; i++) {
    memcpy(changed, whole, size);
    const size_t starts[] = {0, sections, weights}, lengths[] = {64, size - sections, 64};
    for (size_t k = 0; k < 1 + below(4); k++) {
      const size_t part = below(3), at = starts[part] + below(lengths[part]);
      const uint64_t value = (uint64_t[]){0, 1, 64, size, size - 64, 1u << 31, UINT64_MAX, state}[below(8)];
      memcpy(changed + at, &value, size - at < 8 ? size - at : 1 + below(8));
    }
    const size_t kept = below(3) ? size : below(size + 1);
    FILE *file = fopen(words[2], "wb");
    if (!file || fwrite(changed, 1, kept, file) != kept || fclose(file)) return 3;
    char error[256];
    if (!pcc_map_weights(words[2], error, sizeof error)) {
      const char *values = pcc_weight_values();
      for (size_t k = 0; k < model.weight_bytes; k += 64) state += (unsigned char)values[k];
      accepted++;
    } else if (!strstr(error, "does not hold the weights")) {
      return 4;
    }
  }
  free(whole);
  free(changed);
  printf("%ld damaged libraries, %zu accepted\n", cases, accepted);
  return 0;
}

#define _GNU_SOURCE
#include "mapped.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model.h"

static const char *mapped_values; /* of this process, which runs one model; set before the first context is made */

const char *pcc_weight_values(void) { return mapped_values; }

/* The section `.pcc_weights` of an ELF image, with as many bytes of values, or NULL. Every offset is checked: the file may be anything. */
static const struct pcc_weights *find_weights(const char *image, size_t size, size_t bytes) {
  const Elf64_Ehdr *header = (const Elf64_Ehdr *)image;
  if (size < sizeof *header || memcmp(header->e_ident, ELFMAG, SELFMAG) || header->e_ident[EI_CLASS] != ELFCLASS64) return NULL;
  if (header->e_shentsize != sizeof(Elf64_Shdr) || header->e_shoff % 8 || header->e_shoff > size) return NULL;
  if (header->e_shnum > (size - header->e_shoff) / sizeof(Elf64_Shdr) || header->e_shstrndx >= header->e_shnum) return NULL;
  const Elf64_Shdr *sections = (const Elf64_Shdr *)(image + header->e_shoff);
  const Elf64_Shdr *names = &sections[header->e_shstrndx];
  static const char wanted[] = ".pcc_weights";
  if (names->sh_offset > size || names->sh_size > size - names->sh_offset) return NULL;
  for (int i = 0; i < header->e_shnum; i++) {
    const Elf64_Shdr *section = &sections[i];
    if (section->sh_name > names->sh_size || names->sh_size - section->sh_name < sizeof wanted) continue;
    if (strcmp(image + names->sh_offset + section->sh_name, wanted)) continue;
    const bool inside = section->sh_offset <= size && section->sh_size <= size - section->sh_offset;
    return inside && section->sh_size >= sizeof(struct pcc_weights) && section->sh_size - sizeof(struct pcc_weights) >= bytes &&
                   section->sh_offset % PCC_ALIGNMENT == 0
               ? (const struct pcc_weights *)(image + section->sh_offset)
               : NULL;
  }
  return NULL;
}

/* The folder of this program, ending in a slash. */
static void own_folder(char *folder, size_t size) {
  const ssize_t length = readlink("/proc/self/exe", folder, size - 1);
  folder[length > 0 ? length : 0] = 0;
  char *slash = strrchr(folder, '/');
  if (slash) slash[1] = 0;
}

int pcc_map_weights(const char *library, char *error, size_t error_size) {
  const struct pcc_model *model = pcc_models[0]; /* files and weights are the same in all forms */
  char folder[PATH_MAX], path[PATH_MAX + 256];
  if (library) {
    snprintf(path, sizeof path, "%s", library);
  } else {
    own_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s%s", folder, model->library);
    if (access(path, R_OK)) snprintf(path, sizeof path, "%s../../lib/%s/%s", folder, model->abi, model->library);
  }
  const int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe would wait for who writes into it */
  struct stat status;
  if (file < 0 || fstat(file, &status)) {
    snprintf(error, error_size, "cannot open %s: keep the package's folders together, or name the library with --library", path);
    return -1;
  }
  const char *image = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  const struct pcc_weights *weights = image == MAP_FAILED ? NULL : find_weights(image, (size_t)status.st_size, model->weight_bytes);
  if (!weights || memcmp(weights->magic, "pccweigh", 8) || weights->bytes != model->weight_bytes ||
      memcmp(weights->digest, model->weight_digest, sizeof weights->digest)) {
    if (image != MAP_FAILED) munmap((void *)image, (size_t)status.st_size);
    snprintf(error, error_size, "%s does not hold the weights of this runner's model '%s': use files of one package", path, model->name);
    return -1;
  }
  mapped_values = weights->values;
  return 0;
}

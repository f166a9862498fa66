/* An application on the device: opens a library by dlopen, runs it on files of raw fp32, from several threads at once.
 * load_library LIBRARY THREADS INPUT... OUTPUT... */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pcc.h"

enum { USERS = 3, MOST = 8 };

static struct {
  uint32_t (*abi_version)(void);
  int32_t (*input_count)(void), (*output_count)(void), (*call_count)(void);
  pcc_status (*describe_input)(int32_t, pcc_tensor *), (*describe_output)(int32_t, pcc_tensor *);
  pcc_context *(*create)(const pcc_options *, char *, size_t);
  pcc_status (*run)(pcc_context *, const void *const *, void *const *);
  const char *(*error)(const pcc_context *);
  void (*destroy)(pcc_context *);
} api;

static int32_t threads;
static const void *inputs[MOST];
static void *outputs[USERS][MOST];

static void stop(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void *use(void *user) {
  char error[200];
  const pcc_options options = {.size = sizeof options, .threads = threads, .profile = 1};
  pcc_context *context = api.create(&options, error, sizeof error);
  if (!context) stop("create", error);
  for (int run = 0; run < 5; run++)
    if (api.run(context, inputs, outputs[(size_t)user]) != PCC_OK) stop("run", api.error(context));
  api.destroy(context);
  return NULL;
}

int main(int count, char **words) {
  void *library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) stop("dlopen", dlerror());
#define FIND(name) *(void **)&api.name = dlsym(library, "pcc_" #name)
  FIND(abi_version), FIND(input_count), FIND(output_count), FIND(call_count), FIND(describe_input), FIND(describe_output);
  FIND(create), FIND(run), FIND(error), FIND(destroy);
  if (api.abi_version() != PCC_ABI_VERSION) stop("abi", "unexpected");
  threads = atoi(words[2]);
  if (count != 3 + api.input_count() + api.output_count()) stop("usage", "LIBRARY THREADS INPUT... OUTPUT...");
  size_t bytes[MOST];
  for (int32_t i = 0; i < api.input_count(); i++) {
    pcc_tensor tensor = {.size = sizeof tensor};
    api.describe_input(i, &tensor);
    FILE *file = fopen(words[3 + i], "rb");
    void *data = malloc(tensor.bytes);
    if (!file || fread(data, 1, tensor.bytes, file) != tensor.bytes) stop("input", words[3 + i]);
    fclose(file);
    inputs[i] = data;
  }
  for (int32_t i = 0; i < api.output_count(); i++) {
    pcc_tensor tensor = {.size = sizeof tensor};
    api.describe_output(i, &tensor);
    bytes[i] = tensor.bytes;
    for (int user = 0; user < USERS; user++) outputs[user][i] = malloc(tensor.bytes);
  }
  pthread_t users[USERS];
  for (size_t user = 0; user < USERS; user++) pthread_create(&users[user], NULL, use, (void *)user);
  for (size_t user = 0; user < USERS; user++) pthread_join(users[user], NULL);
  for (int32_t i = 0; i < api.output_count(); i++) {
    for (int user = 1; user < USERS; user++)
      if (memcmp(outputs[user][i], outputs[0][i], bytes[i])) stop("outputs", "contexts disagree");
    FILE *file = fopen(words[3 + api.input_count() + i], "wb");
    if (!file || fwrite(outputs[0][i], 1, bytes[i], file) != bytes[i]) stop("output", "cannot be written");
    fclose(file);
  }
  return 0;
}

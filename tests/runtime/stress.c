/* Uses the runtime as hard as an application could, under a sanitizer: contexts of 1 to 4 threads that run at the same time, wrong use, old callers. */
#define _GNU_SOURCE
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pcc.h"
#include "toy_expected.h"

#undef NDEBUG
#ifndef TOY_MAX_BATCH
#define TOY_MAX_BATCH 0
#endif
enum { RUNS = 150, CONTEXTS = 4 };

static void *use(void *argument) {
  const int32_t threads = *(const int32_t *)argument;
  const pcc_options options = {.size = sizeof options, .threads = threads, .profile = threads % 2};
  char error[200] = "?";
  pcc_context *context = pcc_create(&options, error, sizeof error);
  assert(context && !*error);
  for (int run = 0; run < RUNS; run++) {
    const int batch = pcc_max_batch() ? 1 + run % pcc_max_batch() : 1;
    const size_t bytes = (size_t)batch * ITEMS * sizeof(float);
    float *x = malloc(bytes), *z = malloc(bytes), *right = malloc(bytes);
    for (int i = 0; i < batch * ITEMS; i++) x[i] = (float)((i * 31 + run * 7 + threads) % 97);
    for (int image = 0; image < batch; image++) expected(x + image * ITEMS, right + image * ITEMS);
    const void *inputs[] = {x};
    void *outputs[] = {z};
    assert((pcc_max_batch() ? pcc_run_batch(context, batch, inputs, outputs) : pcc_run(context, inputs, outputs)) == PCC_OK && !*pcc_error(context));
    for (int i = 0; i < batch * ITEMS; i++) assert(z[i] == right[i]);
    free(x), free(z), free(right);
  }
  double total = 0;
  for (int32_t i = 0; i < pcc_call_count(); i++) {
    pcc_call call = {.size = sizeof call};
    assert(pcc_describe_call(context, i, &call) == PCC_OK && call.layer && call.seconds >= 0);
    total += call.seconds;
  }
  assert((total > 0) == (threads % 2 == 1));
  pcc_destroy(context);
  return NULL;
}

/* One context for all: a call runs, or is told that another does. */
static pcc_context *shared_by_all;
static _Atomic int refused, ran;

static void *use_shared(void *argument) {
  static const size_t bytes = (TOY_MAX_BATCH + 1) * ITEMS * sizeof(float);
  float *x = calloc(1, bytes), *z = calloc(1, bytes), *right = calloc(1, bytes);
  const void *inputs[] = {x};
  void *outputs[] = {z};
  for (int run = 0; run < RUNS; run++) {
    for (int i = 0; i < ITEMS; i++) x[i] = (float)((i * 31 + run * 7 + *(const int32_t *)argument) % 97);
    expected(x, right);
    const pcc_status status = pcc_max_batch() && run % 2 ? pcc_run_batch(shared_by_all, 1, inputs, outputs) : pcc_run(shared_by_all, inputs, outputs);
    assert(status == PCC_OK || status == PCC_BUSY);
    atomic_fetch_add(status == PCC_OK ? &ran : &refused, 1);
    for (int i = 0; status == PCC_OK && i < ITEMS; i++) assert(z[i] == right[i]);
  }
  free(x), free(z), free(right);
  return NULL;
}

static void share(void) {
  const pcc_options options = {.size = sizeof options, .threads = 2};
  shared_by_all = pcc_create(&options, NULL, 0);
  pthread_t users[CONTEXTS];
  int32_t numbers[CONTEXTS];
  for (int i = 0; i < CONTEXTS; i++) {
    numbers[i] = i;
    assert(!pthread_create(&users[i], NULL, use_shared, &numbers[i]));
  }
  for (int i = 0; i < CONTEXTS; i++) pthread_join(users[i], NULL);
  assert(ran && refused && !*pcc_error(shared_by_all));
  pcc_destroy(shared_by_all);
}

static void wrong_use(void) {
  char error[200];
  pcc_status status = PCC_BUSY;
  for (int32_t threads = -1; threads < 100000; threads += 50000) {
    const pcc_options options = {.size = sizeof options, .threads = threads, .status = &status};
    if (threads < 1 || threads > 256) {
      assert(!pcc_create(&options, error, sizeof error) && strstr(error, "options.threads"));
      assert(!pcc_create(&options, NULL, 0) && status == PCC_BAD_ARGUMENT);
    }
  }
  char tiny[8];
  const pcc_options bad = {.size = sizeof bad, .threads = -5};
  assert(!pcc_create(&bad, tiny, sizeof tiny) && strlen(tiny) == 7);

  pcc_context *context = pcc_create(NULL, NULL, 0);
  const void *inputs[] = {NULL};
  void *outputs[] = {NULL};
  assert(pcc_run(NULL, inputs, outputs) == PCC_BAD_ARGUMENT && *pcc_error(NULL));
  assert(pcc_run(context, NULL, outputs) == PCC_BAD_ARGUMENT && strstr(pcc_error(context), "inputs is NULL"));
  assert(pcc_run(context, inputs, NULL) == PCC_BAD_ARGUMENT && strstr(pcc_error(context), "outputs is NULL"));
  assert(pcc_run(context, inputs, outputs) == PCC_BAD_ARGUMENT && strstr(pcc_error(context), "inputs[0] ('x')"));
  static float x[4 * ITEMS];
  inputs[0] = x;
  assert(pcc_run(context, inputs, outputs) == PCC_BAD_ARGUMENT && strstr(pcc_error(context), "outputs[0] ('z')"));
  outputs[0] = x; /* in place */
  assert(pcc_run(context, inputs, outputs) == PCC_OK && !*pcc_error(context));
  assert(pcc_run_batch(NULL, 1, inputs, outputs) == PCC_BAD_ARGUMENT);
  assert(pcc_run_batch(context, 0, inputs, outputs) == PCC_BAD_ARGUMENT && strstr(pcc_error(context), pcc_max_batch() ? "a batch of 0" : "use pcc_run"));
  assert(pcc_run_batch(context, 4, inputs, outputs) == PCC_BAD_ARGUMENT && strstr(pcc_error(context), pcc_max_batch() ? "takes 1 to 3" : "use pcc_run"));
  pcc_destroy(context);
  pcc_destroy(NULL);

  pcc_tensor tensor = {.size = sizeof tensor};
  assert(pcc_describe_input(-1, &tensor) == PCC_BAD_ARGUMENT && pcc_describe_input(1, &tensor) == PCC_BAD_ARGUMENT);
  assert(pcc_describe_output(0, NULL) == PCC_BAD_ARGUMENT);
  assert(pcc_describe_output(0, &tensor) == PCC_OK && tensor.rank == 2 && tensor.dims[1] == 100 && tensor.size == sizeof tensor);
  assert(tensor.dims[0] == 10 * (pcc_max_batch() ? pcc_max_batch() : 1) && tensor.bytes == (size_t)tensor.dims[0] * 100 * sizeof(float));
  pcc_call call = {.size = sizeof call};
  assert(pcc_describe_call(NULL, pcc_call_count(), &call) == PCC_BAD_ARGUMENT);
}

/* A caller that was compiled against a shorter, or a longer, version of the structs. */
static void other_versions(void) {
  struct {
    size_t size;
    const char *name;
    char untouched[64];
  } old;
  memset(&old, 0x55, sizeof old);
  old.size = offsetof(pcc_tensor, dtype);
  assert(pcc_describe_input(0, (pcc_tensor *)&old) == PCC_OK && !strcmp(old.name, "x") && old.untouched[0] == 0x55);
  struct {
    size_t size;
    const char *layer;
    char untouched[64];
  } old_call;
  memset(&old_call, 0x55, sizeof old_call);
  old_call.size = offsetof(pcc_call, kernel);
  assert(pcc_describe_call(NULL, 0, (pcc_call *)&old_call) == PCC_OK && !strcmp(old_call.layer, "scale") && old_call.untouched[0] == 0x55);
  struct {
    pcc_options known;
    char future[64];
  } newer = {{.size = sizeof newer, .threads = 2}, {1}};
  pcc_status status = PCC_BUSY;
  newer.known.status = &status;
  pcc_context *context = pcc_create(&newer.known, NULL, 0);
  assert(context && status == PCC_OK);
  pcc_destroy(context);
  const pcc_options short_options = {.size = offsetof(pcc_options, profile), .threads = 3, .profile = 77};
  context = pcc_create(&short_options, NULL, 0);
  assert(context);
  pcc_destroy(context);
  void *shortest = malloc(offsetof(pcc_options, profile)); /* behind it nothing may be read */
  memcpy(shortest, &short_options, offsetof(pcc_options, profile));
  context = pcc_create(shortest, NULL, 0);
  assert(context);
  pcc_destroy(context);
  free(shortest);
}

int main(void) {
  assert(pcc_abi_version() == PCC_ABI_VERSION && !strcmp(pcc_model_name(), "toy") && pcc_arena_bytes() % 12288 == 0 && pcc_thread_bytes() == 64 && pcc_prepared_bytes() == 4000);
  wrong_use();
  other_versions();
  share();
  pthread_t users[CONTEXTS];
  int32_t threads[CONTEXTS];
  for (int i = 0; i < CONTEXTS; i++) {
    threads[i] = i + 1;
    assert(!pthread_create(&users[i], NULL, use, &threads[i]));
  }
  for (int i = 0; i < CONTEXTS; i++) pthread_join(users[i], NULL);
  puts("fine");
}

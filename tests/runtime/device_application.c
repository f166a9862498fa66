/* Runs the toy model on a device: contexts in several threads, every result checked. Prints what the first one runs on in the end.
 * Arguments: a pcc_device_choice, the cache's folder or "-", contexts. Exit status 3 and the reason where there is no context. */
#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pcc.h"
#include "toy_expected.h"

#undef NDEBUG
enum { RUNS = 6, MAX_CONTEXTS = 8 };

struct user {
  pthread_t thread;
  pcc_options options;
  char device[600];
  int failed;
};

static void *use(void *argument) {
  struct user *user = argument;
  pcc_status made = PCC_BUSY;
  user->options.status = &made;
  pcc_context *context = pcc_create(&user->options, user->device, sizeof user->device);
  user->failed = !context;
  const int32_t device = user->options.device;
  assert(made == (context ? PCC_OK : device < PCC_AUTO || device > PCC_GPU ? PCC_BAD_ARGUMENT : PCC_NO_DEVICE));
  if (!context) return NULL;
  const int images = pcc_max_batch() ? pcc_max_batch() : 1;
  float *x = malloc((size_t)images * ITEMS * sizeof *x), right[ITEMS];
  float *z = malloc((size_t)images * ITEMS * sizeof *z);
  for (int run = 0; run < RUNS; run++) {
    const int batch = 1 + run % images;
    const int in_place = batch == 1 && run % 2;
    for (int i = 0; i < batch * ITEMS; i++) x[i] = (float)((i * 31 + run * 7) % 97);
    float *found = in_place ? x : z;
    expected(x, right);
    const float first = x[(batch - 1) * ITEMS];
    const void *inputs[] = {x};
    void *outputs[] = {found};
    const pcc_status status = pcc_max_batch() ? pcc_run_batch(context, batch, inputs, outputs) : pcc_run(context, inputs, outputs);
    assert(status == PCC_OK && !*pcc_error(context));
    for (int i = 0; i < ITEMS; i++) assert(fabsf(found[i] - right[i]) <= 1e-4f * right[i]);
    if (batch > 1) {
      assert(first == x[(batch - 1) * ITEMS]);
      expected(x + (batch - 1) * ITEMS, right);
      for (int i = 0; i < ITEMS; i++) assert(fabsf(found[(batch - 1) * ITEMS + i] - right[i]) <= 1e-4f * right[i]);
    }
  }
  const int on_cpu = !strncmp(pcc_device(context), "cpu", 3);
  assert(!on_cpu || pcc_context_call_count(context) == pcc_call_count());
  double total = 0;
  for (int32_t i = 0; i < pcc_context_call_count(context); i++) {
    pcc_call call = {.size = sizeof call};
    assert(pcc_describe_call(context, i, &call) == PCC_OK && call.layer && call.seconds >= 0);
    assert(!on_cpu || call.device == PCC_CPU);
    total += call.seconds;
  }
  assert((total > 0) == (user->options.profile != 0));
  snprintf(user->device, sizeof user->device, "%s", pcc_device(context));
  pcc_destroy(context);
  free(x), free(z);
  return NULL;
}

int main(int count, char **words) {
  assert(count == 4);
  static struct user users[MAX_CONTEXTS];
  const int contexts = atoi(words[3]);
  for (int i = 0; i < contexts; i++) {
    users[i].options = (pcc_options){sizeof users[i].options, 1 + i % 2, 1, atoi(words[1]), strcmp(words[2], "-") ? words[2] : NULL, NULL};
    assert(!pthread_create(&users[i].thread, NULL, use, &users[i]));
  }
  for (int i = 0; i < contexts; i++) pthread_join(users[i].thread, NULL);
  puts(users[0].device);
  return users[0].failed ? 3 : 0;
}

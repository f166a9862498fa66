/* A batch of two, then one that is too large, in a program that has tensors of the largest: prints the outputs' sums and what is wrong. */
#include <stdio.h>

#include "two.h"

static float image[TWO_INPUT_0_ELEMENTS], numbers[TWO_INPUT_1_ELEMENTS], pooled[TWO_OUTPUT_0_ELEMENTS], scores[TWO_OUTPUT_1_ELEMENTS];

static double sum(const float *values, int count) {
  double total = 0;
  for (int i = 0; i < count; i++) total += values[i];
  return total;
}

int main(void) {
  char why[256];
  pcc_context *net = pcc_create(NULL, why, sizeof why);
  if (!net) return puts(why), 1;
  const void *inputs[TWO_INPUTS] = {image, numbers};
  void *outputs[TWO_OUTPUTS] = {pooled, scores};
  for (int i = 0; i < TWO_INPUT_0_ELEMENTS; i++) image[i] = (float)(i % 7) / 7;
  for (int i = 0; i < TWO_INPUT_1_ELEMENTS; i++) numbers[i] = (float)(i % 3);
  if (pcc_max_batch() != TWO_MAX_BATCH || pcc_run_batch(net, 2, inputs, outputs) != PCC_OK) return puts(pcc_error(net)), 1;
  printf("%.9g %.9g %.9g\n", sum(pooled, 2 * TWO_OUTPUT_0_ELEMENTS / TWO_MAX_BATCH), sum(scores, 2 * TWO_OUTPUT_1_ELEMENTS / TWO_MAX_BATCH), sum(scores, TWO_OUTPUT_1_ELEMENTS));
  if (pcc_run(net, inputs, outputs) != PCC_OK) return puts(pcc_error(net)), 1;
  printf("%.9g\n", sum(scores, TWO_OUTPUT_1_ELEMENTS));
  if (pcc_run_batch(net, TWO_MAX_BATCH + 1, inputs, outputs) != PCC_BAD_ARGUMENT) return 1;
  puts(pcc_error(net));
  pcc_destroy(net);
  return 0;
}

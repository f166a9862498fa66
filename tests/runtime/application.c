/* The example at the head of pcc.h, with the model's header, linked against its library: prints the outputs' first elements. */
#include <stdio.h>

#include "toy.h"

static float image[TOY_INPUT_0_ELEMENTS], other[TOY_INPUT_1_ELEMENTS], first[TOY_OUTPUT_0_ELEMENTS], last[TOY_OUTPUT_1_ELEMENTS];

int main(void) {
  char why[256];
  const pcc_options options = {.size = sizeof options, .threads = 2};
  pcc_context *net = pcc_create(&options, why, sizeof why);
  if (!net) return puts(why), 1;
  const void *inputs[TOY_INPUTS] = {image, other};
  void *outputs[TOY_OUTPUTS] = {first, last};
  if (pcc_run(net, inputs, outputs) != PCC_OK) return puts(pcc_error(net)), 1;
  pcc_destroy(net);
  printf("%.9g %.9g\n", first[0], last[0]);
  return 0;
}

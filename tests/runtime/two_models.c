/* A program that is linked against two models: a file for each (one_of_two.c), and this one, which includes both. */
#include <stdio.h>

#include "toy.h"
#include "small-toy.h"
#include "toy.h"

#ifdef ONE_NAME_FOR_TWO
const char *name(void) { return pcc_model_name(); }
#endif

void run_toy(void);
void run_small(void);

int main(void) {
  run_toy();
  run_small();
  pcc_context *large = toy_pcc_create(NULL, NULL, 0), *small = small_toy_pcc_create(NULL, NULL, 0);
  static float image[TOY_INPUT_0_ELEMENTS], other[TOY_INPUT_1_ELEMENTS], first[TOY_OUTPUT_0_ELEMENTS], last[TOY_OUTPUT_1_ELEMENTS];
  static float small_first[SMALL_TOY_OUTPUT_0_ELEMENTS], small_last[SMALL_TOY_OUTPUT_1_ELEMENTS];
  const void *inputs[] = {image, other}; /* of the larger one */
  if (small_toy_pcc_run(small, inputs, (void *[]){small_first, small_last}) != PCC_OK) return 1;
  if (toy_pcc_run(large, inputs, (void *[]){first, last}) != PCC_OK) return 1;
  printf("%.9g %.9g %.9g %.9g\n", first[0], last[0], small_first[0], small_last[0]);
  printf("%s %s\n", toy_pcc_model_name(), small_toy_pcc_model_name());
  toy_pcc_destroy(large);
  small_toy_pcc_destroy(small);
  return 0;
}

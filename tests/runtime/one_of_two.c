/* A file of a program with two models, which uses one as if there were no other: compiled once for each, MODEL is its header, RUN what it defines.
 * Prints the outputs' first elements. */
#include <stdio.h>
#include <stdlib.h>

#include MODEL

void RUN(void) {
  char why[256];
  pcc_context *net = pcc_create(NULL, why, sizeof why);
  if (!net) {
    puts(why);
    exit(1);
  }
  void *tensors[2][8];
  for (int32_t i = 0; i < pcc_input_count() + pcc_output_count(); i++) {
    const int is_output = i >= pcc_input_count();
    pcc_tensor tensor = {.size = sizeof tensor};
    (is_output ? pcc_describe_output : pcc_describe_input)(is_output ? i - pcc_input_count() : i, &tensor);
    tensors[is_output][is_output ? i - pcc_input_count() : i] = calloc(1, tensor.bytes);
  }
  if (pcc_run(net, (const void *const *)tensors[0], tensors[1]) != PCC_OK) puts(pcc_error(net));
  for (int32_t i = 0; i < pcc_output_count(); i++) printf("%.9g ", ((const float *)tensors[1][i])[0]);
  pcc_destroy(net);
}

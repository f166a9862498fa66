/* pcc.h: what can be asked about the model itself. */
#include <string.h>

#include "model.h"
#include "pcc.h"

uint32_t pcc_abi_version(void) { return PCC_ABI_VERSION; }

const char *pcc_model_name(void) { return pcc_chosen_model()->name; }

const char *pcc_target_name(void) { return pcc_chosen_model()->target; }

int32_t pcc_input_count(void) { return pcc_chosen_model()->input_count; }

int32_t pcc_output_count(void) { return pcc_chosen_model()->output_count; }

int32_t pcc_max_batch(void) { return pcc_chosen_model()->max_batch; }

int32_t pcc_call_count(void) { return pcc_chosen_model()->step_count; }

size_t pcc_arena_bytes(void) { return pcc_chosen_model()->arena_bytes; }

size_t pcc_thread_bytes(void) { return pcc_chosen_model()->thread_bytes; }

size_t pcc_prepared_bytes(void) { return pcc_chosen_model()->prepared_bytes; }

size_t pcc_weight_bytes(void) { return pcc_chosen_model()->weight_bytes; }

static pcc_status describe(const struct pcc_port *ports, int32_t count, int32_t index, pcc_tensor *tensor) {
  const int32_t images = pcc_max_batch() ? pcc_max_batch() : 1;
  if (index < 0 || index >= count || !tensor || tensor->size < sizeof tensor->size) return PCC_BAD_ARGUMENT;
  const pcc_tensor known = {
      .size = tensor->size,
      .name = ports[index].name,
      .dtype = ports[index].element->dtype,
      .rank = ports[index].rank,
      .dims = ports[index].dims,
      .bytes = ports[index].bytes * (size_t)images,
  };
  memcpy(tensor, &known, tensor->size < sizeof known ? tensor->size : sizeof known);
  return PCC_OK;
}

pcc_status pcc_describe_input(int32_t index, pcc_tensor *tensor) {
  const struct pcc_model *model = pcc_chosen_model();
  return describe(model->inputs, model->input_count, index, tensor);
}

pcc_status pcc_describe_output(int32_t index, pcc_tensor *tensor) {
  const struct pcc_model *model = pcc_chosen_model();
  return describe(model->outputs, model->output_count, index, tensor);
}

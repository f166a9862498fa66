/* Which form of the model this processor runs. */
#include "cpu.h"
#include "model.h"

const struct pcc_model *pcc_chosen_model(void) {
  int32_t i = 0;
  while (i < pcc_model_count - 1 && pcc_cpu_lacks(pcc_models[i]->isa)) i++;
  return pcc_models[i];
}

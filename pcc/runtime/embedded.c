/* The shared library carries its weights: a read-only section (package/weights.py writes it), which the runner finds by its name (mapped.c). */
#include "model.h"

extern const struct pcc_weights pcc_embedded_weights __attribute__((visibility("hidden")));

const char *pcc_weight_values(void) { return pcc_embedded_weights.values; }

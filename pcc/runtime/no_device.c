/* For libraries without code for a GPU, and for the static runner, which cannot open a driver. */
#include "device.h"

const struct pcc_device_backend *const pcc_device_backend = NULL;
const struct pcc_device_program *const pcc_device_programs[1] = {NULL};
const int32_t pcc_device_program_count = 0;

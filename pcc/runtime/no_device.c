/* For libraries without code for a GPU, and for the runner, which is static and cannot open a driver. */
#include "device.h"

const struct pcc_device_backend *const pcc_device_backend = NULL;
const struct pcc_device_program *const pcc_device_program = NULL;

/* The toy model's program for a GPU, as a generated source would have it. The fake library knows the kernels by their names. */
#include "device.h"

enum { BUFFERS = 3, ITEMS = 1000, RANGE = 1024, CALLS = 60 };

static const struct pcc_device_kernel kernels[] = {
    {"scale", "__kernel void scale(const __global float *x, const __global float *ones, __global float *y, int items, float two) {\n"
              "  const int i = get_global_id(0);\n  if (i < items) y[i] = two * x[i] + ones[i & 1];\n}\n", "5ca1e"},
    {"square", "__kernel void square(const __global float *y, __global float *z, int items) {\n"
               "  const int i = get_global_id(0);\n  if (i < items) z[i] = y[items - 1 - i] * y[items - 1 - i];\n}\n", "54ae0"},
    {"back", "__kernel void back(const __global float *z, __global float *x, int items, float divisor) {\n"
             "  const int i = get_global_id(0);\n  if (i < items) x[i] = z[i] / divisor;\n}\n", "bac4"},
};
static const struct pcc_device_part buffers[BUFFERS] = {{0, 4000}, {4096, 4000}, {8192, 4000}};
static const struct pcc_device_part weights[] = {{0, 8}};
static const struct pcc_device_argument scale[] = {{PCC_DEVICE_BUFFER, 0, 0}, {PCC_DEVICE_WEIGHT, 1, 0}, {PCC_DEVICE_BUFFER, 1, 0}, {PCC_DEVICE_INT, ITEMS, 0}, {PCC_DEVICE_FLOAT, 0, 2}};
static const struct pcc_device_argument square[] = {{PCC_DEVICE_BUFFER, 1, 0}, {PCC_DEVICE_BUFFER, 2, 0}, {PCC_DEVICE_INT, ITEMS, 0}};
static const struct pcc_device_argument back[] = {{PCC_DEVICE_BUFFER, 2, 0}, {PCC_DEVICE_BUFFER, 0, 0}, {PCC_DEVICE_INT, ITEMS, 0}, {PCC_DEVICE_FLOAT, 0, 1e6f}};

/* The weight that runs read is made of the library's. */
static const struct pcc_device_argument made[] = {{PCC_DEVICE_WEIGHT, 0, 0}, {PCC_DEVICE_WEIGHT, 1, 0}, {PCC_DEVICE_INT, 2, 0}, {PCC_DEVICE_FLOAT, 0, 1}};
static const struct pcc_device_call preparation[] = {{"scale", 2, {64, 1, 1}, {64, 1, 1}, made, 4, 0, 0}};
static const size_t prepared[] = {8};

#define ROUND {"scale", 0, {RANGE, 1, 1}, {64, 1, 1}, scale, 5, ITEMS, ITEMS}, {"square", 1, {RANGE, 1, 1}, {64, 1, 1}, square, 3, ITEMS, ITEMS}, {"back", 2, {RANGE, 1, 1}, {64, 1, 1}, back, 4, 0, 0}
#define FIVE ROUND, ROUND, ROUND, ROUND, ROUND
static const struct pcc_device_call calls[CALLS] = {FIVE, FIVE, FIVE, FIVE};
static const int32_t inputs[] = {0}, outputs[] = {2};

/* An image of zeros, and what comes of it. */
static const struct pcc_device_part test_inputs[] = {{4096, 4000}}, test_outputs[] = {{8192, 4000}};

/* For any device, without a recorded test, and for two families. */
static const char *const any[] = {NULL}, *const named[] = {"mali-g5", "adreno (tm) 6", NULL};
static const struct pcc_device_program program = {"generic", any, 12288, 1e-4, kernels, calls, buffers, weights, inputs, outputs, 3, CALLS, BUFFERS, 1, preparation, prepared, 1, 1, 0, NULL, NULL};
static const struct pcc_device_program chosen = {"chosen", named, 12288, 1e-4, kernels, calls, buffers, weights, inputs, outputs, 3, CALLS, BUFFERS, 1, preparation, prepared, 1, 1, 0, test_inputs, test_outputs};
const struct pcc_device_backend *const pcc_device_backend = &pcc_opencl_backend;
const struct pcc_device_program *const pcc_device_programs[] = {&program, &chosen};
const int32_t pcc_device_program_count = 2;

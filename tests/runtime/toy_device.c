/* The toy model's program for a GPU, as a generated source would have it. The fake library knows the kernels by their names. */
#include "device.h"

enum { BUFFERS = 3, ITEMS = 1000, RANGE = 1024, CALLS = 60 };

static const struct pcc_device_kernel kernels[] = {
    {"scale", "__kernel void scale(const __global float *x, const __global float *ones, __global float *y, int items, int two) {\n"
              "  const int i = get_global_id(0);\n  if (i < items) y[i] = two * x[i] + ones[i & 1];\n}\n", "5ca1e"},
    {"square", "__kernel void square(const __global float *y, __global float *z, int items) {\n"
               "  const int i = get_global_id(0);\n  if (i < items) z[i] = y[items - 1 - i] * y[items - 1 - i];\n}\n", "54ae0"},
    {"back", "__kernel void back(const __global float *z, __global float *x, int items, int divisor) {\n"
             "  const int i = get_global_id(0);\n  if (i < items) x[i] = z[i] / divisor;\n}\n", "bac4"},
};
static const struct pcc_device_part buffers[BUFFERS] = {{0, 4000}, {4096, 4000}, {8192, 4000}};
static const struct pcc_device_part weights[] = {{0, 8}};
static const struct pcc_device_argument scale[] = {{PCC_DEVICE_BUFFER, 0}, {PCC_DEVICE_WEIGHT, 1}, {PCC_DEVICE_BUFFER, 1}, {PCC_DEVICE_INT, ITEMS}, {PCC_DEVICE_INT, 2}};
static const struct pcc_device_argument square[] = {{PCC_DEVICE_BUFFER, 1}, {PCC_DEVICE_BUFFER, 2}, {PCC_DEVICE_INT, ITEMS}};
static const struct pcc_device_argument back[] = {{PCC_DEVICE_BUFFER, 2}, {PCC_DEVICE_BUFFER, 0}, {PCC_DEVICE_INT, ITEMS}, {PCC_DEVICE_INT, 1000000}};

/* The weight that runs read is made of the library's. */
static const struct pcc_device_argument made[] = {{PCC_DEVICE_WEIGHT, 0}, {PCC_DEVICE_WEIGHT, 1}, {PCC_DEVICE_INT, 2}, {PCC_DEVICE_INT, 1}};
static const struct pcc_device_call preparation[] = {{"scale", 2, {64, 1, 1}, {64, 1, 1}, made, 4, 0, 0, NULL}};
static const size_t prepared[] = {8};

#define ROUND {"scale", 0, {RANGE, 1, 1}, {64, 1, 1}, scale, 5, ITEMS, ITEMS, NULL}, {"square", 1, {RANGE, 1, 1}, {64, 1, 1}, square, 3, ITEMS, ITEMS, NULL}, {"back", 2, {RANGE, 1, 1}, {64, 1, 1}, back, 4, 0, 0, NULL}
#define FIVE ROUND, ROUND, ROUND, ROUND, ROUND
static const struct pcc_device_call calls[CALLS] = {FIVE, FIVE, FIVE, FIVE};

/* The second round's square is the processor's: its fifth step. Rows of 10 numbers, as if they lay apart; the last one is one dimension. */
#define ROWS(BUFFER, TO_DEVICE, OFFSET) {BUFFER, 2, TO_DEVICE, 4, {100, 10}, 0, {40, 4}, OFFSET, {40, 4}}
static const struct pcc_device_copy y_to_host = ROWS(1, false, 4096), z_to_device = ROWS(2, true, 8192);
static const struct pcc_host_call host[] = {{"copy-to-processor", &y_to_host, 0}, {"square", NULL, 4}, {"copy-to-gpu", &z_to_device, 0}};
#define HOST(INDEX) {"square", -1, {0}, {0}, NULL, 0, 0, 0, &host[INDEX]}
static const struct pcc_device_call mixed[CALLS + 2] = {ROUND, {"scale", 0, {RANGE, 1, 1}, {64, 1, 1}, scale, 5, ITEMS, ITEMS, NULL}, HOST(0), HOST(1), HOST(2),
    {"back", 2, {RANGE, 1, 1}, {64, 1, 1}, back, 4, 0, 0, NULL}, ROUND, ROUND, ROUND, FIVE, FIVE, FIVE};
static const int32_t inputs[] = {0}, outputs[] = {2};

/* An image of zeros, and what comes of it. */
static const struct pcc_device_part test_inputs[] = {{4096, 4000}}, test_outputs[] = {{8192, 4000}};

/* For any device, without a recorded test, and for two families. */
static const char *const any[] = {NULL}, *const named[] = {"mali-g5", "adreno (tm) 6", NULL};
static const struct pcc_device_program program = {"generic", any, 12288, 1e-4, kernels, calls, buffers, weights, inputs, outputs, 3, CALLS, BUFFERS, 1, preparation, prepared, 1, 1, 0, NULL, NULL, "90e5a11", NULL};
static const struct pcc_device_program chosen = {"chosen", named, 12288, 1e-4, kernels, mixed, buffers, weights, inputs, outputs, 3, CALLS + 2, BUFFERS, 1, preparation, prepared, 1, 1, 0, test_inputs, test_outputs, "90e50e0",
#ifdef __x86_64__
    "avx2"
#else
    "neon"
#endif
};
static const struct pcc_device_program unfit = {"unfit", named, 12288, 1e-4, kernels, calls, buffers, weights, inputs, outputs, 3, CALLS, BUFFERS, 1, preparation, prepared, 1, 1, 0, NULL, NULL, "bad", "of another processor"};
const struct pcc_device_backend *const pcc_device_backend = &pcc_opencl_backend;
const struct pcc_device_program *const pcc_device_programs[] = {&unfit, &program, &chosen};
const int32_t pcc_device_program_count = 3;

/* An OpenCL library whose device computes the toy model's kernels on the processor, at once, and fails on demand, by environment:
 * FAKE_FAIL=FUNCTION:N (from its N-th call on), FAKE_HANG=FUNCTION:N (never returns, likewise), FAKE_WRONG=NUMBER (its results are off by it), FAKE_TYPE, FAKE_NAME, FAKE_VERSION (of its device), FAKE_DRIVER, FAKE_LOG. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "opencl.h"

#define EXPORT __attribute__((visibility("default")))
enum { LOST = -5, INVALID_VALUE = -30, MAX_ARGUMENTS = 8 };

struct memory {
  char *data;
  int is_part;
};

struct kernel {
  char name[16];
  union {
    struct memory *memory;
    int32_t number;
  } arguments[MAX_ARGUMENTS];
};

static int is_meant(const char *variable, const char *function, int call) {
  const char *wanted = getenv(variable);
  const size_t length = strlen(function);
  return wanted && !strncmp(wanted, function, length) && wanted[length] == ':' && call >= atoi(wanted + length + 1);
}

/* Whether this call of a function, counted by its caller, is one that fails. */
static int fails(const char *function, _Atomic int *calls) {
  const int call = atomic_fetch_add(calls, 1) + 1;
  while (is_meant("FAKE_HANG", function, call)) pause();
  return is_meant("FAKE_FAIL", function, call);
}

#define STATUS_UNLESS_FINE       \
  static _Atomic int calls;      \
  if (fails(__func__, &calls)) return LOST;
#define NULL_UNLESS_FINE         \
  static _Atomic int calls;      \
  *error = fails(__func__, &calls) ? LOST : 0; \
  if (*error) return NULL;

static void *copy_of(const void *from, size_t bytes) {
  void *copy = malloc(bytes ? bytes : 1);
  return from ? memcpy(copy, from, bytes) : memset(copy, 0x55, bytes); /* no one promises zeros */
}

EXPORT cl_int clGetPlatformIDs(uint32_t room, cl_handle *platforms, uint32_t *count) {
  STATUS_UNLESS_FINE
  static char platform;
  if (room) platforms[0] = &platform;
  *count = 1;
  return 0;
}

EXPORT cl_int clGetDeviceIDs(cl_handle platform, uint64_t type, uint32_t room, cl_handle *devices, uint32_t *count) {
  STATUS_UNLESS_FINE
  static char device;
  (void)platform, (void)room, (void)count;
  const char *is = getenv("FAKE_TYPE");
  const uint64_t known = is ? (uint64_t)atoi(is) : CL_DEVICE_TYPE_GPU;
  if (!(type & known)) return -1;
  devices[0] = &device;
  return 0;
}

/* A text from the environment, as OpenCL tells it: nothing where there is too little room. */
static cl_int tell(const char *variable, const char *usual, size_t room, void *value, size_t *count) {
  const char *text = getenv(variable) ? getenv(variable) : usual;
  const size_t bytes = strlen(text) + 1;
  if (count) *count = bytes;
  if (value && room < bytes) return INVALID_VALUE;
  if (value) memcpy(value, text, bytes);
  return 0;
}

EXPORT cl_int clGetDeviceInfo(cl_handle device, uint32_t what, size_t room, void *value, size_t *count) {
  STATUS_UNLESS_FINE
  (void)device;
  if (what == CL_DEVICE_NAME) return tell("FAKE_NAME", "Fake GPU", room, value, count);
  if (what == CL_DEVICE_VERSION) return tell("FAKE_VERSION", "OpenCL 1.2", room, value, count);
  if (what == CL_DRIVER_VERSION) return tell("FAKE_DRIVER", "1.0", room, value, count);
  const char *align = getenv("FAKE_ALIGN");
  if (what == CL_DEVICE_MEM_BASE_ADDR_ALIGN) *(uint32_t *)value = align ? (uint32_t)atoi(align) : 1024;
  return 0;
}

EXPORT cl_handle clCreateContext(const intptr_t *properties, uint32_t count, const cl_handle *devices, void *notify, void *data, cl_int *error) {
  NULL_UNLESS_FINE
  (void)properties, (void)count, (void)devices, (void)notify, (void)data;
  return malloc(1);
}

EXPORT cl_int clReleaseContext(cl_handle context) {
  free(context);
  return 0;
}

EXPORT cl_handle clCreateCommandQueue(cl_handle context, cl_handle device, uint64_t properties, cl_int *error) {
  NULL_UNLESS_FINE
  (void)context, (void)device, (void)properties;
  return malloc(1);
}

EXPORT cl_int clReleaseCommandQueue(cl_handle queue) {
  free(queue);
  return 0;
}

EXPORT cl_handle clCreateBuffer(cl_handle context, uint64_t flags, size_t bytes, void *from, cl_int *error) {
  NULL_UNLESS_FINE
  (void)context;
  struct memory *memory = malloc(sizeof *memory);
  *memory = (struct memory){copy_of(flags & CL_MEM_COPY_HOST_PTR ? from : NULL, bytes), 0};
  return memory;
}

EXPORT cl_handle clCreateSubBuffer(cl_handle buffer, uint64_t flags, uint32_t type, const void *region, cl_int *error) {
  NULL_UNLESS_FINE
  (void)flags, (void)type;
  struct memory *memory = malloc(sizeof *memory);
  *memory = (struct memory){((struct memory *)buffer)->data + ((const size_t *)region)[0], 1};
  return memory;
}

EXPORT cl_int clReleaseMemObject(cl_handle buffer) {
  struct memory *memory = buffer;
  if (!memory->is_part) free(memory->data);
  free(memory);
  return 0;
}

EXPORT cl_handle clCreateProgramWithSource(cl_handle context, uint32_t count, const char **texts, const size_t *lengths, cl_int *error) {
  NULL_UNLESS_FINE
  (void)context, (void)count, (void)lengths;
  return copy_of(texts[0], strlen(texts[0]) + 1);
}

EXPORT cl_handle clCreateProgramWithBinary(cl_handle context, uint32_t count, const cl_handle *devices, const size_t *lengths, const unsigned char **binaries,
                                           cl_int *status, cl_int *error) {
  NULL_UNLESS_FINE
  (void)context, (void)count, (void)devices;
  *status = 0;
  return copy_of(binaries[0], lengths[0]);
}

EXPORT cl_int clBuildProgram(cl_handle program, uint32_t count, const cl_handle *devices, const char *options, void *notify, void *data) {
  STATUS_UNLESS_FINE
  (void)program, (void)count, (void)devices, (void)options, (void)notify, (void)data;
  return 0;
}

EXPORT cl_int clGetProgramInfo(cl_handle program, uint32_t what, size_t room, void *value, size_t *count) {
  STATUS_UNLESS_FINE
  (void)room, (void)count;
  const size_t bytes = strlen(program) + 1;
  if (what == CL_PROGRAM_BINARY_SIZES) *(size_t *)value = bytes;
  if (what == CL_PROGRAM_BINARIES) memcpy(*(char **)value, program, bytes);
  return 0;
}

EXPORT cl_int clGetProgramBuildInfo(cl_handle program, cl_handle device, uint32_t what, size_t room, void *value, size_t *count) {
  STATUS_UNLESS_FINE
  (void)program, (void)device, (void)what;
  return tell("FAKE_LOG", "\nline 3: no such thing\nline 4: and more", room, value, count);
}

EXPORT cl_int clReleaseProgram(cl_handle program) {
  free(program);
  return 0;
}

EXPORT cl_handle clCreateKernel(cl_handle program, const char *name, cl_int *error) {
  NULL_UNLESS_FINE
  (void)program;
  struct kernel *kernel = calloc(1, sizeof *kernel);
  snprintf(kernel->name, sizeof kernel->name, "%s", name);
  return kernel;
}

EXPORT cl_int clSetKernelArg(cl_handle kernel, uint32_t index, size_t bytes, const void *value) {
  STATUS_UNLESS_FINE
  memcpy(&((struct kernel *)kernel)->arguments[index], value, bytes);
  return 0;
}

EXPORT cl_int clReleaseKernel(cl_handle kernel) {
  free(kernel);
  return 0;
}

EXPORT cl_int clEnqueueFillBuffer(cl_handle queue, cl_handle buffer, const void *pattern, size_t pattern_bytes, size_t offset, size_t bytes, uint32_t count,
                                  const cl_handle *events, cl_handle *event) {
  STATUS_UNLESS_FINE
  (void)queue, (void)pattern, (void)pattern_bytes, (void)count, (void)events, (void)event;
  memset(((struct memory *)buffer)->data + offset, 0, bytes);
  return 0;
}

EXPORT void *clEnqueueMapBuffer(cl_handle queue, cl_handle buffer, uint32_t wait, uint64_t flags, size_t offset, size_t bytes, uint32_t count,
                                const cl_handle *events, cl_handle *event, cl_int *error) {
  NULL_UNLESS_FINE
  (void)queue, (void)wait, (void)flags, (void)bytes, (void)count, (void)events, (void)event;
  return ((struct memory *)buffer)->data + offset;
}

EXPORT cl_int clEnqueueUnmapMemObject(cl_handle queue, cl_handle buffer, void *mapped, uint32_t count, const cl_handle *events, cl_handle *event) {
  STATUS_UNLESS_FINE
  (void)queue, (void)buffer, (void)mapped, (void)count, (void)events, (void)event;
  return 0;
}

static void compute(const struct kernel *kernel) {
  float *tensors[3] = {0};
  const int at = kernel->name[0] == 's' && kernel->name[1] == 'c' ? 3 : 2; /* where the numbers begin */
  for (int i = 0; i < at; i++) tensors[i] = (float *)(void *)kernel->arguments[i].memory->data;
  const int items = kernel->arguments[at].number;
  const int number = kernel->arguments[at + 1].number;
  for (int i = 0; i < items; i++) {
    if (kernel->name[0] == 'b') tensors[1][i] = tensors[0][i] / (float)number;
    if (kernel->name[1] == 'q') tensors[1][i] = tensors[0][items - 1 - i] * tensors[0][items - 1 - i] + (getenv("FAKE_WRONG") ? (float)atof(getenv("FAKE_WRONG")) : 0);
    if (kernel->name[1] == 'c') tensors[2][i] = (float)number * tensors[0][i] + tensors[1][i & 1];
  }
}

EXPORT cl_int clEnqueueNDRangeKernel(cl_handle queue, cl_handle kernel, uint32_t dimensions, const size_t *offset, const size_t *global, const size_t *local,
                                     uint32_t count, const cl_handle *events, cl_handle *event) {
  STATUS_UNLESS_FINE
  (void)queue, (void)dimensions, (void)offset, (void)count, (void)events;
  if (global[0] % local[0]) return -54;
  compute(kernel);
  if (event) *event = malloc(1);
  return 0;
}

EXPORT cl_int clFinish(cl_handle queue) {
  STATUS_UNLESS_FINE
  (void)queue;
  return 0;
}

EXPORT cl_int clGetEventProfilingInfo(cl_handle event, uint32_t what, size_t room, void *value, size_t *count) {
  STATUS_UNLESS_FINE
  (void)event, (void)room, (void)count;
  *(uint64_t *)value = what == CL_PROFILING_COMMAND_END ? 3000 : 1000;
  return 0;
}

EXPORT cl_int clReleaseEvent(cl_handle event) {
  free(event);
  return 0;
}

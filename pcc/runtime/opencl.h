/* What pcc uses of OpenCL 1.2: declared here, since nothing of it is needed to build a library. */
#ifndef PCC_OPENCL_H
#define PCC_OPENCL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef void *cl_handle; /* platforms, devices, contexts, queues, buffers, programs, kernels, events */
typedef int32_t cl_int;

enum {
  CL_SUCCESS = 0,
  CL_MAP_FAILURE = -12,
  CL_TRUE = 1,
  CL_DEVICE_TYPE_GPU = 4,
  CL_DEVICE_TYPE = 0x1000,
  CL_DEVICE_MEM_BASE_ADDR_ALIGN = 0x1019, /* bits */
  CL_DEVICE_NAME = 0x102B,
  CL_DRIVER_VERSION = 0x102D,
  CL_DEVICE_VERSION = 0x102F,
  CL_QUEUE_PROFILING_ENABLE = 2,
  CL_MEM_READ_WRITE = 1,
  CL_MEM_READ_ONLY = 4,
  CL_MEM_ALLOC_HOST_PTR = 16,
  CL_MEM_COPY_HOST_PTR = 32,
  CL_BUFFER_CREATE_TYPE_REGION = 0x1220,
  CL_MAP_READ = 1,
  CL_MAP_WRITE = 2,
  CL_MAP_WRITE_INVALIDATE_REGION = 4,
  CL_PROGRAM_BINARY_SIZES = 0x1165,
  CL_PROGRAM_BINARIES = 0x1166,
  CL_PROGRAM_BUILD_LOG = 0x1183,
  CL_PROFILING_COMMAND_START = 0x1282,
  CL_PROFILING_COMMAND_END = 0x1283,
};
#define CL_DEVICE_TYPE_ALL 0xFFFFFFFFu

/* Every function: X(result, name, parameters). */
#define PCC_OPENCL_FUNCTIONS(X)                                                                                                      \
  X(cl_int, clGetPlatformIDs, (uint32_t, cl_handle *, uint32_t *))                                                                   \
  X(cl_int, clGetDeviceIDs, (cl_handle, uint64_t, uint32_t, cl_handle *, uint32_t *))                                                \
  X(cl_int, clGetDeviceInfo, (cl_handle, uint32_t, size_t, void *, size_t *))                                                        \
  X(cl_handle, clCreateContext, (const intptr_t *, uint32_t, const cl_handle *, void *, void *, cl_int *))                           \
  X(cl_int, clReleaseContext, (cl_handle))                                                                                           \
  X(cl_handle, clCreateCommandQueue, (cl_handle, cl_handle, uint64_t, cl_int *))                                                     \
  X(cl_int, clReleaseCommandQueue, (cl_handle))                                                                                      \
  X(cl_handle, clCreateBuffer, (cl_handle, uint64_t, size_t, void *, cl_int *))                                                      \
  X(cl_handle, clCreateSubBuffer, (cl_handle, uint64_t, uint32_t, const void *, cl_int *))                                           \
  X(cl_int, clReleaseMemObject, (cl_handle))                                                                                         \
  X(cl_handle, clCreateProgramWithSource, (cl_handle, uint32_t, const char **, const size_t *, cl_int *))                            \
  X(cl_handle, clCreateProgramWithBinary, (cl_handle, uint32_t, const cl_handle *, const size_t *, const unsigned char **, cl_int *, cl_int *)) \
  X(cl_int, clBuildProgram, (cl_handle, uint32_t, const cl_handle *, const char *, void *, void *))                                  \
  X(cl_int, clGetProgramInfo, (cl_handle, uint32_t, size_t, void *, size_t *))                                                       \
  X(cl_int, clGetProgramBuildInfo, (cl_handle, cl_handle, uint32_t, size_t, void *, size_t *))                                       \
  X(cl_int, clReleaseProgram, (cl_handle))                                                                                           \
  X(cl_handle, clCreateKernel, (cl_handle, const char *, cl_int *))                                                                  \
  X(cl_int, clSetKernelArg, (cl_handle, uint32_t, size_t, const void *))                                                             \
  X(cl_int, clReleaseKernel, (cl_handle))                                                                                            \
  X(cl_int, clEnqueueFillBuffer, (cl_handle, cl_handle, const void *, size_t, size_t, size_t, uint32_t, const cl_handle *, cl_handle *)) \
  X(void *, clEnqueueMapBuffer, (cl_handle, cl_handle, uint32_t, uint64_t, size_t, size_t, uint32_t, const cl_handle *, cl_handle *, cl_int *)) \
  X(cl_int, clEnqueueUnmapMemObject, (cl_handle, cl_handle, void *, uint32_t, const cl_handle *, cl_handle *))                       \
  X(cl_int, clEnqueueNDRangeKernel,                                                                                                  \
    (cl_handle, cl_handle, uint32_t, const size_t *, const size_t *, const size_t *, uint32_t, const cl_handle *, cl_handle *))      \
  X(cl_int, clFinish, (cl_handle))                                                                                                   \
  X(cl_int, clGetEventProfilingInfo, (cl_handle, uint32_t, size_t, void *, size_t *))                                                \
  X(cl_int, clReleaseEvent, (cl_handle))

#define PCC_OPENCL_MEMBER(RESULT, NAME, PARAMETERS) RESULT(*NAME) PARAMETERS;
struct pcc_opencl {
  PCC_OPENCL_FUNCTIONS(PCC_OPENCL_MEMBER)
};

/* Opens the system's library and fills in the functions; false, and why, where there is none. It stays open: drivers do not like to be closed. */
bool pcc_opencl_load(struct pcc_opencl *cl, char *why, size_t why_size);

/* What OpenCL calls an error. */
const char *pcc_opencl_error(cl_int error);

/* Programs of a device, and where their binaries are kept. */
struct pcc_opencl_device {
  struct pcc_opencl cl;
  cl_handle id, context;
  char name[96], version[96], driver[320]; /* as much as there is room for: drivers of phones tell 200 letters */
  char described[440];                     /* "NAME, driver VERSION" */
  uint64_t key;      /* of device and driver */
  char cache[512];   /* a folder, or "" */
};

struct pcc_device_kernel;
struct pcc_device_call;
struct pcc_device_program;
struct pcc_model;

/* Builds each kernel's program, from a binary in the cache where there is one. False, and why, where the compiler fails or
 * takes longer than PCC_OPENCL_BUILD_SECONDS; *hangs then says that it still runs: nothing that it uses may be freed.
 * Programs are zero before. */
bool pcc_opencl_build(const struct pcc_opencl_device *device, const struct pcc_device_kernel *kernels, int32_t count,
                      cl_handle *programs, bool *hangs, char *why, size_t why_size);

/* Sets a call's arguments. Weights are those of the library and, behind them, those that are made of them. */
bool pcc_opencl_set_arguments(const struct pcc_opencl *cl, cl_handle kernel, const struct pcc_device_call *call, const cl_handle *buffers,
                              const cl_handle *weights, char *why, size_t why_size);

/* Fills `weights`, zero before: uploads those that runs read, and has the others made on the device, within
 * PCC_OPENCL_WEIGHTS_SECONDS; *hangs says that the device still works: nothing that it uses may be freed. */
bool pcc_opencl_upload(const struct pcc_opencl_device *device, const struct pcc_device_program *program, const cl_handle *programs,
                       const char *values, cl_handle *weights, bool *hangs, char *why, size_t why_size);

/* Whether a call failed, and then why: "WHAT: CL_OUT_OF_RESOURCES". */
bool pcc_opencl_failed(cl_int error, const char *what, char *why, size_t why_size);

/* Whether the cache says that a program was right on this device; and noting that it is. */
bool pcc_opencl_was_right(const struct pcc_opencl_device *device, const struct pcc_device_program *program, const struct pcc_model *model);
void pcc_opencl_is_right(const struct pcc_opencl_device *device, const struct pcc_device_program *program, const struct pcc_model *model);

#endif

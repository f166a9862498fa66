/* A device's weights: those of the library, and those that kernels make of them once, in the form that runs read. */
#include "device.h"
#include "opencl.h"
#include "text.h"
#include "within.h"

#ifndef PCC_OPENCL_WEIGHTS_SECONDS
#define PCC_OPENCL_WEIGHTS_SECONDS 60 /* of all that is made; it takes less than a network */
#endif

bool pcc_opencl_failed(cl_int error, const char *what, char *why, size_t why_size) {
  if (error) pcc_text(why, why_size, "%s: %s", what, pcc_opencl_error(error));
  return error;
}

bool pcc_opencl_set_arguments(const struct pcc_opencl *cl, cl_handle kernel, const struct pcc_device_call *call, const cl_handle *buffers,
                              const cl_handle *weights, char *why, size_t why_size) {
  for (int32_t i = 0; i < call->argument_count; i++) {
    const struct pcc_device_argument *argument = &call->arguments[i];
    const void *value = &argument->value;
    size_t bytes = sizeof argument->value;
    if (argument->kind == PCC_DEVICE_BUFFER || argument->kind == PCC_DEVICE_WEIGHT) {
      value = argument->kind == PCC_DEVICE_BUFFER ? &buffers[argument->value] : &weights[argument->value];
      bytes = sizeof(cl_handle);
    }
    if (pcc_opencl_failed(cl->clSetKernelArg(kernel, (uint32_t)i, bytes, value), call->layer, why, why_size)) return false;
  }
  return true;
}

/* What is done within the time limit. */
struct job {
  const struct pcc_opencl_device *device;
  const struct pcc_device_program *program;
  const cl_handle *programs;
  const char *values;
  cl_handle *weights;
};

static bool upload(const struct job *job, int32_t index, char *why, size_t why_size) {
  const struct pcc_device_part *part = &job->program->weights[index];
  cl_int error = 0;
  job->weights[index] = job->device->cl.clCreateBuffer(job->device->context, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR, part->bytes,
                                                       (void *)(uintptr_t)(job->values + part->offset), &error);
  return !pcc_opencl_failed(error, "no memory for weights", why, why_size);
}

/* Lets go of what a call read that no run reads. */
static void release_read(const struct job *job, const struct pcc_device_call *call) {
  for (int32_t i = 0; i < call->argument_count; i++) {
    const int32_t index = call->arguments[i].value;
    if (call->arguments[i].kind != PCC_DEVICE_WEIGHT || index < job->program->kept_count || index >= job->program->weight_count) continue;
    if (job->weights[index]) job->device->cl.clReleaseMemObject(job->weights[index]);
    job->weights[index] = NULL;
  }
}

/* Has a call make its weight, from those that it reads. */
static bool make(const struct job *job, cl_handle queue, const struct pcc_device_call *call, char *why, size_t why_size) {
  const struct pcc_opencl *cl = &job->device->cl;
  const uint32_t zero = 0;
  cl_int error = 0;
  for (int32_t i = 0; i < call->argument_count; i++) {
    const int32_t index = call->arguments[i].value;
    if (call->arguments[i].kind != PCC_DEVICE_WEIGHT || job->weights[index]) continue;
    if (index < job->program->weight_count) {
      if (!upload(job, index, why, why_size)) return false;
      continue;
    }
    const size_t bytes = job->program->prepared[index - job->program->weight_count];
    job->weights[index] = cl->clCreateBuffer(job->device->context, CL_MEM_READ_WRITE, bytes, NULL, &error);
    if (pcc_opencl_failed(error, "no memory for prepared weights", why, why_size) ||
        pcc_opencl_failed(cl->clEnqueueFillBuffer(queue, job->weights[index], &zero, bytes % sizeof zero ? 1 : sizeof zero, 0, bytes, 0, NULL, NULL),
                          call->layer, why, why_size))
      return false;
  }
  cl_handle kernel = cl->clCreateKernel(job->programs[call->kernel], job->program->kernels[call->kernel].name, &error);
  if (pcc_opencl_failed(error, call->layer, why, why_size)) return false;
  bool made = pcc_opencl_set_arguments(cl, kernel, call, NULL, job->weights, why, why_size);
  made = made && !pcc_opencl_failed(cl->clEnqueueNDRangeKernel(queue, kernel, 3, NULL, call->global_size, call->local_size, 0, NULL, NULL), call->layer,
                                    why, why_size);
  made = !pcc_opencl_failed(cl->clFinish(queue), call->layer, why, why_size) && made;
  cl->clReleaseKernel(kernel);
  return made;
}

static bool fill(void *argument, char *why, size_t why_size) {
  const struct job *job = argument;
  const struct pcc_opencl *cl = &job->device->cl;
  cl_int error = 0;
  for (int32_t i = 0; i < job->program->kept_count; i++)
    if (!upload(job, i, why, why_size)) return false;
  if (!job->program->preparation_count) return true;
  cl_handle queue = cl->clCreateCommandQueue(job->device->context, job->device->id, 0, &error);
  bool done = !pcc_opencl_failed(error, "no queue", why, why_size);
  for (int32_t i = 0; i < job->program->preparation_count && done; i++) {
    done = make(job, queue, &job->program->preparation[i], why, why_size);
    release_read(job, &job->program->preparation[i]);
  }
  if (queue) cl->clReleaseCommandQueue(queue);
  return done;
}

bool pcc_opencl_upload(const struct pcc_opencl_device *device, const struct pcc_device_program *program, const cl_handle *programs,
                       const char *values, cl_handle *weights, bool *hangs, char *why, size_t why_size) {
  const struct job job = {device, program, programs, values, weights};
  return pcc_within(PCC_OPENCL_WEIGHTS_SECONDS, "preparing weights", fill, &job, sizeof job, hangs, why, why_size);
}

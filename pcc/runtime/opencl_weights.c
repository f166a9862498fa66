/* A device's weights: those of the library, and those that kernels make of them once, in the form that runs read. */
#include <stdio.h>
#include <stdlib.h>

#include "device.h"
#include "opencl.h"
#include "within.h"

#ifndef PCC_OPENCL_WEIGHTS_SECONDS
#define PCC_OPENCL_WEIGHTS_SECONDS 60 /* of all that is made; it takes less than a network */
#endif

bool pcc_opencl_failed(cl_int error, const char *what, char *why, size_t why_size) {
  if (error) snprintf(why, why_size, "%s: %s", what, pcc_opencl_error(error));
  return error;
}

bool pcc_opencl_set_arguments(const struct pcc_opencl *cl, cl_handle kernel, const struct pcc_device_call *call, const cl_handle *buffers,
                              const cl_handle *weights, char *why, size_t why_size) {
  for (int32_t i = 0; i < call->argument_count; i++) {
    const struct pcc_device_argument *argument = &call->arguments[i];
    const void *value = &argument->value;
    size_t bytes = sizeof argument->value;
    if (argument->kind == PCC_DEVICE_FLOAT) value = &argument->number;
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
  bool done;
  char why[200];
};

static bool upload(struct job *job, int32_t index) {
  const struct pcc_device_part *part = &job->program->weights[index];
  cl_int error = 0;
  job->weights[index] = job->device->cl.clCreateBuffer(job->device->context, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR, part->bytes,
                                                       (void *)(uintptr_t)(job->values + part->offset), &error);
  return !pcc_opencl_failed(error, "no memory for weights", job->why, sizeof job->why);
}

/* Lets go of what a call read that no run reads. */
static void release_read(struct job *job, const struct pcc_device_call *call) {
  for (int32_t i = 0; i < call->argument_count; i++) {
    const int32_t index = call->arguments[i].value;
    if (call->arguments[i].kind != PCC_DEVICE_WEIGHT || index < job->program->kept_count || index >= job->program->weight_count) continue;
    if (job->weights[index]) job->device->cl.clReleaseMemObject(job->weights[index]);
    job->weights[index] = NULL;
  }
}

/* Has a call make its weight, from those that it reads. */
static bool make(struct job *job, cl_handle queue, const struct pcc_device_call *call) {
  const struct pcc_opencl *cl = &job->device->cl;
  const uint32_t zero = 0;
  cl_int error = 0;
  for (int32_t i = 0; i < call->argument_count; i++) {
    const int32_t index = call->arguments[i].value;
    if (call->arguments[i].kind != PCC_DEVICE_WEIGHT || job->weights[index]) continue;
    if (index < job->program->weight_count) {
      if (!upload(job, index)) return false;
      continue;
    }
    const size_t bytes = job->program->prepared[index - job->program->weight_count];
    job->weights[index] = cl->clCreateBuffer(job->device->context, CL_MEM_READ_WRITE, bytes, NULL, &error);
    if (pcc_opencl_failed(error, "no memory for prepared weights", job->why, sizeof job->why) ||
        pcc_opencl_failed(cl->clEnqueueFillBuffer(queue, job->weights[index], &zero, bytes % sizeof zero ? 1 : sizeof zero, 0, bytes, 0, NULL, NULL),
                          call->layer, job->why, sizeof job->why))
      return false;
  }
  cl_handle kernel = cl->clCreateKernel(job->programs[call->kernel], job->program->kernels[call->kernel].name, &error);
  if (pcc_opencl_failed(error, call->layer, job->why, sizeof job->why)) return false;
  bool made = pcc_opencl_set_arguments(cl, kernel, call, NULL, job->weights, job->why, sizeof job->why);
  made = made && !pcc_opencl_failed(cl->clEnqueueNDRangeKernel(queue, kernel, 3, NULL, call->global_size, call->local_size, 0, NULL, NULL), call->layer,
                                    job->why, sizeof job->why);
  made = !pcc_opencl_failed(cl->clFinish(queue), call->layer, job->why, sizeof job->why) && made;
  cl->clReleaseKernel(kernel);
  return made;
}

static void fill(void *argument) {
  struct job *job = argument;
  const struct pcc_opencl *cl = &job->device->cl;
  cl_int error = 0;
  job->done = true;
  for (int32_t i = 0; i < job->program->kept_count && job->done; i++) job->done = upload(job, i);
  if (!job->done || !job->program->preparation_count) return;
  cl_handle queue = cl->clCreateCommandQueue(job->device->context, job->device->id, 0, &error);
  job->done = !pcc_opencl_failed(error, "no queue", job->why, sizeof job->why);
  for (int32_t i = 0; i < job->program->preparation_count && job->done; i++) {
    job->done = make(job, queue, &job->program->preparation[i]);
    release_read(job, &job->program->preparation[i]);
  }
  if (queue) cl->clReleaseCommandQueue(queue);
}

bool pcc_opencl_upload(const struct pcc_opencl_device *device, const struct pcc_device_program *program, const cl_handle *programs,
                       const char *values, cl_handle *weights, bool *hangs, char *why, size_t why_size) {
  struct job *job = calloc(1, sizeof *job); /* not on the stack: a device that hangs keeps it */
  if (!job) {
    snprintf(why, why_size, "no memory");
    return false;
  }
  *job = (struct job){.device = device, .program = program, .programs = programs, .values = values, .weights = weights};
  const enum pcc_within ended = pcc_within(PCC_OPENCL_WEIGHTS_SECONDS, fill, job);
  *hangs = ended == PCC_WITHIN_HANGS;
  if (*hangs) {
    snprintf(why, why_size, "%s took more than %d s to prepare weights", device->name, PCC_OPENCL_WEIGHTS_SECONDS);
    return false;
  }
  const bool done = ended == PCC_WITHIN_DONE && job->done;
  if (!done) snprintf(why, why_size, "%s", ended == PCC_WITHIN_DONE ? job->why : "cannot start a thread to prepare weights");
  free(job);
  return done;
}

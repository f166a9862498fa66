/* The OpenCL backend. What contexts of a process share is there once: the device, its programs, the weights in its memory. A context has a
 * queue, an arena and kernels of its own. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "device.h"
#include "opencl.h"
#include "text.h"
#include "wait.h"
#include "within.h"

#ifndef PCC_OPENCL_RUN_SECONDS
#define PCC_OPENCL_RUN_SECONDS 60 /* of one image, and of opening the driver; a network takes a fraction of one on a phone */
#endif

enum { MAX_PLATFORMS = 8 };

struct shared {
  struct pcc_opencl_device device;
  const struct pcc_device_program *program;
  cl_handle *programs, *weights;
  bool is_gpu, trusted;
  int32_t users;
};

/* The first bytes of a buffer, for the processor to read or write; memory that both share is not copied. */
struct map {
  const char *what;
  int32_t buffer;
  size_t bytes;
  void *memory;
};

struct context {
  struct shared *shared;
  cl_handle queue, arena;
  cl_handle *buffers, *kernels, *events; /* a kernel for each call, so that arguments are set once; events for profiling, or NULL */
  struct map *maps; /* all inputs, all outputs, or a tensor */
  int32_t map_count, mapped;
  uint64_t map_flags;
  int64_t idle;     /* when the queue had done what was before the maps */
  bool (*step)(void *argument, int32_t index); /* of the processor's, in its arena: pcc_device_request */
  void *step_argument;
  char *host_arena;
  bool hangs;       /* a thread waits for the driver: nothing may be freed */
};

static struct pcc_word busy; /* 1 while a thread looks at what follows */
static struct shared *shared;
static char refusal[200]; /* why this process tries no more: something hangs */

/* The first device of a type on any platform. */
static cl_handle find_device(const struct pcc_opencl *cl, uint64_t type) {
  cl_handle platforms[MAX_PLATFORMS], device = NULL;
  uint32_t count = 0;
  if (cl->clGetPlatformIDs(MAX_PLATFORMS, platforms, &count)) return NULL;
  for (uint32_t i = 0; i < count && i < MAX_PLATFORMS; i++)
    if (!cl->clGetDeviceIDs(platforms[i], type, 1, &device, NULL) && device) return device;
  return NULL;
}

/* A text of the device, of any length, cut to the room: OpenCL gives none to who has too little. */
static bool ask(const struct pcc_opencl_device *device, uint32_t what, const char *called, char *text, size_t room, char *why, size_t why_size) {
  size_t bytes = 0;
  if (pcc_opencl_failed(device->cl.clGetDeviceInfo(device->id, what, 0, NULL, &bytes), called, why, why_size)) return false;
  char *whole = calloc(1, bytes + 1);
  if (!whole) {
    pcc_text(why, why_size, "no memory");
    return false;
  }
  const bool failed = pcc_opencl_failed(device->cl.clGetDeviceInfo(device->id, what, bytes, whole, NULL), called, why, why_size);
  pcc_text(text, room, "%s", whole);
  free(whole);
  return !failed;
}

/* Names the device, and checks what pcc relies on. */
static bool describe(struct pcc_opencl_device *device, char *why, size_t why_size) {
  uint32_t align = 0;
  if (!ask(device, CL_DEVICE_NAME, "the device's name", device->name, sizeof device->name, why, why_size) ||
      !ask(device, CL_DEVICE_VERSION, "the device's version", device->version, sizeof device->version, why, why_size) ||
      !ask(device, CL_DRIVER_VERSION, "the driver's version", device->driver, sizeof device->driver, why, why_size) ||
      pcc_opencl_failed(device->cl.clGetDeviceInfo(device->id, CL_DEVICE_MEM_BASE_ADDR_ALIGN, sizeof align, &align, NULL), "the device's alignment", why, why_size))
    return false;
  pcc_text(device->described, sizeof device->described, "%s, driver %s", device->name, device->driver);
  device->key = 0xcbf29ce484222325u; /* FNV-1a, with a zero between the two */
  for (const char *at = device->name; at <= device->name + strlen(device->name); at++) device->key = (device->key ^ (unsigned char)*at) * 0x100000001b3u;
  for (const char *at = device->driver; *at; at++) device->key = (device->key ^ (unsigned char)*at) * 0x100000001b3u;
  if (align <= PCC_DEVICE_ALIGNMENT * 8) return true;
  pcc_text(why, why_size, "%s: buffers must start at multiples of %u bytes, pcc's do at %d", device->name, align / 8, PCC_DEVICE_ALIGNMENT);
  return false;
}

static void free_shared(struct shared *common) {
  if (!common) return;
  const struct pcc_opencl *cl = &common->device.cl;
  for (int32_t i = 0; common->weights && i < common->program->weight_count + common->program->prepared_count; i++)
    if (common->weights[i]) cl->clReleaseMemObject(common->weights[i]);
  for (int32_t i = 0; common->programs && i < common->program->kernel_count; i++)
    if (common->programs[i]) cl->clReleaseProgram(common->programs[i]);
  if (common->device.context) cl->clReleaseContext(common->device.context);
  free(common->weights);
  free(common->programs);
  free(common);
}

/* What is done first, within the time limit. */
struct opening {
  struct shared *common;
  bool any; /* a device that is no GPU will do */
};

static bool open_driver(void *argument, char *why, size_t why_size) {
  const struct opening *opening = argument;
  struct shared *common = opening->common;
  struct pcc_opencl_device *device = &common->device;
  if (!pcc_opencl_load(&device->cl, why, why_size)) return false;
  device->id = find_device(&device->cl, CL_DEVICE_TYPE_GPU);
  common->is_gpu = device->id;
  if (!device->id && opening->any) device->id = find_device(&device->cl, CL_DEVICE_TYPE_ALL);
  if (!device->id) {
    pcc_text(why, why_size, opening->any ? "OpenCL has no device" : "OpenCL has no GPU");
    return false;
  }
  if (!describe(device, why, why_size)) return false;
  common->program = pcc_device_program_for(device->name, device->version);
  common->programs = calloc((size_t)common->program->kernel_count + 1, sizeof *common->programs);
  common->weights = calloc((size_t)common->program->weight_count + (size_t)common->program->prepared_count + 1, sizeof *common->weights);
  if (!common->programs || !common->weights) {
    pcc_text(why, why_size, "no memory");
    return false;
  }
  cl_int error = 0;
  device->context = device->cl.clCreateContext(NULL, 1, &device->id, NULL, NULL, &error);
  return !pcc_opencl_failed(error, device->name, why, why_size);
}

/* Fills what contexts share; what was made so far is left to free_shared, unless the driver or the device hangs. */
static bool set_up_shared(struct shared *common, const struct pcc_device_request *request, bool *hangs, char *why, size_t why_size) {
  struct pcc_opencl_device *device = &common->device;
  const struct opening opening = {common, request->any};
  if (request->cache && (size_t)snprintf(device->cache, sizeof device->cache, "%s", request->cache) >= sizeof device->cache) {
    pcc_text(why, why_size, "the path of the cache is longer than %zu bytes", sizeof device->cache - 1);
    return false;
  }
  return pcc_within(PCC_OPENCL_RUN_SECONDS, "opening the GPU's driver", open_driver, &opening, sizeof opening, hangs, why, why_size) &&
         pcc_opencl_build(device, common->program->kernels, common->program->kernel_count, common->programs, hangs, why, why_size) &&
         pcc_opencl_upload(device, common->program, common->programs, request->weights, common->weights, hangs, why, why_size);
}

/* What contexts share, for one more of them; NULL, and why, where there is none. */
static struct shared *join(const struct pcc_device_request *request, char *why, size_t why_size) {
  pcc_lock(&busy);
  if (*refusal) {
    pcc_text(why, why_size, "%s", refusal);
    pcc_unlock(&busy);
    return NULL;
  }
  if (!shared && (shared = calloc(1, sizeof *shared))) {
    bool hangs = false;
    if (!set_up_shared(shared, request, &hangs, why, why_size)) {
      if (hangs)
        pcc_text(refusal, sizeof refusal, "%s", why);
      else
        free_shared(shared);
      shared = NULL;
    }
  }
  struct shared *joined = shared;
  if (joined && !joined->is_gpu && !request->any) {
    pcc_text(why, why_size, "OpenCL has no GPU");
    joined = NULL;
  }
  if (joined) joined->users++;
  pcc_unlock(&busy);
  return joined;
}

static void leave(struct shared *joined) {
  pcc_lock(&busy);
  if (!--joined->users) {
    free_shared(joined);
    shared = NULL;
  }
  pcc_unlock(&busy);
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Has the driver work on a context, `work` of a pointer to it; false, and why, where that fails, or takes longer than PCC_OPENCL_RUN_SECONDS: then this process
 * does without it. */
static bool within(struct context *context, bool (*work)(void *argument, char *why, size_t why_size), char *why, size_t why_size) {
  const bool done = pcc_within(PCC_OPENCL_RUN_SECONDS, context->shared->device.name, work, &context, sizeof context, &context->hangs, why, why_size);
  if (context->hangs) {
    pcc_lock(&busy);
    pcc_text(refusal, sizeof refusal, "%s", why);
    pcc_unlock(&busy);
  }
  return done;
}

static bool finish_and_map(void *argument, char *why, size_t why_size) {
  struct context *context = *(struct context **)argument;
  const struct pcc_opencl_device *device = &context->shared->device;
  if (pcc_opencl_failed(device->cl.clFinish(context->queue), device->name, why, why_size)) return false;
  context->idle = now();
  while (context->mapped < context->map_count) {
    struct map *map = &context->maps[context->mapped];
    cl_int error = 0;
    map->memory = device->cl.clEnqueueMapBuffer(context->queue, context->buffers[map->buffer], CL_TRUE, context->map_flags, 0, map->bytes, 0, NULL, NULL, &error);
    if (pcc_opencl_failed(error || map->memory ? error : CL_MAP_FAILURE, map->what, why, why_size)) return false;
    context->mapped++;
  }
  return true;
}

/* Gives back what is mapped. */
static bool unmap(struct context *context, char *why, size_t why_size) {
  bool done = true;
  while (context->mapped) {
    const struct map *map = &context->maps[--context->mapped];
    const cl_int error = context->shared->device.cl.clEnqueueUnmapMemObject(context->queue, context->buffers[map->buffer], map->memory, 0, NULL, NULL);
    done = !pcc_opencl_failed(error, map->what, why, why_size) && done;
  }
  return done;
}

/* Waits until all that is in the queue is done, and maps so many of context->maps, or none where that fails. */
static bool wait_and_map(struct context *context, int32_t count, uint64_t flags, char *why, size_t why_size) {
  context->map_count = count;
  context->map_flags = flags;
  if (within(context, finish_and_map, why, why_size)) return true;
  if (!context->hangs) unmap(context, NULL, 0); /* why is told already */
  return false;
}

/* Makes what the driver has of a context. */
static bool make(void *argument, char *why, size_t why_size) {
  struct context *context = *(struct context **)argument;
  const struct pcc_device_program *program = context->shared->program;
  const struct pcc_opencl_device *device = &context->shared->device;
  const struct pcc_opencl *cl = &device->cl;
  cl_int error = 0;
  context->queue = cl->clCreateCommandQueue(device->context, device->id, context->events ? CL_QUEUE_PROFILING_ENABLE : 0, &error);
  if (pcc_opencl_failed(error, "no queue", why, why_size)) return false;
  context->arena = cl->clCreateBuffer(device->context, CL_MEM_READ_WRITE | CL_MEM_ALLOC_HOST_PTR, program->arena_bytes, NULL, &error);
  if (pcc_opencl_failed(error, "no memory for the arena", why, why_size)) return false;
  const uint32_t zero = 0; /* borders of planes are zeros */
  if (pcc_opencl_failed(cl->clEnqueueFillBuffer(context->queue, context->arena, &zero, sizeof zero, 0, program->arena_bytes, 0, NULL, NULL), "the arena", why,
             why_size))
    return false;
  for (int32_t i = 0; i < program->buffer_count; i++) {
    const size_t region[2] = {program->buffers[i].offset, program->buffers[i].bytes};
    context->buffers[i] = cl->clCreateSubBuffer(context->arena, CL_MEM_READ_WRITE, CL_BUFFER_CREATE_TYPE_REGION, region, &error);
    if (pcc_opencl_failed(error, "a buffer in the arena", why, why_size)) return false;
  }
  for (int32_t i = 0; i < program->call_count; i++) {
    if (program->calls[i].host) continue;
    const int32_t kernel = program->calls[i].kernel;
    context->kernels[i] = cl->clCreateKernel(context->shared->programs[kernel], program->kernels[kernel].name, &error);
    if (pcc_opencl_failed(error, program->kernels[kernel].name, why, why_size) || 
        !pcc_opencl_set_arguments(cl, context->kernels[i], &program->calls[i], context->buffers, context->shared->weights, why, why_size))
      return false;
  }
  return !pcc_opencl_failed(cl->clFinish(context->queue), "the arena", why, why_size);
}

static bool set_up(struct context *context, const struct pcc_device_request *request, char *why, size_t why_size) {
  const struct pcc_device_program *program = context->shared->program;
  context->step = request->step;
  context->step_argument = request->context;
  context->host_arena = request->arena;
  context->buffers = calloc((size_t)program->buffer_count + 1, sizeof *context->buffers);
  context->kernels = calloc((size_t)program->call_count + 1, sizeof *context->kernels);
  context->maps = calloc((size_t)request->model->input_count + (size_t)request->model->output_count + 1, sizeof *context->maps);
  if (request->profile) context->events = calloc((size_t)program->call_count + 1, sizeof *context->events);
  if (!context->buffers || !context->kernels || !context->maps || (request->profile && !context->events)) {
    pcc_text(why, why_size, "no memory");
    return false;
  }
  return within(context, make, why, why_size);
}

static void opencl_close(void *opened) {
  struct context *context = opened;
  if (context->hangs) return;
  const struct pcc_device_program *program = context->shared->program;
  const struct pcc_opencl *cl = &context->shared->device.cl;
  for (int32_t i = 0; context->kernels && i < program->call_count; i++)
    if (context->kernels[i]) cl->clReleaseKernel(context->kernels[i]);
  for (int32_t i = 0; context->buffers && i < program->buffer_count; i++)
    if (context->buffers[i]) cl->clReleaseMemObject(context->buffers[i]);
  if (context->arena) cl->clReleaseMemObject(context->arena);
  if (context->queue) cl->clReleaseCommandQueue(context->queue);
  leave(context->shared);
  free(context->maps);
  free(context->events);
  free(context->kernels);
  free(context->buffers);
  free(context);
}

/* Adds the times of the device's calls, and lets their events go. */
static bool read_clock(struct context *context, int32_t count, int64_t *clock) {
  const struct pcc_opencl *cl = &context->shared->device.cl;
  bool read = true;
  for (int32_t i = 0; i < count; i++) {
    if (context->shared->program->calls[i].host) continue;
    uint64_t start = 0, end = 0;
    read = read && clock && !cl->clGetEventProfilingInfo(context->events[i], CL_PROFILING_COMMAND_START, sizeof start, &start, NULL) &&
           !cl->clGetEventProfilingInfo(context->events[i], CL_PROFILING_COMMAND_END, sizeof end, &end, NULL);
    if (read) clock[i] += (int64_t)(end - start);
    cl->clReleaseEvent(context->events[i]);
  }
  return read;
}

/* Names the inputs or outputs as what is mapped next. */
static void choose_maps(struct context *context, const struct pcc_port *ports, const int32_t *buffers, int32_t count) {
  for (int32_t i = 0; i < count; i++) context->maps[i] = (struct map){ports[i].name, buffers[i], ports[i].bytes, NULL};
}

static bool copy_inputs(struct context *context, const struct pcc_model *model, const void *const *inputs, char *why, size_t why_size) {
  choose_maps(context, model->inputs, context->shared->program->inputs, model->input_count);
  if (!wait_and_map(context, model->input_count, CL_MAP_WRITE_INVALIDATE_REGION, why, why_size)) return false;
  for (int32_t i = 0; i < model->input_count; i++) memcpy(context->maps[i].memory, inputs[i], model->inputs[i].bytes);
  return unmap(context, why, why_size);
}

/* A call that is the processor's, once the device has done all before it; its time is without that wait. */
static bool run_on_host(struct context *context, const struct pcc_device_call *call, bool *device_works, int64_t *clock, char *why, size_t why_size) {
  const struct pcc_device_copy *copy = call->host->copy;
  if (copy) context->maps[0] = (struct map){call->layer, copy->buffer, context->shared->program->buffers[copy->buffer].bytes, NULL};
  if ((*device_works || copy) && !wait_and_map(context, copy ? 1 : 0, copy && copy->to_device ? CL_MAP_WRITE : CL_MAP_READ, why, why_size)) return false;
  *device_works = false;
  const int64_t start = copy ? context->idle : now();
  if (copy) {
    pcc_device_copy_tensor(copy, context->host_arena, context->maps[0].memory);
    if (!unmap(context, why, why_size)) return false;
  } else if (!context->step(context->step_argument, call->host->step)) {
    pcc_text(why, why_size, "%s: no memory for weights on the processor", call->layer);
    return false;
  }
  if (clock) *clock += now() - start;
  return true;
}

/* Starts the calls, and does those that are the processor's; how many have events. */
static int32_t run_calls(struct context *context, int64_t *clock, bool *failed, char *why, size_t why_size) {
  const struct pcc_device_program *program = context->shared->program;
  const struct pcc_opencl *cl = &context->shared->device.cl;
  bool device_works = false;
  *failed = false;
  for (int32_t i = 0; i < program->call_count; i++) {
    const struct pcc_device_call *call = &program->calls[i];
    if (call->host) {
      *failed = !run_on_host(context, call, &device_works, clock ? &clock[i] : NULL, why, why_size);
    } else {
      cl_handle *event = context->events ? &context->events[i] : NULL;
      *failed = pcc_opencl_failed(cl->clEnqueueNDRangeKernel(context->queue, context->kernels[i], 3, NULL, call->global_size, call->local_size, 0, NULL,
                                                             event),
                                  call->layer, why, why_size);
      device_works = true;
    }
    if (*failed) return i;
  }
  return program->call_count;
}

static bool opencl_run(void *opened, const void *const *inputs, void *const *outputs, int64_t *clock, char *why, size_t why_size) {
  struct context *context = opened;
  const struct pcc_model *model = pcc_chosen_model();
  pcc_lock(&busy);
  context->hangs = *refusal; /* nothing that it uses may be freed, for what hangs may use it, too */
  if (context->hangs) pcc_text(why, why_size, "%s", refusal);
  pcc_unlock(&busy);
  if (context->hangs || !copy_inputs(context, model, inputs, why, why_size)) return false;
  bool failed;
  const int32_t started = run_calls(context, clock, &failed, why, why_size);
  if (context->hangs) return false;
  char lost[200];
  choose_maps(context, model->outputs, context->shared->program->outputs, model->output_count);
  const bool is_done = wait_and_map(context, failed ? 0 : model->output_count, CL_MAP_READ, lost, sizeof lost);
  if (!is_done) {
    if (!failed) pcc_text(why, why_size, "%s", lost);
    failed = true;
  }
  if (!context->hangs && context->events && !read_clock(context, started, clock) && clock && !failed) {
    pcc_text(why, why_size, "the driver does not tell the calls' times");
    failed = true;
  }
  /* Where one is not mapped, none is written, for an output may lie where an input does. */
  for (int32_t i = 0; !failed && i < model->output_count; i++) memcpy(outputs[i], context->maps[i].memory, model->outputs[i].bytes);
  if (!context->hangs) unmap(context, lost, sizeof lost); /* the next run notices where that fails */
  return !failed;
}

static const char *opencl_name(const void *opened) { return ((const struct context *)opened)->shared->device.described; }

static const struct pcc_device_program *opencl_program(const void *opened) {
  return ((const struct context *)opened)->shared->program;
}

/* Compares the device with the processor, unless that was done: in this process, or, as the cache says, in an earlier one. */
static bool is_trusted(struct context *context, const struct pcc_device_request *request, char *why, size_t why_size);

static void *opencl_open(const struct pcc_device_request *request, char *why, size_t why_size) {
  pcc_text(why, why_size, "no memory");
  struct context *context = calloc(1, sizeof *context);
  if (context && !(context->shared = join(request, why, why_size))) {
    free(context);
    context = NULL;
  }
  if (context && !(set_up(context, request, why, why_size) && is_trusted(context, request, why, why_size))) {
    opencl_close(context);
    context = NULL;
  }
  return context;
}

const struct pcc_device_backend pcc_opencl_backend = {opencl_open, opencl_run, opencl_name, opencl_program, opencl_close};

static bool is_trusted(struct context *context, const struct pcc_device_request *request, char *why, size_t why_size) {
  struct shared *joined = context->shared;
  const struct pcc_device_program *program = joined->program;
  pcc_lock(&busy);
  const bool trusted = joined->trusted || pcc_opencl_was_right(&joined->device, program, request->model);
  pcc_unlock(&busy);
  if (trusted) return true;
  if (!pcc_device_agrees(request, &pcc_opencl_backend, context, why, why_size)) return false;
  pcc_opencl_is_right(&joined->device, program, request->model);
  pcc_lock(&busy);
  joined->trusted = true;
  pcc_unlock(&busy);
  return true;
}

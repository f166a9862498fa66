/* pcc.h: contexts, and how they run the model's steps. */
#define _GNU_SOURCE
#include "pcc.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpu.h"
#include "device.h"
#include "model.h"
#include "pool.h"
#include "prepared.h"
#include "text.h"
#include "wait.h"

enum { MAX_THREADS = 256, CHUNKS_PER_THREAD = 2, MAX_PORTS = 256 /* of a model that runs on a device */ };

/* How far a step is: the next item to hand out, and how many are done. */
struct range {
  _Atomic int32_t next;
  _Atomic int32_t done;
};

struct pcc_context {
  const struct pcc_model *model; /* in the form for this processor */
  char *arena;              /* and, behind it, each thread's own memory */
  void *arena_memory; /* what to free */
  const char *weights;
  char *prepared;           /* NULL for a model without such weights, or before they are there */
  struct range *ranges;     /* one for each step, those that prepare weights included */
  struct pcc_word finished; /* steps of this stage that are complete, counted from the first step of all */
  const struct pcc_stage *stage; /* what the threads run: the steps of this stage */
  size_t image;                  /* for these images */
  int32_t images;
  int64_t *clock;           /* profiling: the time of each step in this run, in nanoseconds; else NULL */
  int64_t last;             /* when the step before was complete */
  struct pcc_pool *pool;    /* NULL for one thread */
  int32_t threads;
  void *device;             /* NULL where the processor computes */
  char device_text[600];    /* pcc_device() */
  _Atomic bool runs;        /* a call is in it */
  char error[240];
};

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Takes a range of items: large ones first, single ones in the end, so that threads finish together. */
static bool take(struct range *range, int32_t work, int32_t threads, int32_t *begin, int32_t *end) {
  int32_t at = atomic_load_explicit(&range->next, memory_order_relaxed);
  int32_t count;
  do {
    const int32_t left = work - at;
    if (left <= 0) return false;
    count = threads == 1 ? left : left / (CHUNKS_PER_THREAD * threads);
    if (count < 1) count = 1;
  } while (!atomic_compare_exchange_weak_explicit(&range->next, &at, at + count, memory_order_relaxed, memory_order_relaxed));
  *begin = at;
  *end = at + count;
  return true;
}

/* A range of a step's items: those of several images in one call, or image by image. */
static void run_range(const pcc_context *context, const struct pcc_step *step, char *own, int32_t begin, int32_t end) {
  if (step->together) {
    step->function(context->arena, context->weights, context->prepared, own, context->image, context->images, begin, end);
    return;
  }
  while (begin < end) {
    const int32_t image = begin / step->work, first = image * step->work;
    const int32_t stop = end - first < step->work ? end : first + step->work;
    step->function(context->arena, context->weights, context->prepared, own, context->image + (size_t)image, 1, begin - first, stop - first);
    begin = stop;
  }
}

/* What every thread of a context does in a stage: each step in turn, as many of its items as it can get. The thread that completes a step
 * lets all go on to the next. */
static void run_steps(void *argument, int32_t thread) {
  pcc_context *context = argument;
  char *const own = context->arena + context->model->arena_bytes + (size_t)thread * context->model->thread_bytes;
  for (int32_t i = context->stage->begin; i < context->stage->end; i++) {
    const struct pcc_step *step = &context->model->steps[i];
    const int32_t work = step->work * (step->together ? (context->images + step->together - 1) / step->together : context->images);
    struct range *range = &context->ranges[i];
    int32_t begin, end;
    while (take(range, work, context->threads, &begin, &end)) {
      run_range(context, step, own, begin, end);
      const int32_t count = end - begin;
      if (atomic_fetch_add(&range->done, count) + count == work) {
        if (context->clock) {
          const int64_t time = now();
          context->clock[i] += time - context->last;
          context->last = time;
        }
        pcc_publish(&context->finished, (uint32_t)i + 1);
      }
    }
    uint32_t finished = atomic_load_explicit(&context->finished.value, memory_order_acquire);
    while (finished <= (uint32_t)i) finished = pcc_wait_change(&context->finished, finished);
  }
}

static pcc_status fail(pcc_context *context, pcc_status status, const char *format, ...) {
  va_list values;
  va_start(values, format);
  pcc_text_of(context->error, sizeof context->error, format, values);
  va_end(values);
  return status;
}

/* The steps of a stage on images [image, image + images) of a batch, on all threads. */
static void run_on_threads(pcc_context *context, const struct pcc_stage *stage, size_t image, int32_t images) {
  context->stage = stage;
  context->image = image;
  context->images = images;
  for (int32_t i = stage->begin; i < stage->end; i++) {
    atomic_store_explicit(&context->ranges[i].next, 0, memory_order_relaxed);
    atomic_store_explicit(&context->ranges[i].done, 0, memory_order_relaxed);
  }
  atomic_store(&context->finished.value, (uint32_t)stage->begin);
  if (context->clock) context->last = now();
  if (context->pool)
    pcc_pool_run(context->pool);
  else
    run_steps(context, 0);
}

/* A stage on images [image, image + images) of a batch, with the inputs and outputs that are its to copy. */
static void run_stage(pcc_context *context, int32_t index, size_t image, int32_t images, const void *const *inputs, void *const *outputs) {
  for (int32_t i = 0; i < context->model->input_count; i++) {
    const struct pcc_port *port = &context->model->inputs[i];
    for (size_t k = image; port->stage == index && k < image + (size_t)images; k++)
      memcpy(context->arena + port->offset + k * port->image_bytes, (const char *)inputs[i] + k * port->bytes, port->bytes);
  }
  run_on_threads(context, &context->model->stages[index], image, images);
  for (int32_t i = 0; i < context->model->output_count; i++) {
    const struct pcc_port *port = &context->model->outputs[i];
    for (size_t k = image; port->stage == index && k < image + (size_t)images; k++)
      memcpy((char *)outputs[i] + k * port->bytes, context->arena + port->offset + k * port->image_bytes, port->bytes);
  }
}

/* Steps that the clock of a run does not have a place for, on one image. */
static void run_untimed(pcc_context *context, const struct pcc_stage *stage) {
  int64_t *const clock = context->clock;
  context->clock = NULL;
  run_on_threads(context, stage, 0, 1);
  context->clock = clock;
}

/* Puts weights into the form that kernels read. */
static void prepare(void *argument, char *memory) {
  pcc_context *context = argument;
  const int32_t begin = context->model->step_count;
  const struct pcc_stage preparation = {begin, begin + context->model->preparation_count, 1};
  context->prepared = memory;
  run_untimed(context, &preparation);
}

/* Has the weights prepared that the processor's kernels read; a context that runs on a device does so when it has to. */
static pcc_status prepare_weights(pcc_context *context) {
  if (!context->model->prepared_bytes || context->prepared) return PCC_OK;
  context->prepared = pcc_prepared_share(context->model->prepared_bytes, prepare, context);
  if (!context->prepared) return fail(context, PCC_NO_MEMORY, "no memory for prepared weights of %zu bytes", context->model->prepared_bytes);
  return PCC_OK;
}

/* The first `batch` images on the processor. */
static pcc_status run_on_cpu(pcc_context *context, int32_t batch, const void *const *inputs, void *const *outputs) {
  const pcc_status prepared = prepare_weights(context);
  if (prepared != PCC_OK) return prepared;
  for (int32_t stage = 0; stage < context->model->stage_count; stage++) {
    const int32_t images = context->model->stages[stage].at_once ? batch : 1;
    for (int32_t image = 0; image < batch; image += images) run_stage(context, stage, (size_t)image, images, inputs, outputs);
  }
  return PCC_OK;
}

/* One image, to compare a device with. */
static bool compare_on_cpu(void *argument, const void *const *inputs, void *const *outputs) {
  return run_on_cpu(argument, 1, inputs, outputs) == PCC_OK;
}

/* A step that a device's program leaves to the processor. */
static bool step_for_device(void *argument, int32_t index) {
  pcc_context *context = argument;
  if (prepare_weights(context) != PCC_OK) return false;
  const struct pcc_stage stage = {index, index + 1, 1};
  run_untimed(context, &stage);
  return true;
}

static void close_device(pcc_context *context) {
  if (context->device) pcc_device_backend->close(context->device);
  context->device = NULL;
}

/* The first `batch` images on the device. If it fails, this context does without it from now on. */
static bool run_on_device(pcc_context *context, int32_t batch, const void *const *inputs, void *const *outputs) {
  const struct pcc_model *model = context->model;
  for (int32_t image = 0; image < batch; image++) {
    const void *image_inputs[MAX_PORTS];
    void *image_outputs[MAX_PORTS];
    char why[200];
    for (int32_t i = 0; i < model->input_count; i++) image_inputs[i] = (const char *)inputs[i] + (size_t)image * model->inputs[i].bytes;
    for (int32_t i = 0; i < model->output_count; i++) image_outputs[i] = (char *)outputs[i] + (size_t)image * model->outputs[i].bytes;
    if (pcc_device_backend->run(context->device, image_inputs, image_outputs, context->clock, why, sizeof why)) continue;
    pcc_text(context->device_text, sizeof context->device_text, "cpu: the GPU failed in a run: %s", why);
    close_device(context);
    return false;
  }
  return true;
}

static void clear_clock(pcc_context *context, int32_t calls) {
  if (context->clock) memset(context->clock, 0, (size_t)calls * sizeof *context->clock);
}

/* The model on the first `batch` images. */
static pcc_status run_images(pcc_context *context, int32_t batch, const void *const *inputs, void *const *outputs) {
  if (!inputs || !outputs) return fail(context, PCC_BAD_ARGUMENT, "pcc_run: %s is NULL", inputs ? "outputs" : "inputs");
  for (int32_t i = 0; i < context->model->input_count; i++)
    if (!inputs[i]) return fail(context, PCC_BAD_ARGUMENT, "pcc_run: inputs[%d] ('%s') is NULL", i, context->model->inputs[i].name);
  for (int32_t i = 0; i < context->model->output_count; i++)
    if (!outputs[i]) return fail(context, PCC_BAD_ARGUMENT, "pcc_run: outputs[%d] ('%s') is NULL", i, context->model->outputs[i].name);

  if (context->device) {
    clear_clock(context, pcc_context_call_count(context));
    if (run_on_device(context, batch, inputs, outputs)) return PCC_OK;
  }
  clear_clock(context, context->model->step_count);
  return run_on_cpu(context, batch, inputs, outputs);
}

static pcc_status run_batch(pcc_context *context, int32_t batch, const void *const *inputs, void *const *outputs) {
  if (!context->model->max_batch) return fail(context, PCC_BAD_ARGUMENT, "pcc_run_batch: %s was compiled for one batch: use pcc_run", context->model->name);
  if (batch < 1 || batch > context->model->max_batch)
    return fail(context, PCC_BAD_ARGUMENT, "pcc_run_batch: a batch of %d: %s takes 1 to %d", batch, context->model->name, context->model->max_batch);
  return run_images(context, batch, inputs, outputs);
}

/* Whether the caller has the context to itself: then it must release it. Where another thread's call is in it, nothing of that is touched. */
static bool acquire(pcc_context *context) {
  if (atomic_exchange(&context->runs, true)) return false;
  context->error[0] = 0;
  return true;
}

static pcc_status release(pcc_context *context, pcc_status status) {
  atomic_store(&context->runs, false);
  return status;
}

pcc_status pcc_run(pcc_context *context, const void *const *inputs, void *const *outputs) {
  if (!context) return PCC_BAD_ARGUMENT;
  if (!acquire(context)) return PCC_BUSY;
  return release(context, run_images(context, context->model->max_batch ? context->model->max_batch : 1, inputs, outputs));
}

pcc_status pcc_run_batch(pcc_context *context, int32_t batch, const void *const *inputs, void *const *outputs) {
  if (!context) return PCC_BAD_ARGUMENT;
  if (!acquire(context)) return PCC_BUSY;
  return release(context, run_batch(context, batch, inputs, outputs));
}

const char *pcc_error(const pcc_context *context) { return context ? context->error : "the context is NULL"; }

/* Opens the device that options ask for. Where none can be used, the context is the processor's, unless nothing else than a GPU will do. */
static pcc_status choose_device(pcc_context *context, const pcc_options *options) {
  if (options->device < PCC_AUTO || options->device > PCC_GPU)
    return fail(context, PCC_BAD_ARGUMENT, "options.device is %d: use PCC_AUTO, PCC_CPU or PCC_GPU", options->device);
  char why[200] = "the library has no code for a GPU";
  pcc_text(context->device_text, sizeof context->device_text, "cpu");
  if (pcc_device_backend && options->device != PCC_CPU) {
    const struct pcc_device_request request = {
        context->model,   context->weights, options->cache,  options->device == PCC_GPU,
        options->profile, compare_on_cpu,   step_for_device, context->arena,
        context,
    };
    if (context->model->input_count > MAX_PORTS || context->model->output_count > MAX_PORTS)
      pcc_text(why, sizeof why, "more than %d inputs or outputs", MAX_PORTS);
    else
      context->device = pcc_device_backend->open(&request, why, sizeof why);
    if (context->device)
      pcc_text(context->device_text, sizeof context->device_text, "gpu: %s, code for %s%s", pcc_device_backend->name(context->device),
               pcc_device_backend->program(context->device)->profile,
               pcc_device_backend->program(context->device)->test_inputs ? "" : "; self-test without recorded input: the package has none");
    else
      pcc_text(context->device_text, sizeof context->device_text, "cpu: %s", why);
  }
  if (options->device == PCC_GPU && !context->device) return fail(context, PCC_NO_DEVICE, "no GPU: %s", why);
  return context->device ? PCC_OK : prepare_weights(context);
}

/* Fills a new context; what was made so far is left to pcc_destroy. */
static pcc_status set_up(pcc_context *context, const pcc_options *options) {
  context->model = pcc_chosen_model();
  const char *lacks = pcc_cpu_lacks(context->model->isa);
  if (lacks) return fail(context, PCC_WRONG_CPU, "%s is compiled for %s: this processor lacks %s", context->model->name, context->model->target, lacks);
  context->threads = options->threads ? options->threads : 1;
  if (context->threads < 1 || context->threads > MAX_THREADS)
    return fail(context, PCC_BAD_ARGUMENT, "options.threads is %d: use 1 to %d", context->threads, MAX_THREADS);

  const size_t steps = (size_t)context->model->step_count + (size_t)context->model->preparation_count;
  const size_t memory = context->model->arena_bytes + (size_t)context->threads * context->model->thread_bytes;
  context->arena_memory = calloc(1, memory + PCC_AROUND);
  context->ranges = calloc(steps + 1, sizeof *context->ranges);
  if (!context->arena_memory || !context->ranges)
    return fail(context, PCC_NO_MEMORY, "no memory for an arena of %zu bytes", memory);
  context->arena = pcc_aligned(context->arena_memory);
  context->weights = pcc_weight_values();

  if (context->threads > 1) {
    context->pool = pcc_pool_create(context->threads - 1, run_steps, context);
    if (!context->pool) return fail(context, PCC_NO_THREADS, "cannot start %d threads (glibc before 2.34 needs -pthread)", context->threads);
  }
  if (options->profile) {
    size_t calls = steps;
    for (int32_t i = 0; i < pcc_device_program_count; i++)
      if ((size_t)pcc_device_programs[i]->call_count > calls) calls = (size_t)pcc_device_programs[i]->call_count;
    context->clock = calloc(calls + 1, sizeof *context->clock);
    if (!context->clock) return fail(context, PCC_NO_MEMORY, "no memory for the times of %zu calls", calls);
  }
  return choose_device(context, options);
}

pcc_context *pcc_create(const pcc_options *options, char *error, size_t error_size) {
  pcc_options known = {0};
  if (error && error_size) error[0] = 0;
  if (options && options->size < sizeof options->size) {
    if (error && error_size) pcc_text(error, error_size, "options.size is %zu: set it to sizeof(pcc_options)", options->size);
    return NULL;
  }
  if (options) memcpy(&known, options, options->size < sizeof known ? options->size : sizeof known);
  pcc_context *context = calloc(1, sizeof *context);
  const pcc_status status = context ? set_up(context, &known) : PCC_NO_MEMORY;
  if (known.status) *known.status = status;
  if (status == PCC_OK) return context;
  if (error && error_size) pcc_text(error, error_size, "%s", context ? context->error : "no memory");
  pcc_destroy(context);
  return NULL;
}

void pcc_destroy(pcc_context *context) {
  if (!context) return;
  close_device(context);
  pcc_pool_destroy(context->pool);
  if (context->prepared) pcc_prepared_leave();
  free(context->clock);
  free(context->ranges);
  free(context->arena_memory);
  free(context);
}

const char *pcc_device(const pcc_context *context) { return context ? context->device_text : "the context is NULL"; }

int32_t pcc_context_call_count(const pcc_context *context) {
  if (context && context->device) return pcc_device_backend->program(context->device)->call_count;
  return pcc_chosen_model()->step_count;
}

pcc_status pcc_describe_call(const pcc_context *context, int32_t index, pcc_call *call) {
  if (index < 0 || index >= pcc_context_call_count(context) || !call || call->size < sizeof call->size) return PCC_BAD_ARGUMENT;
  const double seconds = context && context->clock ? (double)context->clock[index] * 1e-9 : 0;
  pcc_call known;
  if (context && context->device) {
    const struct pcc_device_program *program = pcc_device_backend->program(context->device);
    const struct pcc_device_call *run = &program->calls[index];
    const char *kernel = run->host ? run->host->kernel : program->kernels[run->kernel].name;
    known = (pcc_call){call->size, run->layer, kernel, run->macs, run->dense_macs, seconds, run->host ? PCC_CPU : PCC_GPU};
  } else {
    const struct pcc_step *run = &pcc_chosen_model()->steps[index];
    known = (pcc_call){call->size, run->layer, run->kernel, run->macs, run->dense_macs, seconds, PCC_CPU};
  }
  memcpy(call, &known, call->size < sizeof known ? call->size : sizeof known);
  return PCC_OK;
}

/* pcc-run: runs, times and checks a compiled model where there is nothing but a kernel: a static program. pcc-run-gpu is the
 * same as a dynamic program, which can open a GPU's driver.
 *
 *     pcc-run run --input a.bin --output b.bin        tensors are raw little-endian elements, one file each, in order; where the batch is free, of any
 *     pcc-run bench --threads 4 --warmup 5 --runs 50 [--batch 2] [--profile] [--json]
 *         [--device auto|cpu|gpu] [--cache DIR]       with all commands: what computes, and where a GPU's programs are kept
 *     pcc-run selftest DIR                            input_N.bin, output_N.bin and tolerance, as the package's selftest/ has them
 *
 * Exit status: 0, 1 when the self-test fails, 2 for wrong use. */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "device.h"
#include "mapped.h"
#include "model.h"
#include "pcc.h"

/* pool.c refers to these weakly, which does not bring them into a static program. */
const void *const pcc_thread_functions[] = {(const void *)pthread_create, (const void *)pthread_join};

static const struct pcc_model *model; /* in the form for this processor; set before all else */

struct arguments {
  const char *command;
  const char *folder; /* of selftest */
  const char *library;
  const char **inputs, **outputs; /* files */
  int32_t input_count, output_count;
  int32_t threads, warmup, runs;
  int32_t batch; /* of bench; 0: the largest */
  bool profile, json;
  int32_t device; /* a pcc_device_choice */
  const char *cache;
};

static _Noreturn void stop(const char *format, ...) {
  va_list values;
  va_start(values, format);
  fputs("pcc-run: ", stderr);
  vfprintf(stderr, format, values);
  fputc('\n', stderr);
  exit(2);
}

static void *allocate(size_t bytes) {
  void *memory = calloc(1, bytes ? bytes : 1);
  if (!memory) stop("no memory for %zu bytes", bytes);
  return memory;
}

static int32_t number(const char *option, const char *text, int32_t least) {
  char *end;
  const long value = strtol(text, &end, 10);
  if (!*text || *end || value < least || value > 1000000) stop("%s %s: a whole number, at least %d and at most 1000000", option, text, least);
  return (int32_t)value;
}

static int32_t device_choice(const char *text) {
  static const char *const names[] = {[PCC_AUTO] = "auto", [PCC_CPU] = "cpu", [PCC_GPU] = "gpu"};
  for (int32_t i = 0; i < 3; i++)
    if (!strcmp(text, names[i])) return i;
  stop("--device %s: auto, cpu or gpu", text);
}

static struct arguments parse(int count, char **words) {
  static const char usage[] = "pcc-run run --input FILE... --output FILE... | bench | selftest DIR  [--threads N] [--warmup N] [--runs N] [--batch N] [--profile] [--json] [--library FILE] [--device auto|cpu|gpu] [--cache DIR]";
  if (count < 2) stop("%s", usage);
  struct arguments known = {.threads = 1, .warmup = 3, .runs = 20};
  known.inputs = allocate((size_t)count * sizeof *known.inputs);
  known.outputs = allocate((size_t)count * sizeof *known.outputs);
  known.command = words[1];
  for (int i = 2; i < count; i++) {
    const char *word = words[i], *value = i + 1 < count ? words[i + 1] : NULL;
    if (!strcmp(word, "--profile")) {
      known.profile = true;
    } else if (!strcmp(word, "--json")) {
      known.json = true;
    } else if (strncmp(word, "--", 2)) {
      if (known.folder || strcmp(known.command, "selftest")) stop("unexpected '%s': %s", word, usage);
      known.folder = word;
    } else {
      if (!value) stop("%s needs a value: %s", word, usage);
      i++;
      if (!strcmp(word, "--threads")) {
        known.threads = number(word, value, 1);
      } else if (!strcmp(word, "--warmup")) {
        known.warmup = number(word, value, 0);
      } else if (!strcmp(word, "--runs")) {
        known.runs = number(word, value, 1);
      } else if (!strcmp(word, "--batch")) {
        known.batch = number(word, value, 1);
      } else if (!strcmp(word, "--library")) {
        known.library = value;
      } else if (!strcmp(word, "--device")) {
        known.device = device_choice(value);
      } else if (!strcmp(word, "--cache")) {
        known.cache = value;
      } else if (!strcmp(word, "--input")) {
        known.inputs[known.input_count++] = value;
      } else if (!strcmp(word, "--output")) {
        known.outputs[known.output_count++] = value;
      } else {
        stop("unknown option %s: %s", word, usage);
      }
    }
  }
  return known;
}

static int32_t largest_batch(void) { return model->max_batch ? model->max_batch : 1; }

/* The model's tensors in memory, and of how many images they are. */
struct tensors {
  void **inputs, **outputs;
  int32_t batch;
};

static struct tensors allocate_tensors(void) {
  const size_t inputs = (size_t)model->input_count, outputs = (size_t)model->output_count, batch = (size_t)largest_batch();
  struct tensors tensors = {allocate(inputs * sizeof(void *)), allocate(outputs * sizeof(void *)), largest_batch()};
  for (size_t i = 0; i < inputs; i++) tensors.inputs[i] = allocate(model->inputs[i].bytes * batch);
  for (size_t i = 0; i < outputs; i++) tensors.outputs[i] = allocate(model->outputs[i].bytes * batch);
  return tensors;
}

/* Reads a tensor that has room for the largest batch. Returns how many images there are. */
static int32_t read_file(const char *path, void *data, const struct pcc_port *port) {
  FILE *file = fopen(path, "rb");
  if (!file) stop("cannot read %s", path);
  const size_t got = fread(data, 1, port->bytes * (size_t)largest_batch(), file);
  const bool more = fgetc(file) != EOF;
  fclose(file);
  if (more || !got || got % port->bytes) {
    char images[64] = "";
    if (model->max_batch) snprintf(images, sizeof images, " for each of 1 to %d images", model->max_batch);
    stop("%s: %s %zu bytes of %s are expected%s", path, more ? "too long," : "too short,", port->bytes, port->element->name, images);
  }
  return (int32_t)(got / port->bytes);
}

/* Reads the inputs, which must be of one batch. path(i) is the file of input i. */
static void read_inputs(struct tensors *tensors, const char *const *paths) {
  for (int32_t i = 0; i < model->input_count; i++) {
    const int32_t batch = read_file(paths[i], tensors->inputs[i], &model->inputs[i]);
    if (i && batch != tensors->batch) stop("%s has %d images, %s has %d", paths[i], batch, paths[0], tensors->batch);
    tensors->batch = batch;
  }
}

static void write_file(const char *path, const void *data, size_t bytes) {
  FILE *file = fopen(path, "wb");
  if (!file) stop("cannot write %s", path);
  const bool written = fwrite(data, 1, bytes, file) == bytes;
  if (fclose(file) || !written) stop("cannot write %s", path);
}

static pcc_context *create(const struct arguments *arguments) {
  char error[4608];
  if (arguments->device == PCC_GPU && !pcc_device_backend)
    stop("this program has no code for a GPU: pcc compile --gpu makes pcc-run-gpu, which has");
  if (pcc_map_weights(arguments->library, error, sizeof error)) stop("%s", error);
  const pcc_options options = {
      .size = sizeof options,
      .threads = arguments->threads,
      .profile = arguments->profile,
      .device = arguments->device,
      .cache = arguments->cache,
  };
  pcc_context *context = pcc_create(&options, error, sizeof error);
  if (!context) stop("%s", error);
  return context;
}

static bool is_on_gpu(const pcc_context *context) { return !strncmp(pcc_device(context), "gpu", 3); }

static void run(const struct arguments *arguments, pcc_context *context, const struct tensors *tensors) {
  const void *const *inputs = (const void *const *)tensors->inputs;
  const pcc_status status =
      model->max_batch ? pcc_run_batch(context, tensors->batch, inputs, tensors->outputs) : pcc_run(context, inputs, tensors->outputs);
  if (status != PCC_OK) stop("%s", pcc_error(context));
  if (arguments->device == PCC_GPU && !is_on_gpu(context)) stop("%s", pcc_device(context) + strlen("cpu: ")); /* it failed */
}

static void print_json_text(const char *text) {
  putchar('"');
  for (; *text; text++) {
    if (*text == '"' || *text == '\\') putchar('\\');
    if ((unsigned char)*text < ' ')
      printf("\\u%04x", (unsigned)*text);
    else
      putchar(*text);
  }
  putchar('"');
}

static int command_run(const struct arguments *arguments) {
  if (arguments->input_count != model->input_count || arguments->output_count != model->output_count)
    stop("'%s' has %d inputs and %d outputs: give --input and --output once for each, in order", model->name, model->input_count,
         model->output_count);
  struct tensors tensors = allocate_tensors();
  read_inputs(&tensors, arguments->inputs);
  pcc_context *context = create(arguments);
  run(arguments, context, &tensors);
  for (int32_t i = 0; i < model->output_count; i++)
    write_file(arguments->outputs[i], tensors.outputs[i], model->outputs[i].bytes * (size_t)tensors.batch);
  if (arguments->json) {
    printf("{\"device\": ");
    print_json_text(pcc_device(context));
    printf("}\n");
  }
  pcc_destroy(context);
  return 0;
}

static double seconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Of sorted values, the one that a share of them does not exceed. */
static double quantile(const double *sorted, int32_t count, double share) { return sorted[(int32_t)(share * (count - 1) + 0.5)]; }

/* What call `index` of a context is. */
static pcc_call describe(const pcc_context *context, int32_t index) {
  pcc_call call = {.size = sizeof call};
  pcc_describe_call(context, index, &call);
  return call;
}

/* `times` are the runs', sorted; `calls[i]` is the sum of call i's times over all runs, or NULL. */
static void print_json(const struct arguments *arguments, const pcc_context *context, const double *times, const double *calls) {
  const int32_t runs = arguments->runs;
  printf("{\"device\": ");
  print_json_text(pcc_device(context));
  printf(", \"model\": ");
  print_json_text(model->name);
  printf(", \"target\": ");
  print_json_text(model->target);
  printf(", \"threads\": %d, \"warmup\": %d, \"runs\": %d", arguments->threads, arguments->warmup, runs);
  printf(", \"median\": %.9g, \"p10\": %.9g, \"p90\": %.9g, \"min\": %.9g", quantile(times, runs, 0.5), quantile(times, runs, 0.1),
         quantile(times, runs, 0.9), times[0]);
  printf(", \"arena_bytes\": %zu, \"thread_bytes\": %zu, \"weight_bytes\": %zu", pcc_arena_bytes(), pcc_thread_bytes(), pcc_weight_bytes());
  printf(", \"prepared_bytes\": %zu", pcc_prepared_bytes());
  if (calls) {
    printf(", \"calls\": [");
    for (int32_t i = 0; i < pcc_context_call_count(context); i++) {
      const pcc_call call = describe(context, i);
      printf("%s{\"layer\": ", i ? ", " : "");
      print_json_text(call.layer);
      printf(", \"kernel\": ");
      print_json_text(call.kernel);
      printf(", \"macs\": %lld, \"dense_macs\": %lld", (long long)call.macs, (long long)call.dense_macs);
      printf(", \"device\": \"%s\", \"seconds\": %.9g}", call.device == PCC_GPU ? "gpu" : "cpu", calls[i] / runs);
    }
    printf("]");
  }
  printf("}\n");
}

static void print_table(const struct arguments *arguments, const pcc_context *context, const double *times, const double *calls) {
  const int32_t runs = arguments->runs;
  printf("%s, %s, %s, %d threads, %d runs: median %.3f ms, p10 %.3f, p90 %.3f, min %.3f\n", model->name, model->target,
         pcc_device(context), arguments->threads, runs, quantile(times, runs, 0.5) * 1e3, quantile(times, runs, 0.1) * 1e3,
         quantile(times, runs, 0.9) * 1e3, times[0] * 1e3);
  if (!calls) return;
  double total = 0;
  const int32_t count = pcc_context_call_count(context);
  for (int32_t i = 0; i < count; i++) total += calls[i];
  for (int32_t i = 0; i < count; i++) {
    const pcc_call call = describe(context, i);
    printf("%9.3f ms %5.1f %%  %s  %-40s %s\n", calls[i] / runs * 1e3, total > 0 ? calls[i] / total * 100 : 0,
           call.device == PCC_GPU ? "gpu" : "cpu", call.layer, call.kernel);
  }
}

static int command_bench(const struct arguments *arguments) {
  struct tensors tensors = allocate_tensors();
  if (arguments->batch > tensors.batch || (arguments->batch && !model->max_batch))
    stop("--batch %d: '%s' was compiled for %s%d", arguments->batch, model->name, model->max_batch ? "1 to " : "a batch of its own, not for ",
         model->max_batch ? model->max_batch : arguments->batch);
  for (int32_t i = 0; i < model->input_count; i++) { /* any values but zeros, whose products some processors do faster */
    const struct pcc_element *element = model->inputs[i].element;
    for (size_t k = 0; k < model->inputs[i].bytes / element->bytes * (size_t)tensors.batch; k++) {
      const int32_t value = (int32_t)((k * 2654435761u >> 16) & 255);
      element->set(tensors.inputs[i], k, element->is_integer ? (float)(value & 127) : (float)value / 128 - 1);
    }
  }
  if (arguments->batch) tensors.batch = arguments->batch;
  pcc_context *context = create(arguments);
  const bool has_device = is_on_gpu(context);
  const int32_t count = pcc_context_call_count(context);
  double *times = allocate((size_t)arguments->runs * sizeof *times);
  double *calls = arguments->profile ? allocate((size_t)count * sizeof *calls) : NULL;
  for (int32_t i = 0; i < arguments->warmup; i++) run(arguments, context, &tensors);
  for (int32_t i = 0; i < arguments->runs; i++) {
    const double start = seconds();
    run(arguments, context, &tensors);
    times[i] = seconds() - start;
    if (has_device && !is_on_gpu(context)) stop("no times: %s", pcc_device(context));
    for (int32_t k = 0; calls && k < count; k++) calls[k] += describe(context, k).seconds;
  }
  qsort(times, (size_t)arguments->runs, sizeof *times, compare);
  (arguments->json ? print_json : print_table)(arguments, context, times, calls);
  pcc_destroy(context);
  return 0;
}

static const char *file_in(const char *folder, const char *format, int32_t index) {
  static char path[4096], name[64];
  snprintf(name, sizeof name, format, index);
  if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path) stop("%s: the path is too long", folder);
  return path;
}

static double read_tolerance(const char *folder) {
  char text[64] = {0};
  FILE *file = fopen(file_in(folder, "tolerance", 0), "r");
  if (!file) stop("%s has no file 'tolerance': give the package's selftest folder", folder);
  const bool read = fgets(text, sizeof text, file) != NULL;
  fclose(file);
  const double tolerance = strtod(text, NULL);
  if (!read || !(tolerance > 0) || isinf(tolerance)) stop("%s/tolerance does not hold a positive number", folder);
  return tolerance;
}

/* Largest difference between two tensors, relative to the largest expected value; infinite where only one of them is infinite or NaN. */
static double relative_error(const void *found_values, const void *expected_values, const struct pcc_port *port, int32_t batch) {
  double worst = 0, scale = 0;
  for (size_t i = 0; i < port->bytes / port->element->bytes * (size_t)batch; i++) {
    const double found = port->element->get(found_values, i), expected = port->element->get(expected_values, i);
    if ((found == expected && isinf(expected)) || (isnan(found) && isnan(expected))) continue;
    if (!isfinite(found) || !isfinite(expected)) return INFINITY;
    worst = fmax(worst, fabs(found - expected));
    scale = fmax(scale, fabs(expected));
  }
  return worst / (scale > 0 ? scale : 1);
}

static int command_selftest(const struct arguments *arguments) {
  if (!arguments->folder) stop("selftest needs a folder: the package's selftest/");
  const double tolerance = read_tolerance(arguments->folder);
  struct tensors tensors = allocate_tensors();
  for (int32_t i = 0; i < model->input_count; i++)
    tensors.batch = read_file(file_in(arguments->folder, "input_%d.bin", i), tensors.inputs[i], &model->inputs[i]);
  pcc_context *context = create(arguments);
  run(arguments, context, &tensors);
  double worst = 0;
  for (int32_t i = 0; i < model->output_count; i++) {
    const struct pcc_port *port = &model->outputs[i];
    void *expected = allocate(port->bytes * (size_t)largest_batch());
    const int32_t batch = read_file(file_in(arguments->folder, "output_%d.bin", i), expected, port);
    if (batch != tensors.batch) stop("%s: output %d is of %d images, the inputs are of %d", arguments->folder, i, batch, tensors.batch);
    const double error = relative_error(tensors.outputs[i], expected, port, batch);
    if (error > worst) worst = error;
    free(expected);
  }
  const bool passed = worst <= tolerance;
  if (arguments->json) {
    printf("{\"device\": ");
    print_json_text(pcc_device(context));
    printf(", \"passed\": %s, \"max_error\": %.9g, \"tolerance\": %.9g}\n", passed ? "true" : "false",
           isinf(worst) ? 1e300 : worst, tolerance);
  } else {
    printf("selftest %s on %s: max error %.3g of the largest value, tolerance %.3g\n", passed ? "passed" : "FAILED",
           pcc_device(context), worst, tolerance);
  }
  pcc_destroy(context);
  return passed ? 0 : 1;
}

int main(int count, char **words) {
  model = pcc_chosen_model();
  const struct arguments arguments = parse(count, words);
  int status;
  if (!strcmp(arguments.command, "run")) status = command_run(&arguments);
  else if (!strcmp(arguments.command, "bench")) status = command_bench(&arguments);
  else if (!strcmp(arguments.command, "selftest")) status = command_selftest(&arguments);
  else stop("unknown command '%s': run, bench or selftest", arguments.command);
  if (fflush(stdout) || ferror(stdout)) stop("standard output cannot be written");
  return status;
}

/* Whether a device may be trusted: it computes one image whose outputs are known. */
#include <stdlib.h>

#include "device.h"
#include "text.h"

/* One tensor of an image for each port; NULL where there is no memory. */
static void **tensors(const struct pcc_port *ports, int32_t count) {
  void **all = calloc((size_t)count + 1, sizeof *all);
  for (int32_t i = 0; all && i < count; i++) all[i] = calloc(1, ports[i].bytes + 1);
  return all;
}

static bool complete(void *const *all, int32_t count) {
  for (int32_t i = 0; all && i < count; i++)
    if (!all[i]) return false;
  return all;
}

static void free_tensors(void **all, int32_t count) {
  for (int32_t i = 0; all && i < count; i++) free(all[i]);
  free(all);
}

/* Between -1 and 1; whole numbers from 0 to 127. */
static void fill(void *values, const struct pcc_port *port) {
  for (size_t k = 0; k < port->bytes / port->element->bytes; k++) {
    const int32_t value = (int32_t)((k * 2654435761u >> 16) & 255);
    port->element->set(values, k, port->element->is_integer ? (float)(value & 127) : (float)value / 128 - 1);
  }
}

static double size_of(double value) { return value < 0 ? -value : value; }

/* Largest difference, relative to the largest expected value; infinite where a number is on one side only. */
static double difference(const void *found, const void *expected, const struct pcc_port *port) {
  double worst = 0, scale = 0;
  for (size_t k = 0; k < port->bytes / port->element->bytes; k++) {
    const double a = port->element->get(found, k), b = port->element->get(expected, k), apart = size_of(a - b);
    if (a == b || (a != a && b != b)) continue;
    if (!(apart < __builtin_inf())) return __builtin_inf();
    if (apart > worst) worst = apart;
  }
  for (size_t k = 0; k < port->bytes / port->element->bytes; k++) {
    const double value = size_of(port->element->get(expected, k));
    if (value > scale && value < __builtin_inf()) scale = value;
  }
  return scale > 0 ? worst / scale : worst;
}

static bool is_right(const void *found, const void *expected, const struct pcc_port *port, double tolerance, char *why, size_t why_size) {
  const double error = difference(found, expected, port);
  if (error <= tolerance) return true;
  pcc_text(why, why_size, "self-test: output '%s' is wrong by %.2g of its largest value", port->name, error);
  return false;
}

/* Has the device compute the recorded image. */
static bool agrees_with_recorded(const struct pcc_device_request *request, const struct pcc_device_backend *backend, void *device, void **found,
                                 char *why, size_t why_size) {
  const struct pcc_model *model = request->model;
  const struct pcc_device_program *program = backend->program(device);
  const void **inputs = calloc((size_t)model->input_count + 1, sizeof *inputs);
  bool agrees = inputs;
  if (!agrees) pcc_text(why, why_size, "no memory for the self-test");
  for (int32_t i = 0; agrees && i < model->input_count; i++) inputs[i] = request->weights + program->test_inputs[i].offset;
  agrees = agrees && backend->run(device, inputs, found, NULL, why, why_size);
  for (int32_t i = 0; agrees && i < model->output_count; i++)
    agrees = is_right(found[i], request->weights + program->test_outputs[i].offset, &model->outputs[i], program->tolerance, why, why_size);
  free(inputs);
  return agrees;
}

/* Has the device and the processor compute an image that nobody recorded. */
static bool agrees_with_processor(const struct pcc_device_request *request, const struct pcc_device_backend *backend, void *device, void **found,
                                  char *why, size_t why_size) {
  const struct pcc_model *model = request->model;
  void **inputs = tensors(model->inputs, model->input_count), **expected = tensors(model->outputs, model->output_count);
  bool agrees = complete(inputs, model->input_count) && complete(expected, model->output_count);
  if (!agrees) pcc_text(why, why_size, "no memory for the self-test");
  for (int32_t i = 0; agrees && i < model->input_count; i++) fill(inputs[i], &model->inputs[i]);
  const void *const *given = (const void *const *)inputs;
  agrees = agrees && backend->run(device, given, found, NULL, why, why_size);
  if (agrees && !request->on_cpu(request->context, given, expected)) {
    pcc_text(why, why_size, "no memory for the self-test");
    agrees = false;
  }
  for (int32_t i = 0; agrees && i < model->output_count; i++)
    agrees = is_right(found[i], expected[i], &model->outputs[i], backend->program(device)->tolerance, why, why_size);
  free_tensors(inputs, model->input_count);
  free_tensors(expected, model->output_count);
  return agrees;
}

bool pcc_device_agrees(const struct pcc_device_request *request, const struct pcc_device_backend *backend, void *device, char *why, size_t why_size) {
  const struct pcc_model *model = request->model;
  void **found = tensors(model->outputs, model->output_count);
  bool agrees = complete(found, model->output_count);
  if (!agrees) pcc_text(why, why_size, "no memory for the self-test");
  if (agrees)
    agrees = (backend->program(device)->test_inputs ? agrees_with_recorded : agrees_with_processor)(request, backend, device, found, why, why_size);
  free_tensors(found, model->output_count);
  return agrees;
}

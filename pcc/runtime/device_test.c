/* Whether a device may be trusted: it computes one image, and so does the processor. */
#include <stdio.h>
#include <stdlib.h>

#include "device.h"

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

bool pcc_device_agrees(const struct pcc_device_request *request, const struct pcc_device_backend *backend, void *device, char *why, size_t why_size) {
  const struct pcc_model *model = request->model;
  void **inputs = tensors(model->inputs, model->input_count);
  void **found = tensors(model->outputs, model->output_count), **expected = tensors(model->outputs, model->output_count);
  bool agrees = complete(inputs, model->input_count) && complete(found, model->output_count) && complete(expected, model->output_count);
  if (!agrees) snprintf(why, why_size, "no memory for the self-test");
  for (int32_t i = 0; agrees && i < model->input_count; i++) fill(inputs[i], &model->inputs[i]);
  const void *const *given = (const void *const *)inputs;
  agrees = agrees && backend->run(device, given, found, NULL, why, why_size);
  if (agrees && !request->on_cpu(request->context, given, expected)) {
    snprintf(why, why_size, "no memory for the self-test");
    agrees = false;
  }
  for (int32_t i = 0; agrees && i < model->output_count; i++) {
    const double error = difference(found[i], expected[i], &model->outputs[i]);
    agrees = error <= backend->program(device)->tolerance;
    if (!agrees) snprintf(why, why_size, "self-test: output '%s' is wrong by %.2g of its largest value", model->outputs[i].name, error);
  }
  free_tensors(inputs, model->input_count);
  free_tensors(found, model->output_count);
  free_tensors(expected, model->output_count);
  return agrees;
}

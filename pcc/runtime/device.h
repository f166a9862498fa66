/* A GPU beside the processor: its program as tables, and what a context asks of whatever runs it. A program may leave some of its calls to the
 * processor: a context's arena then holds what these read and write, where the processor's own program has it. */
#ifndef PCC_DEVICE_H
#define PCC_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model.h"

#define PCC_DEVICE_ALIGNMENT 512 /* of buffers in the arena: no driver that we know of asks for more */

/* A program of one kernel. */
struct pcc_device_kernel {
  const char *name;
  const char *text;
  const char *digest; /* of the text, by which binaries are known again */
};

enum pcc_device_kind { PCC_DEVICE_BUFFER, PCC_DEVICE_WEIGHT, PCC_DEVICE_INT };

struct pcc_device_argument {
  int32_t kind;
  int32_t value; /* the buffer, the weight, or the whole number */
};

enum { PCC_DEVICE_DIMS = 6 };

/* A tensor that is copied between a buffer of the device and a context's arena. Strides are in bytes, sizes of the outermost dimension first. */
struct pcc_device_copy {
  int32_t buffer, rank;
  bool to_device;
  size_t element; /* bytes */
  size_t sizes[PCC_DEVICE_DIMS];
  size_t device_offset, device_strides[PCC_DEVICE_DIMS];
  size_t arena_offset, arena_strides[PCC_DEVICE_DIMS];
};

/* What the processor does in a device's program: a copy, or else a step of the model's form for `isa`. */
struct pcc_host_call {
  const char *kernel;
  const struct pcc_device_copy *copy;
  int32_t step;
};

struct pcc_device_call {
  const char *layer;
  int32_t kernel;
  size_t global_size[3], local_size[3];
  const struct pcc_device_argument *arguments;
  int32_t argument_count;
  int64_t macs, dense_macs;
  const struct pcc_host_call *host; /* NULL: the device computes it */
};

/* Bytes of the arena or of the library's weights. */
struct pcc_device_part {
  size_t offset, bytes;
};

/* A program for a family of GPUs. Its inputs and outputs are the model's, in the same order; a batch runs image by image. */
struct pcc_device_program {
  const char *profile;        /* the family's name */
  const char *const *devices; /* parts of the names that its devices report, in lower case, and a NULL behind them */
  size_t arena_bytes;
  double tolerance; /* of outputs against the processor's, relative to the largest one */
  const struct pcc_device_kernel *kernels;
  const struct pcc_device_call *calls;
  const struct pcc_device_part *buffers, *weights;
  const int32_t *inputs, *outputs; /* which buffers */
  int32_t kernel_count, call_count, buffer_count, weight_count;
  const struct pcc_device_call *preparation; /* what makes weights of weights, once */
  const size_t *prepared;                    /* bytes of each weight that it makes: zero at first, and counted behind `weights` */
  int32_t preparation_count, prepared_count;
  int32_t kept_count; /* weights that a run reads; those behind them are what others are made of */
  const struct pcc_device_part *test_inputs, *test_outputs; /* one recorded image for each port, in the library's weights; NULL where there is none */
  const char *digest; /* of all that it does, by which a verdict about it is known again */
  const char *isa;    /* the form of the model whose steps it calls; NULL: it calls none */
};

/* What a context wants. `on_cpu` computes one image with the context's own kernels, false where it cannot: the device is
 * compared with it. */
struct pcc_device_request {
  const struct pcc_model *model;
  const char *weights;
  const char *cache; /* a folder, or NULL */
  bool any;          /* a device that is no GPU will do */
  bool profile;
  bool (*on_cpu)(void *context, const void *const *inputs, void *const *outputs);
  /* A step of the model for one image, on the context's threads and in its arena; false where there is no memory for weights. */
  bool (*step)(void *context, int32_t index);
  char *arena;
  void *context;
};

/* A backend. Where something fails, why[why_size] says what. */
struct pcc_device_backend {
  /* A device for one context, which can be trusted; NULL where there is none. */
  void *(*open)(const struct pcc_device_request *request, char *why, size_t why_size);
  /* One image. Outputs are written only where it succeeds. Adds each call's time in nanoseconds to clock, unless that is
   * NULL. */
  bool (*run)(void *device, const void *const *inputs, void *const *outputs, int64_t *clock, char *why, size_t why_size);
  const char *(*name)(const void *device); /* and its driver's version: "NAME, driver VERSION" */
  const struct pcc_device_program *(*program)(const void *device); /* the one that it runs */
  void (*close)(void *device);
};

extern const struct pcc_device_backend pcc_opencl_backend;

/* The library's, or NULL and none (no_device.c). */
extern const struct pcc_device_backend *const pcc_device_backend;
extern const struct pcc_device_program *const pcc_device_programs[];
extern const int32_t pcc_device_program_count;

/* The program for a device that reports this name and version, of those that fit the form of the model that this processor runs: that of its family, else the
 * one for any (without names), else the first, which is right on every device. */
const struct pcc_device_program *pcc_device_program_for(const char *name, const char *version);

/* Copies a tensor between a context's arena and a device's buffer, which is mapped. */
void pcc_device_copy_tensor(const struct pcc_device_copy *copy, char *arena, char *buffer);

/* Whether a device computes the outputs that were recorded with the package from the inputs; where none were, what the
 * processor computes from values that differ all over. Else why not. */
bool pcc_device_agrees(const struct pcc_device_request *request, const struct pcc_device_backend *backend, void *device,
                       char *why, size_t why_size);

#endif

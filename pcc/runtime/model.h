/* What the generated model.c tells the runtime about a model. */
#ifndef PCC_MODEL_H
#define PCC_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "pcc.h"

#define PCC_READ_SLACK 256 /* bytes that kernels may read past the end of any buffer */
#define PCC_READ_LEAD 64   /* bytes that kernels may read before the start of any buffer; the header precedes the weights */
#define PCC_ALIGNMENT 64
#define PCC_AROUND (PCC_READ_LEAD + PCC_READ_SLACK + PCC_ALIGNMENT) /* what is allocated besides, so that there is room around aligned memory */

/* The first aligned byte in allocated memory with room before it. */
static inline char *pcc_aligned(void *memory) {
  return (char *)(((uintptr_t)memory + PCC_READ_LEAD + PCC_ALIGNMENT - 1) / PCC_ALIGNMENT * PCC_ALIGNMENT);
}

/* The constants: what identifies them, then the values. */
struct pcc_weights {
  char magic[8]; /* "pccweigh" */
  uint64_t bytes;
  uint8_t digest[32]; /* SHA-256 of the values */
  uint8_t reserved[16];
  char values[];
};

/* An element type of inputs or outputs, and its elements as numbers, for the runner. What `set` takes becomes any type without library calls. */
struct pcc_element {
  pcc_dtype dtype;
  const char *name;
  size_t bytes;
  int32_t is_integer;
  double (*get)(const void *values, size_t index);
  void (*set)(void *values, size_t index, float value);
};

/* Defines pcc_NAME. model.c has one for each type that its ports use. */
#define PCC_ELEMENT(NAME, TYPE, DTYPE)                                                                                             \
  static double pcc_get_##NAME(const void *values, size_t index) { return (double)((const TYPE *)values)[index]; }                 \
  static void pcc_set_##NAME(void *values, size_t index, float value) { ((TYPE *)values)[index] = (TYPE)value; }                   \
  static const struct pcc_element pcc_##NAME = {DTYPE, #NAME, sizeof(TYPE), (TYPE)0.5 == 0, pcc_get_##NAME, pcc_set_##NAME};

struct pcc_port {
  const char *name;
  const struct pcc_element *element;
  const int64_t *dims; /* of the largest batch */
  int32_t rank;
  size_t bytes;        /* of one image */
  size_t offset;       /* in the arena */
  size_t image_bytes;  /* from one image to the next there */
  int32_t stage;       /* an input is copied before it, an output after it */
};

struct pcc_step {
  const char *layer;
  const char *kernel;
  /* own: the thread's memory; image: the (first) image to compute; images: how many at once, 1 unless `together` */
  void (*function)(char *arena, const char *weights, char *prepared, char *own, size_t image, int32_t images, int32_t begin, int32_t end);
  int32_t work;     /* items of an image, independent of each other */
  int32_t together; /* an item computes up to so many images; 0: items are one image's each */
  int64_t macs;
  int64_t dense_macs;
};

/* Steps [begin, end): all of them for one image after the other, or each of them for all images at once. */
struct pcc_stage {
  int32_t begin, end;
  int32_t at_once;
};

struct pcc_model {
  const char *name;
  const char *target; /* for people: the processor that this form of the model is for, too */
  const char *isa;    /* what pcc_cpu_lacks understands */
  const char *library; /* file names, for the runner */
  const char *abi;
  size_t arena_bytes;
  size_t thread_bytes; /* a multiple of PCC_ALIGNMENT, with what may be read past its buffers */
  size_t prepared_bytes;
  size_t weight_bytes;
  uint8_t weight_digest[32];
  const struct pcc_port *inputs;
  int32_t input_count;
  const struct pcc_port *outputs;
  int32_t output_count;
  const struct pcc_step *steps; /* of a run; behind them those that prepare weights */
  int32_t step_count;
  int32_t preparation_count;
  const struct pcc_stage *stages;
  int32_t stage_count;
  int32_t max_batch; /* 0: what is called an image above is the one batch that the model was compiled for */
};

/* The model in a form for each instruction set that the library has kernels for, best first. They differ in steps and memory, and read one block of
 * weights. */
extern const struct pcc_model *const pcc_models[];
extern const int32_t pcc_model_count;

/* The first one that this processor executes; the last one where it executes none. */
const struct pcc_model *pcc_chosen_model(void);

/* The weights' values: embedded in the shared library (embedded.c), mapped from it by the runner (mapped.c). */
const char *pcc_weight_values(void);

#endif

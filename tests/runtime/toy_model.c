/* A model written by hand, as model.c would be: y = 2 x + 1 over 1000 items, then z = y * y, in steps of very different cost; the ones are prepared. With TOY_MAX_BATCH for
 * batches, whose images take turns in one place, or, with TOY_AT_ONCE, go through each step together. */
#include "model.h"

#include <stddef.h>

enum { ITEMS = 1000, ROUNDS = 20 };

#ifndef TOY_MAX_BATCH
#define TOY_MAX_BATCH 0
#endif
#ifdef TOY_AT_ONCE
enum { IMAGE_BYTES = 12288, PLACES = TOY_MAX_BATCH };
#else
enum { IMAGE_BYTES = 0, PLACES = 1 };
#endif

static const float ones[3 * 1024 + PCC_READ_SLACK / 4] = {1, 1, [2048 ... 3047] = 1}; /* read by the GPU only: ones, and a test of zeros */

const char *pcc_weight_values(void) { return (const char *)ones; }

/* Twos, where it runs twice for the same memory. */
static void prepare_ones(char *arena, const char *weights, char *prepared, char *own, size_t image, int32_t images, int32_t begin, int32_t end) {
  (void)arena, (void)weights, (void)own, (void)image, (void)images;
  for (int32_t i = begin; i < end; i++) ((float *)prepared)[i] += 1;
}

static void scale(char *arena, const char *weights, char *prepared, char *own, size_t image, int32_t images, int32_t begin, int32_t end) {
  (void)weights, (void)own, (void)images;
  arena += image * IMAGE_BYTES;
  const float *x = (const float *)arena, *prepared_ones = (const float *)prepared;
  float *y = (float *)(arena + 4096);
  for (int32_t i = begin; i < end; i++) y[i] = 2 * x[i] + prepared_ones[i];
}

static void square(char *arena, const char *weights, char *prepared, char *own, size_t image, int32_t images, int32_t begin, int32_t end) {
  (void)weights, (void)prepared, (void)images;
  arena += image * IMAGE_BYTES;
  const float *y = (const float *)(arena + 4096);
  float *z = (float *)(arena + 8192);
  volatile float *mirrored = (volatile float *)own; /* no other thread may change it meanwhile */
  for (int32_t i = begin; i < end; i++) {
    *mirrored = y[ITEMS - 1 - i];
    z[i] = *mirrored * *mirrored;
  }
}

static void copy_back(char *arena, const char *weights, char *prepared, char *own, size_t image, int32_t images, int32_t begin, int32_t end) {
  (void)weights, (void)prepared, (void)own, (void)images;
  arena += image * IMAGE_BYTES;
  const float *z = (const float *)(arena + 8192);
  float *x = (float *)arena;
  for (int32_t i = begin * ITEMS; i < end * ITEMS; i++) x[i] = z[i] / 1e6f;
}

#define ROUND {"scale", "scale", scale, ITEMS, 0, ITEMS, ITEMS}, {"square", "square", square, ITEMS, 0, ITEMS, ITEMS}, {"back", "copy", copy_back, 1, 0, 0, 0}
#define FIVE ROUND, ROUND, ROUND, ROUND, ROUND

static const struct pcc_step steps[] = {FIVE, FIVE, FIVE, FIVE, {"scale", "ones", prepare_ones, ITEMS, 0, 0, 0}};
enum { STEPS = sizeof steps / sizeof steps[0] - 1 };
static const struct pcc_stage stages[] = {{0, STEPS, PLACES > 1}};
static const int64_t dims[] = {10 * (TOY_MAX_BATCH ? TOY_MAX_BATCH : 1), 100};
PCC_ELEMENT(float32, float, PCC_FLOAT32)
static const struct pcc_port inputs[] = {{"x", &pcc_float32, dims, 2, ITEMS * 4, 0, IMAGE_BYTES, 0}};
static const struct pcc_port outputs[] = {{"z", &pcc_float32, dims, 2, ITEMS * 4, 8192, IMAGE_BYTES, 0}};

static const struct pcc_model toy = {
    .name = "toy",
    .target = "this computer",
#ifdef __x86_64__
    .isa = "avx2",
#else
    .isa = "neon",
#endif
    .library = "libtoy.so",
    .abi = "none",
    .arena_bytes = 12288 * PLACES,
    .thread_bytes = 64,
    .prepared_bytes = ITEMS * sizeof(float),
    .weight_bytes = sizeof ones,
    .inputs = inputs,
    .input_count = 1,
    .outputs = outputs,
    .output_count = 1,
    .steps = steps,
    .step_count = STEPS,
    .preparation_count = 1,
    .stages = stages,
    .stage_count = 1,
    .max_batch = TOY_MAX_BATCH,
};

const struct pcc_model *const pcc_models[] = {&toy};
const int32_t pcc_model_count = 1;

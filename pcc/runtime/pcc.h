/* pcc.h: the whole interface of a compiled model.
 *
 * One shared library is one model. Its weights are in the library, read-only and shared by everything that uses it;
 * a context is what one caller at a time runs: an arena for the activations, and threads. Contexts are independent:
 * any number of them may be made, and run, at the same time. Nothing is printed, nothing calls exit, and nothing is
 * global but weights that kernels take in another form than they ship in: they are prepared for the first context and
 * freed with the last.
 *
 *     char error[256];
 *     pcc_context *net = pcc_create(NULL, error, sizeof error);
 *     if (!net) { puts(error); return 1; }
 *     const void *inputs[] = {image};
 *     void *outputs[] = {scores};
 *     if (pcc_run(net, inputs, outputs) != PCC_OK) puts(pcc_error(net));
 *     pcc_destroy(net);
 *
 * All libraries export these names, so an application with several models includes the models' own headers in place of this one: in a file
 * that includes <name>.h alone, these names are that model's, and where several are included, <name>_pcc_create(...) says whose. Or it opens each
 * library with dlopen(path, RTLD_NOW | RTLD_LOCAL).
 */
#ifndef PCC_H
#define PCC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* Grows only when an existing program would break; compare with pcc_abi_version(). */
#define PCC_ABI_VERSION 2

/* Every struct begins with its size, so that later versions can add fields at the end: set it to sizeof the struct before each call. */

typedef enum pcc_status {
  PCC_OK = 0,
  PCC_BAD_ARGUMENT = 1, /* pcc_error says which */
  PCC_NO_MEMORY = 2,
  PCC_NO_THREADS = 3,
  PCC_WRONG_CPU = 4, /* the library uses instructions that this processor lacks */
  PCC_NO_DEVICE = 5, /* a GPU is asked for, and cannot be used */
  PCC_BUSY = 6,      /* another thread's call is running on this context: nothing was done, and pcc_error stays that call's */
} pcc_status;

typedef enum pcc_dtype {
  PCC_FLOAT32 = 1,
  PCC_FLOAT16 = 2, /* IEEE 754 binary16 */
  PCC_INT8 = 3,
  PCC_UINT8 = 4,
  PCC_INT32 = 5,
  PCC_INT64 = 6,
} pcc_dtype;

typedef enum pcc_device_choice {
  PCC_AUTO = 0, /* a GPU, where the library has code for it and it passes the self-test; else the processor */
  PCC_CPU = 1,
  PCC_GPU = 2, /* or another device of the GPU's interface (OpenCL on a processor); pcc_create fails where there is none */
} pcc_device_choice;

typedef struct pcc_options {
  size_t size;       /* sizeof(pcc_options) */
  int32_t threads;   /* that compute, the caller's included; 0 means 1, and then none is made */
  int32_t profile;   /* non-zero: pcc_run notes the time of every kernel call */
  int32_t device;    /* a pcc_device_choice */
  const char *cache; /* a folder of the application's own for the GPU's programs, which are built anew each time without one; or NULL */
  pcc_status *status; /* where pcc_create notes PCC_OK, or what kind of failure it is; or NULL */
} pcc_options;

typedef struct pcc_tensor {
  size_t size; /* sizeof(pcc_tensor) */
  const char *name;
  pcc_dtype dtype;
  int32_t rank;
  const int64_t *dims; /* outermost first; elements are contiguous; of the largest batch */
  size_t bytes;        /* of the whole tensor */
} pcc_tensor;

typedef struct pcc_call {
  size_t size;        /* sizeof(pcc_call) */
  const char *layer;  /* several calls may belong to one layer */
  const char *kernel;
  int64_t macs;       /* multiply-accumulates done; of one image, where the batch is free */
  int64_t dense_macs; /* multiply-accumulates of the layer before pruning, likewise */
  double seconds;     /* of the last run of a profiling context; 0 without one */
  int32_t device;     /* PCC_GPU, or PCC_CPU: a GPU's program may leave calls to the processor, and then copies what they need */
} pcc_call;

typedef struct pcc_context pcc_context;

uint32_t pcc_abi_version(void);

/* The model's name, and the target it was compiled for ("aarch64-android, cortex-a76"). A library for several processors
 * (pcc compile --cpu generic) says the one whose code this processor runs; so do all that describe calls and memory. */
const char *pcc_model_name(void);
const char *pcc_target_name(void);

/* Inputs and outputs. Set tensor->size first. PCC_BAD_ARGUMENT for an index that does not exist. */
int32_t pcc_input_count(void);
int32_t pcc_output_count(void);
pcc_status pcc_describe_input(int32_t index, pcc_tensor *tensor);
pcc_status pcc_describe_output(int32_t index, pcc_tensor *tensor);

/* A context, or NULL, and then why in error[error_size] (both may be absent). options may be NULL: one thread, no profile. */
pcc_context *pcc_create(const pcc_options *options, char *error, size_t error_size);

/* Runs the model on the calling thread and the context's own: inputs[i] and outputs[i] are the tensors described above.
 * Inputs are copied before, outputs after the computation. One call at a time for each context: PCC_BUSY for a second one. */
pcc_status pcc_run(pcc_context *context, const void *const *inputs, void *const *outputs);

/* The largest batch of a model that was compiled with a maximum (pcc compile --max-batch); 0 for a model that runs the batch it was compiled for. */
int32_t pcc_max_batch(void);

/* As pcc_run, which runs the largest batch, for the first `batch` images of each tensor, 1 to pcc_max_batch(): the others are not touched, and
 * need not exist. An image's outputs may be written before the next one's inputs are read, so they must not overlap. */
pcc_status pcc_run_batch(pcc_context *context, int32_t batch, const void *const *inputs, void *const *outputs);

/* Why the last call on this context failed; "" if it did not. */
const char *pcc_error(const pcc_context *context);

/* What the context runs on: "gpu: NAME, driver VERSION, code for PROFILE", "cpu", or "cpu: REASON" where a GPU was wanted and cannot be used. A GPU that fails in a run is not used
 * again; the run is repeated on the processor, and succeeds. */
const char *pcc_device(const pcc_context *context);

/* The kernel calls of a run, in order. Set call->size first. context may be NULL: then they are the processor's, and seconds are 0. */
int32_t pcc_call_count(void);
int32_t pcc_context_call_count(const pcc_context *context); /* on what it runs on */
pcc_status pcc_describe_call(const pcc_context *context, int32_t index, pcc_call *call);

/* Bytes of a context's arena, of what each of its threads has besides, of the weights in the library, and of what is prepared from them while there are
 * contexts. */
size_t pcc_arena_bytes(void);
size_t pcc_thread_bytes(void);
size_t pcc_weight_bytes(void);
size_t pcc_prepared_bytes(void);

/* Ends the context's threads and frees its memory. NULL is fine. */
void pcc_destroy(pcc_context *context);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif

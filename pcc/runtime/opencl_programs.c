/* Programs for a device: built from text within a time limit, and kept as binaries. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device.h"
#include "opencl.h"
#include "text.h"
#include "within.h"

#ifndef PCC_OPENCL_BUILD_SECONDS
#define PCC_OPENCL_BUILD_SECONDS 120 /* of all programs together; phones take tens of milliseconds each */
#endif

/* A file of the cache: a binary, or the note that a program was right (no bytes). */
enum { WEIGHT_BYTES = 8 }; /* of the weights' digest, that a note's name has */

struct header {
  char magic[8]; /* "pccbin01" */
  uint64_t bytes;
  uint64_t sum; /* of the bytes */
};

static uint64_t add_to_sum(uint64_t sum, const void *bytes, size_t count) { /* FNV-1a */
  for (size_t i = 0; i < count; i++) sum = (sum ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
  return sum;
}

static const uint64_t no_bytes = 0xcbf29ce484222325u;

static bool path_of(char *path, size_t size, const struct pcc_opencl_device *device, const char *digest, const char *suffix) {
  return *device->cache && (size_t)snprintf(path, size, "%s/%016llx-%s.%s", device->cache, (unsigned long long)device->key, digest, suffix) < size;
}

static bool read_all(int file, void *bytes, size_t count) {
  size_t done = 0;
  while (done < count) {
    const ssize_t got = read(file, (char *)bytes + done, count - done);
    if (got <= 0) return false;
    done += (size_t)got;
  }
  return true;
}

static bool write_all(int file, const void *bytes, size_t count) {
  size_t done = 0;
  while (done < count) {
    const ssize_t put = write(file, (const char *)bytes + done, count - done);
    if (put <= 0) return false;
    done += (size_t)put;
  }
  return true;
}

/* The bytes of a whole and undamaged file, to be freed; else NULL. */
static unsigned char *read_file(const char *path, size_t *count) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return NULL;
  struct header header;
  unsigned char *bytes = NULL;
  const off_t end = lseek(file, 0, SEEK_END);
  if (lseek(file, 0, SEEK_SET) == 0 && read_all(file, &header, sizeof header) && !memcmp(header.magic, "pccbin01", 8) &&
      end >= 0 && header.bytes == (uint64_t)end - sizeof header && (bytes = calloc(1, header.bytes + 1))) {
    *count = header.bytes;
    if (!read_all(file, bytes, header.bytes) || add_to_sum(no_bytes, bytes, header.bytes) != header.sum) {
      free(bytes);
      bytes = NULL;
    }
  }
  if (bytes) (void)futimens(file, NULL); /* it was used now: pcc removes what was not for a month */
  close(file);
  return bytes;
}

/* A cache is only a help: what cannot be written is left out. */
static void write_file(const char *path, const void *bytes, size_t count) {
  static _Atomic uint32_t files;
  char partial[800];
  const uint32_t number = atomic_fetch_add(&files, 1);
  if ((size_t)snprintf(partial, sizeof partial, "%s.%d.%u", path, (int)getpid(), number) >= sizeof partial) return;
  const int file = open(partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return;
  const struct header header = {"pccbin01", count, add_to_sum(no_bytes, bytes, count)};
  const bool written = write_all(file, &header, sizeof header) && write_all(file, bytes, count);
  close(file);
  if (!written || rename(partial, path)) unlink(partial);
}

static cl_handle from_binary(const struct pcc_opencl_device *device, const char *path) {
  size_t count = 0;
  unsigned char *bytes = read_file(path, &count);
  if (!bytes) return NULL;
  const unsigned char *binary = bytes;
  cl_int status = 0, error = 0;
  cl_handle program = device->cl.clCreateProgramWithBinary(device->context, 1, &device->id, &count, &binary, &status, &error);
  free(bytes);
  if (!program || error || status) return NULL;
  if (!device->cl.clBuildProgram(program, 1, &device->id, "", NULL, NULL)) return program;
  device->cl.clReleaseProgram(program);
  return NULL;
}

static void keep_binary(const struct pcc_opencl_device *device, cl_handle program, const char *path) {
  size_t count = 0;
  if (device->cl.clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof count, &count, NULL) || !count) return;
  unsigned char *bytes = calloc(1, count);
  if (bytes && !device->cl.clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof bytes, &bytes, NULL)) write_file(path, bytes, count);
  free(bytes);
}

static cl_handle from_text(const struct pcc_opencl_device *device, const struct pcc_device_kernel *kernel, char *why, size_t why_size) {
  const char *text = kernel->text;
  cl_int error = 0;
  cl_handle program = device->cl.clCreateProgramWithSource(device->context, 1, &text, NULL, &error);
  if (!program || error) {
    pcc_text(why, why_size, "kernel %s: %s", kernel->name, pcc_opencl_error(error));
    return NULL;
  }
  error = device->cl.clBuildProgram(program, 1, &device->id, "", NULL, NULL);
  if (!error) return program;
  size_t bytes = 0;
  const bool has_log = !device->cl.clGetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &bytes);
  char *log = has_log ? calloc(1, bytes + 1) : NULL;
  if (log && device->cl.clGetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, bytes, log, NULL)) *log = 0;
  const char *first = log ? log : ""; /* the first line that is not empty */
  while (*first == '\n') first++;
  int letters = 0;
  while (first[letters] && first[letters] != '\n') letters++;
  pcc_text(why, why_size, "the driver's compiler refuses %.60s: %s %.*s", kernel->name, pcc_opencl_error(error), letters, first);
  free(log);
  device->cl.clReleaseProgram(program);
  return NULL;
}

/* What is built within the time limit. */
struct job {
  const struct pcc_opencl_device *device;
  const struct pcc_device_kernel *kernels;
  cl_handle *programs;
  int32_t count;
};

static bool build_all(void *argument, char *why, size_t why_size) {
  const struct job *job = argument;
  for (int32_t i = 0; i < job->count; i++) {
    char path[700];
    const bool is_kept = path_of(path, sizeof path, job->device, job->kernels[i].digest, "bin");
    if (is_kept && (job->programs[i] = from_binary(job->device, path))) continue;
    job->programs[i] = from_text(job->device, &job->kernels[i], why, why_size);
    if (!job->programs[i]) return false;
    if (is_kept) keep_binary(job->device, job->programs[i], path);
  }
  return true;
}

bool pcc_opencl_build(const struct pcc_opencl_device *device, const struct pcc_device_kernel *kernels, int32_t count,
                      cl_handle *programs, bool *hangs, char *why, size_t why_size) {
  const struct job job = {device, kernels, programs, count};
  return pcc_within(PCC_OPENCL_BUILD_SECONDS, "the driver's compiler", build_all, &job, sizeof job, hangs, why, why_size);
}

/* Of a program and weights: others of the same network may leave fp16's range. */
static bool note_path(char *path, size_t size, const struct pcc_opencl_device *device, const struct pcc_device_program *program,
                      const struct pcc_model *model) {
  char digest[160];
  const int at = snprintf(digest, sizeof digest, "%s-", program->digest);
  for (int i = 0; i < WEIGHT_BYTES; i++) snprintf(digest + at + 2 * i, sizeof digest - (size_t)(at + 2 * i), "%02x", model->weight_digest[i]);
  return path_of(path, size, device, digest, "right");
}

bool pcc_opencl_was_right(const struct pcc_opencl_device *device, const struct pcc_device_program *program, const struct pcc_model *model) {
  char path[700];
  size_t bytes;
  unsigned char *note = note_path(path, sizeof path, device, program, model) ? read_file(path, &bytes) : NULL;
  const bool is_there = note;
  free(note);
  return is_there;
}

void pcc_opencl_is_right(const struct pcc_opencl_device *device, const struct pcc_device_program *program, const struct pcc_model *model) {
  char path[700];
  if (note_path(path, sizeof path, device, program, model)) write_file(path, "", 0);
}

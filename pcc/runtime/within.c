#define _GNU_SOURCE
#include "within.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "text.h"

/* As in pool.c: NULL in a program without threads, before glibc 2.34. */
#pragma weak pthread_create
#pragma weak pthread_join

/* Freed by who waits for it, unless the work hangs, which keeps it. */
struct attempt {
  bool (*work)(void *job, char *why, size_t why_size);
  _Atomic uint32_t is_done;
  bool succeeded;
  char why[200];
  _Alignas(16) char job[];
};

static void *run(void *argument) {
  struct attempt *attempt = argument;
  attempt->succeeded = attempt->work(attempt->job, attempt->why, sizeof attempt->why);
  atomic_store(&attempt->is_done, 1);
  syscall(SYS_futex, &attempt->is_done, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
  return NULL;
}

static int64_t seconds_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec;
}

bool pcc_within(int32_t seconds, const char *who, bool (*work)(void *job, char *why, size_t why_size), const void *job, size_t job_size, bool *hangs,
                char *why, size_t why_size) {
  *hangs = false;
  struct attempt *attempt = calloc(1, sizeof *attempt + job_size);
  pthread_t thread;
  if (attempt) {
    attempt->work = work;
    memcpy(attempt->job, job, job_size);
  }
  if (!attempt || !pthread_create || !pthread_join || pthread_create(&thread, NULL, run, attempt)) {
    free(attempt);
    pcc_text(why, why_size, "cannot start a thread that waits for the driver (glibc before 2.34 needs -pthread)");
    return false;
  }
  const int64_t end = seconds_now() + seconds + 1;
  while (!atomic_load(&attempt->is_done) && seconds_now() < end) {
    const struct timespec wait = {1, 0};
    syscall(SYS_futex, &attempt->is_done, FUTEX_WAIT_PRIVATE, 0, &wait, NULL, 0);
  }
  *hangs = !atomic_load(&attempt->is_done);
  if (*hangs) {
    pcc_text(why, why_size, "%s took more than %d s", who, seconds);
    return false;
  }
  pthread_join(thread, NULL);
  const bool succeeded = attempt->succeeded;
  if (!succeeded) pcc_text(why, why_size, "%s", attempt->why);
  free(attempt);
  return succeeded;
}

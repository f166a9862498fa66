#define _GNU_SOURCE
#include "within.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct job {
  void (*work)(void *argument);
  void *argument;
  _Atomic uint32_t is_done;
};

static void *run(void *argument) {
  struct job *job = argument;
  job->work(job->argument);
  atomic_store(&job->is_done, 1);
  syscall(SYS_futex, &job->is_done, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
  return NULL;
}

static int64_t seconds_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec;
}

enum pcc_within pcc_within(int32_t seconds, void (*work)(void *argument), void *argument) {
  struct job *job = calloc(1, sizeof *job);
  if (!job) return PCC_WITHIN_NO_THREAD;
  job->work = work;
  job->argument = argument;
  pthread_t thread;
  if (pthread_create(&thread, NULL, run, job)) {
    free(job);
    return PCC_WITHIN_NO_THREAD;
  }
  const int64_t end = seconds_now() + seconds + 1;
  while (!atomic_load(&job->is_done) && seconds_now() < end) {
    const struct timespec wait = {1, 0};
    syscall(SYS_futex, &job->is_done, FUTEX_WAIT_PRIVATE, 0, &wait, NULL, 0);
  }
  if (!atomic_load(&job->is_done)) return PCC_WITHIN_HANGS;
  pthread_join(thread, NULL);
  free(job);
  return PCC_WITHIN_DONE;
}

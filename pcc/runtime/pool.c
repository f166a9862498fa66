#include "pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "wait.h"

/* Before glibc 2.34 these lived in a library of their own, which a program without threads did not load: then they are NULL. */
#pragma weak pthread_create
#pragma weak pthread_join

enum { OPEN = 1, INSIDE = 2 };

struct worker {
  struct pcc_pool *pool;
  int32_t thread;
  pthread_t handle;
};

struct pcc_pool {
  void (*job)(void *argument, int32_t thread);
  void *argument;
  struct pcc_word round; /* counts the jobs; workers sleep on it */
  struct pcc_word gate;  /* OPEN while workers may enter, plus INSIDE for each that did; the caller sleeps on it */
  _Atomic bool stop;
  int32_t workers;
  struct worker worker[];
};

static bool enter(struct pcc_pool *pool) {
  uint32_t gate = atomic_load(&pool->gate.value);
  while (gate & OPEN)
    if (atomic_compare_exchange_weak(&pool->gate.value, &gate, gate + INSIDE)) return true;
  return false;
}

static void *work(void *argument) {
  const struct worker *worker = argument;
  struct pcc_pool *pool = worker->pool;
  uint32_t round = 0;
  for (;;) {
    round = pcc_wait_change(&pool->round, round);
    if (atomic_load(&pool->stop)) return NULL;
    if (!enter(pool)) continue;
    pool->job(pool->argument, worker->thread);
    pcc_add(&pool->gate, (uint32_t)-INSIDE);
  }
}

struct pcc_pool *pcc_pool_create(int32_t workers, void (*job)(void *argument, int32_t thread), void *argument) {
  if (!pthread_create || !pthread_join) return NULL;
  struct pcc_pool *pool = calloc(1, sizeof *pool + (size_t)workers * sizeof pool->worker[0]);
  if (!pool) return NULL;
  pool->job = job;
  pool->argument = argument;
  for (; pool->workers < workers; pool->workers++) {
    struct worker *worker = &pool->worker[pool->workers];
    worker->pool = pool;
    worker->thread = pool->workers + 1;
    if (pthread_create(&worker->handle, NULL, work, worker)) {
      pcc_pool_destroy(pool);
      return NULL;
    }
  }
  return pool;
}

void pcc_pool_run(struct pcc_pool *pool) {
  atomic_fetch_or(&pool->gate.value, OPEN);
  pcc_add(&pool->round, 1);
  pool->job(pool->argument, 0);
  uint32_t gate = atomic_fetch_and(&pool->gate.value, ~(uint32_t)OPEN) & ~(uint32_t)OPEN;
  while (gate) gate = pcc_wait_change(&pool->gate, gate);
}

void pcc_pool_destroy(struct pcc_pool *pool) {
  if (!pool) return;
  atomic_store(&pool->stop, true);
  pcc_add(&pool->round, 1);
  for (int32_t i = 0; i < pool->workers; i++) pthread_join(pool->worker[i].handle, NULL);
  free(pool);
}

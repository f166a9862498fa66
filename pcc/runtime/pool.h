/* Threads that do one job together, again and again. */
#ifndef PCC_POOL_H
#define PCC_POOL_H

#include <stdint.h>

struct pcc_pool;

/* A pool that runs `job(argument, thread)` on the caller's thread, number 0, and up to `workers` of its own, from 1 on. NULL if memory or threads are refused. */
struct pcc_pool *pcc_pool_create(int32_t workers, void (*job)(void *argument, int32_t thread), void *argument);

/* Runs the job once. A worker that is late, because the system gave it no time, may miss it: the job must be complete when the caller's own
 * part returns. Returns when no worker is in it any more. */
void pcc_pool_run(struct pcc_pool *pool);

void pcc_pool_destroy(struct pcc_pool *pool);

#endif

#include "prepared.h"

#include <stdint.h>
#include <stdlib.h>

#include "model.h"
#include "wait.h"

static struct pcc_word busy; /* 1 while a thread looks at what follows, or fills the memory */
static void *memory;
static int32_t contexts;

static void lock(void) {
  while (atomic_exchange(&busy.value, 1)) pcc_wait_change(&busy, 1);
}

static void unlock(void) { pcc_publish(&busy, 0); }

char *pcc_prepared_share(size_t bytes, void (*fill)(void *context, char *memory), void *context) {
  lock();
  if (!contexts && (memory = calloc(1, bytes + PCC_AROUND))) fill(context, pcc_aligned(memory));
  char *const shared = memory ? pcc_aligned(memory) : NULL;
  if (shared) contexts++;
  unlock();
  return shared;
}

void pcc_prepared_leave(void) {
  lock();
  if (!--contexts) {
    free(memory);
    memory = NULL;
  }
  unlock();
}

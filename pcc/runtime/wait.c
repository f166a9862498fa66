#define _GNU_SOURCE
#include "wait.h"

#include <linux/futex.h>
#include <limits.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPINS = 4000 }; /* some tens of microseconds: longer than the gap between two kernel calls */

uint32_t pcc_wait_change(struct pcc_word *word, uint32_t old) {
  for (int spin = 0; spin < SPINS; spin++) {
    const uint32_t value = atomic_load_explicit(&word->value, memory_order_acquire);
    if (value != old) return value;
    pcc_pause();
  }
  /* Sleepers are counted before the value is looked at again (here, or by the kernel), and publishers look at the count after they have
   * written the value; both in one total order, so one of the two sees the other. */
  atomic_fetch_add(&word->sleepers, 1);
  uint32_t value;
  while ((value = atomic_load(&word->value)) == old) syscall(SYS_futex, &word->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
  atomic_fetch_sub(&word->sleepers, 1);
  return value;
}

static void wake(struct pcc_word *word) {
  if (atomic_load(&word->sleepers)) syscall(SYS_futex, &word->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void pcc_publish(struct pcc_word *word, uint32_t value) {
  atomic_store(&word->value, value);
  wake(word);
}

void pcc_add(struct pcc_word *word, uint32_t delta) {
  atomic_fetch_add(&word->value, delta);
  wake(word);
}

void pcc_lock(struct pcc_word *word) {
  while (atomic_exchange(&word->value, 1)) pcc_wait_change(word, 1);
}

void pcc_unlock(struct pcc_word *word) { pcc_publish(word, 0); }

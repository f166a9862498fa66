/* Waiting for a word in memory to change: spins a little, then sleeps in the kernel.
 *
 * Futexes and not pthread's mutexes and conditions, whose sizes differ between glibc, musl and Android's bionic: one object file serves all. */
#ifndef PCC_WAIT_H
#define PCC_WAIT_H

#include <stdatomic.h>
#include <stdint.h>

/* A word that threads wait on, and how many of them sleep. */
struct pcc_word {
  _Atomic uint32_t value;
  _Atomic uint32_t sleepers;
};

/* Returns once the value is no longer `old`, and what it is then. */
uint32_t pcc_wait_change(struct pcc_word *word, uint32_t old);

/* Sets the value and wakes whoever sleeps on it. */
void pcc_publish(struct pcc_word *word, uint32_t value);

/* Adds to the value and wakes whoever sleeps on it. */
void pcc_add(struct pcc_word *word, uint32_t delta);

/* Makes 1 of the word's 0, once no other thread holds it. */
void pcc_lock(struct pcc_word *word);

void pcc_unlock(struct pcc_word *word);

/* Tells the processor that this is a loop that waits. */
static inline void pcc_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb"); /* longer than `yield`, which most cores ignore */
#endif
}

#endif

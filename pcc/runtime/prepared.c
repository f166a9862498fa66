#define _GNU_SOURCE
#include "prepared.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "model.h"
#include "wait.h"

enum { LARGEST_PAGE = 65536 }; /* of the small ones, on any kernel */

static struct pcc_word busy; /* 1 while a thread looks at what follows, or fills the memory */
static void *memory;
static int32_t contexts;

/* Kernels stream through hundreds of megabytes, and would wait for the addresses of small pages: VGG-16 took 7 % longer. Systems without huge pages say
 * no, which is fine. */
static void prefer_huge_pages(const char *begin, size_t bytes) {
  const uintptr_t first = ((uintptr_t)begin + LARGEST_PAGE - 1) / LARGEST_PAGE * LARGEST_PAGE;
  const uintptr_t end = ((uintptr_t)begin + bytes) / LARGEST_PAGE * LARGEST_PAGE;
  if (first < end) syscall(SYS_madvise, first, end - first, MADV_HUGEPAGE);
}

char *pcc_prepared_share(size_t bytes, void (*fill)(void *context, char *memory), void *context) {
  pcc_lock(&busy);
  if (!contexts && (memory = calloc(1, bytes + PCC_AROUND))) {
    prefer_huge_pages(pcc_aligned(memory), bytes);
    fill(context, pcc_aligned(memory));
  }
  char *const shared = memory ? pcc_aligned(memory) : NULL;
  if (shared) contexts++;
  pcc_unlock(&busy);
  return shared;
}

void pcc_prepared_leave(void) {
  pcc_lock(&busy);
  if (!--contexts) {
    free(memory);
    memory = NULL;
  }
  pcc_unlock(&busy);
}

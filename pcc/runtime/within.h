/* Work that may never end: a driver's compiler, a device that is lost. */
#ifndef PCC_WITHIN_H
#define PCC_WITHIN_H

#include <stdint.h>

enum pcc_within {
  PCC_WITHIN_DONE,
  PCC_WITHIN_HANGS, /* it still runs, and keeps what it uses: nothing of that may be freed */
  PCC_WITHIN_NO_THREAD,
};

/* Runs work(argument) on a thread of its own, for no thread can be stopped from outside, and waits for so many seconds. */
enum pcc_within pcc_within(int32_t seconds, void (*work)(void *argument), void *argument);

#endif

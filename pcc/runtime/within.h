/* Work that may never end: a driver's compiler, a device that is lost. */
#ifndef PCC_WITHIN_H
#define PCC_WITHIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Does work(job), which says whether it succeeds, else why not, on a thread of its own, for no thread can be stopped from outside; gives up after so many
 * seconds ("WHO took more than 60 s"). *hangs says that it still works then, on a copy of the job: nothing that this points to may be freed. */
bool pcc_within(int32_t seconds, const char *who, bool (*work)(void *job, char *why, size_t why_size), const void *job, size_t job_size, bool *hangs,
                char *why, size_t why_size);

#endif

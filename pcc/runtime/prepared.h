/* Weights in the form that kernels read, where that is not the one they ship in. The contexts of a process share them. */
#ifndef PCC_PREPARED_H
#define PCC_PREPARED_H

#include <stddef.h>

/* The memory of `bytes` that all contexts share, for one more of them; the first one fills it, while others wait. NULL where there is no memory. */
char *pcc_prepared_share(size_t bytes, void (*fill)(void *context, char *memory), void *context);

/* One context less: the last one frees it. */
void pcc_prepared_leave(void);

#endif

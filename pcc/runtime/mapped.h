/* The runner's weights: those of the shared library, mapped, so that a package holds them once. */
#ifndef PCC_MAPPED_H
#define PCC_MAPPED_H

#include <stddef.h>

/* Maps the library's weights. `library` may be NULL: then the file of the model's name beside the program, or in the package's
 * lib/ABI/ seen from bin/ABI/. Returns 0, or -1 and why in error[error_size]. */
int pcc_map_weights(const char *library, char *error, size_t error_size);

#endif

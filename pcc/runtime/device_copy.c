/* Tensors between a device's buffers and a context's arena, whose layouts differ. */
#include <string.h>

#include "device.h"

/* The part of a tensor that a dimension and those within it are. */
static void copy_part(const struct pcc_device_copy *copy, int32_t dim, char *arena, char *buffer) {
  if (dim == copy->rank) {
    memcpy(copy->to_device ? buffer : arena, copy->to_device ? arena : buffer, copy->element);
    return;
  }
  const size_t size = copy->sizes[dim], apart = copy->arena_strides[dim], away = copy->device_strides[dim];
  if (dim == copy->rank - 1 && apart == copy->element && away == copy->element) {
    memcpy(copy->to_device ? buffer : arena, copy->to_device ? arena : buffer, size * copy->element);
    return;
  }
  for (size_t i = 0; i < size; i++) copy_part(copy, dim + 1, arena + i * apart, buffer + i * away);
}

void pcc_device_copy_tensor(const struct pcc_device_copy *copy, char *arena, char *buffer) {
  copy_part(copy, 0, arena + copy->arena_offset, buffer + copy->device_offset);
}

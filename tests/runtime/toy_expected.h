/* What the toy model computes, and its size. */
#ifndef TOY_EXPECTED_H
#define TOY_EXPECTED_H

#include <string.h>

enum { ITEMS = 1000, ROUNDS = 20 };

static void expected(const float *x, float *z) {
  float now[ITEMS];
  memcpy(now, x, sizeof now);
  for (int round = 0; round < ROUNDS; round++) {
    for (int i = 0; i < ITEMS; i++) {
      const float y = 2 * now[ITEMS - 1 - i] + 1;
      z[i] = y * y;
    }
    for (int i = 0; i < ITEMS; i++) now[i] = z[i] / 1e6f;
  }
}

#endif

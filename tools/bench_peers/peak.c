/* Prints the multiply-adds per second of fp32 vectors that this core can do at best: independent chains in registers, the best of many short runs. */
#include <stdio.h>
#include <time.h>

#ifdef __aarch64__
#define REGISTER "w"
#else
#define REGISTER "x"
#endif
#ifdef __AVX512F__
enum { BYTES = 64 };
#elif defined(__AVX2__)
enum { BYTES = 32 };
#else
enum { BYTES = 16 };
#endif
enum { LANES = BYTES / 4, CHAINS = 12, TURNS = 200000, RUNS = 200 };
typedef float vector __attribute__((vector_size(BYTES)));

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(void) {
  vector sum[CHAINS] = {0}, a = {0}, b = {0};
  double best = 1e9;
  for (int run = 0; run < RUNS; run++) {
    const double start = seconds();
    for (int turn = 0; turn < TURNS; turn++) {
#pragma GCC unroll 12
      for (int chain = 0; chain < CHAINS; chain++) sum[chain] = sum[chain] * a + b;
      __asm__ volatile("" : "+" REGISTER (a), "+" REGISTER (b)); /* the compiler must not know them */
    }
    const double took = seconds() - start;
    if (took < best) best = took;
  }
  float total = 0;
  for (int chain = 0; chain < CHAINS; chain++) total += sum[chain][0];
  __asm__ volatile("" : : "g"(total));
  printf("%.4g\n", (double)LANES * CHAINS * TURNS / best);
  return 0;
}

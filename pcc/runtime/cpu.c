/* x86-64: asks the processor (cpuid) and the system (xgetbv: does it save the wide registers?). arm64: NEON is always there, the system says the rest. */
#include "cpu.h"

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t saved_registers(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return ((uint64_t)high << 32) | low;
}

const char *pcc_cpu_lacks(const char *isa) {
  const int wide = !strcmp(isa, "avx512");
  if (!wide && strcmp(isa, "avx2")) return isa; /* nothing is known about it, so nothing may run */
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return "CPUID";
  const uint32_t basic = c;
  if (!(basic & bit_OSXSAVE) || (saved_registers() & 0x6) != 0x6) return "AVX";
  if (!(basic & bit_FMA)) return "FMA";
  if (!(basic & bit_F16C)) return "F16C";
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2)) return "AVX2";
  const uint32_t features = bit_AVX512F | bit_AVX512VL | bit_AVX512DQ | bit_AVX512BW;
  if (wide && ((b & features) != features || (saved_registers() & 0xe6) != 0xe6)) return "AVX-512 (F, VL, DQ, BW)";
  return NULL;
}
#else
#include <sys/auxv.h>

enum { ASIMDHP = 1 << 10 }; /* of Linux's AT_HWCAP: vectors of fp16 */

const char *pcc_cpu_lacks(const char *isa) {
  if (!strcmp(isa, "neon")) return NULL;
  if (strcmp(isa, "neon-fp16")) return isa; /* nothing is known about it, so nothing may run */
  return getauxval(AT_HWCAP) & ASIMDHP ? NULL : "arithmetic in fp16 (asimdhp)";
}
#endif

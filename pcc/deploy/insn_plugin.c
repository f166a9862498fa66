/* A plugin for qemu-aarch64 (user mode, QEMU 4.2 to 8.x): counts executed instructions by class, between readings of the clock.
 *
 *     gcc -O2 -shared -fPIC insn_plugin.c -o insn_plugin.so
 *     qemu-aarch64 -plugin ./insn_plugin.so,out=FILE[,memory=on] pcc-run bench --profile --warmup 0 --runs 1
 *
 * A program that times itself reads the clock where an interval begins and ends: every clock_gettime appends to FILE a line with the clock's number and
 * what has been executed since the one before, as NAME=COUNT for each class. Nothing in the program needs to know. Counts are exact for programs of one
 * thread.
 *
 * With memory=on (2 to 3 times slower) a line has bytes loaded and stored, too, and the misses of two caches of a Cortex-A76's sizes that replace the
 * line that was not used for longest and fetch nothing ahead: a model, not a device.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Debian has no package with QEMU's plugin header: what is used of version 1 of the interface. */
#define EXPORT __attribute__((visibility("default")))
typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct info_head {
  const char *target_name;
};
enum { INLINE_ADD_U64 = 0 };
enum { NO_REGISTERS = 0, READS_AND_WRITES = 3 };
typedef void (*access_fn)(unsigned vcpu, uint32_t info, uint64_t address, void *);
typedef void (*translated_fn)(plugin_id, struct qemu_plugin_tb *);
typedef void (*syscall_fn)(plugin_id, unsigned vcpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated_fn);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *counter, uint64_t);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id, syscall_fn);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, access_fn, int registers, int accesses, void *);
extern unsigned qemu_plugin_mem_size_shift(uint32_t info);
extern bool qemu_plugin_mem_is_store(uint32_t info);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
EXPORT int qemu_plugin_version = 1;

enum class { VFMA, VDOT, VLOAD, VSTORE, VOTHER, SCALAR_FP, LOAD, STORE, PREFETCH, INT, BRANCH, OTHER, CLASSES };
static const char *const names[CLASSES] = {"vfma", "vdot", "vload", "vstore", "vother", "scalar_fp", "load", "store", "prefetch", "int", "branch", "other"};

/* Loads and stores, by the Arm manual's table "Loads and Stores"; atomics are OTHER. */
static enum class load_or_store(uint32_t word) {
  const int vector = word >> 26 & 1, kind = word >> 27 & 7, is_load = word >> 22 & 1;
  if ((word & 0xbe000000) == 0x0c000000) return is_load ? VLOAD : VSTORE; /* LD1..LD4, ST1..ST4 */
  switch (kind) {
    case 1: return is_load ? LOAD : STORE; /* exclusive, acquire and release */
    case 3: return word >> 24 & 1 ? OTHER : word >> 30 == 3 && !vector ? PREFETCH : vector ? VLOAD : LOAD; /* literal */
    case 5: return vector ? (is_load ? VLOAD : VSTORE) : (is_load ? LOAD : STORE); /* pairs */
    case 7: {
      const uint32_t operation = word >> 22 & 3;
      if (vector) return operation & 1 ? VLOAD : VSTORE;
      const int atomic = !(word >> 24 & 1) && (word >> 21 & 1) && !(word & 0xc00);
      if (atomic) return OTHER;
      if (word >> 30 == 3 && operation == 2) return PREFETCH;
      return operation ? LOAD : STORE;
    }
    default: return OTHER;
  }
}

/* Floating point and vectors. */
static enum class arithmetic(uint32_t word) {
  if ((word & 0xbf20fc00) == 0x0e20cc00) return VFMA; /* FMLA, FMLS: vectors */
  if ((word & 0xbf60fc00) == 0x0e400c00) return VFMA; /* of fp16 */
  if ((word & 0xbf00b400) == 0x0f001000) return VFMA; /* by element */
  if ((word & 0x9f20fc00) == 0x0e009400 || (word & 0xbf20fc00) == 0x0e009c00) return VDOT; /* SDOT, UDOT; USDOT */
  if ((word & 0x9f00f400) == 0x0f00e000 || (word & 0xbf00f400) == 0x0f00f000) return VDOT; /* by element */
  if ((word & 0xdf20f400) == 0x4e00a400) return VDOT;                                     /* SMMLA, UMMLA, USMMLA */
  if ((word & 0x5f000000) == 0x1f000000 || (word & 0x5f000000) == 0x1e000000 || (word & 0xdf000000) == 0x5f000000 || (word & 0xdf000000) == 0x5e000000)
    return SCALAR_FP;
  return VOTHER;
}

static enum class classify(uint32_t word) {
  const uint32_t group = word >> 25 & 15;
  if ((group & 5) == 4) return load_or_store(word);
  if ((group & 14) == 10) return word >> 24 == 0xd5 || word >> 24 == 0xd4 ? OTHER : BRANCH;
  if ((group & 14) == 8 || (group & 7) == 5) return INT;
  return (group & 7) == 7 ? arithmetic(word) : OTHER;
}

/* Memory: bytes, and the data caches of a Cortex-A76. */
enum { LINE_SHIFT = 6, L1_SETS = 256, L1_WAYS = 4, L2_SETS = 1024, L2_WAYS = 8 }; /* 64 KiB, 512 KiB */
enum memory { LOAD_BYTES, STORE_BYTES, L1_MISSES, L2_MISSES, MEMORY };
static const char *const memory_names[MEMORY] = {"load_bytes", "store_bytes", "l1_misses", "l2_misses"};
static uint64_t l1[L1_SETS][L1_WAYS], l2[L2_SETS][L2_WAYS];
static uint64_t memory[MEMORY];
static bool counts_memory;

/* Looks a line up in a set, whose lines are ordered from the one used last, and puts it first; whether it was there. Lines are stored plus one: 0 is none. */
static bool is_there(uint64_t *set, int ways, uint64_t line) {
  int way = 0;
  while (way < ways && set[way] != line + 1) way++;
  const bool found = way < ways;
  if (way == 0) return true;
  memmove(set + 1, set, (size_t)(found ? way : ways - 1) * sizeof *set);
  set[0] = line + 1;
  return found;
}

static void accessed(unsigned vcpu, uint32_t info, uint64_t address, void *data) {
  (void)vcpu, (void)data;
  const uint64_t bytes = 1ull << qemu_plugin_mem_size_shift(info);
  memory[qemu_plugin_mem_is_store(info) ? STORE_BYTES : LOAD_BYTES] += bytes;
  for (uint64_t line = address >> LINE_SHIFT; line <= (address + bytes - 1) >> LINE_SHIFT; line++) {
    if (is_there(l1[line % L1_SETS], L1_WAYS, line)) continue;
    memory[L1_MISSES]++;
    if (!is_there(l2[line % L2_SETS], L2_WAYS, line)) memory[L2_MISSES]++;
  }
}

/* A translated block: how often it ran, and what is in it. */
struct block {
  uint64_t runs;
  uint16_t instructions[CLASSES];
  struct block *next;
};
static struct block *blocks;
static FILE *out;

static void translated(plugin_id id, struct qemu_plugin_tb *tb) {
  (void)id;
  struct block *block = calloc(1, sizeof *block);
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
    struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(tb, i);
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(instruction), sizeof word);
    block->instructions[classify(word)]++;
    if (counts_memory) qemu_plugin_register_vcpu_mem_cb(instruction, accessed, NO_REGISTERS, READS_AND_WRITES, NULL);
  }
  block->next = blocks;
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &block->runs, 1);
}

static void called(plugin_id id, unsigned vcpu, int64_t number, uint64_t clock, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)id, (void)vcpu, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  const int64_t clock_gettime = 113;
  if (number != clock_gettime) return;
  uint64_t counts[CLASSES] = {0};
  for (struct block *block = blocks; block; block = block->next) {
    for (int i = 0; i < CLASSES; i++) counts[i] += block->runs * block->instructions[i];
    block->runs = 0;
  }
  fprintf(out, "clock=%llu", (unsigned long long)clock);
  for (int i = 0; i < CLASSES; i++) fprintf(out, " %s=%llu", names[i], (unsigned long long)counts[i]);
  for (int i = 0; i < MEMORY && counts_memory; i++) fprintf(out, " %s=%llu", memory_names[i], (unsigned long long)memory[i]);
  memset(memory, 0, sizeof memory);
  fputc('\n', out);
  fflush(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const struct info_head *info, int count, char **words) {
  for (int i = 0; i < count; i++) {
    if (!strncmp(words[i], "out=", 4)) out = fopen(words[i] + 4, "w");
    if (!strcmp(words[i], "memory=on")) counts_memory = true;
  }
  if (strcmp(info->target_name, "aarch64") || count != 1 + counts_memory || !out) {
    fprintf(stderr, "insn_plugin: give out=FILE[,memory=on], on qemu-aarch64\n");
    return -1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  return 0;
}

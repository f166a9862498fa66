/* A plugin for qemu-aarch64 (user mode, QEMU 4.2 to 8.x): counts executed instructions by class, between readings of the clock.
 *
 *     gcc -O2 -shared -fPIC insn_plugin.c -o insn_plugin.so
 *     qemu-aarch64 -plugin ./insn_plugin.so,out=FILE pcc-run bench --profile --warmup 0 --runs 1
 *
 * A program that times itself reads the clock where an interval begins and ends: every clock_gettime appends to FILE a line with what has been executed
 * since the one before, as NAME=COUNT for each class. Nothing in the program needs to know. Counts are exact for programs of one thread.
 */
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
typedef void (*translated_fn)(plugin_id, struct qemu_plugin_tb *);
typedef void (*syscall_fn)(plugin_id, unsigned vcpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated_fn);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *counter, uint64_t);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id, syscall_fn);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
EXPORT int qemu_plugin_version = 1;

enum class { VFMA, VLOAD, VSTORE, VOTHER, SCALAR_FP, LOAD, STORE, INT, BRANCH, OTHER, CLASSES };
static const char *const names[CLASSES] = {"vfma", "vload", "vstore", "vother", "scalar_fp", "load", "store", "int", "branch", "other"};

/* Loads and stores, by the Arm manual's table "Loads and Stores"; prefetches and atomics are OTHER. */
static enum class load_or_store(uint32_t word) {
  const int vector = word >> 26 & 1, kind = word >> 27 & 7, is_load = word >> 22 & 1;
  if ((word & 0xbe000000) == 0x0c000000) return is_load ? VLOAD : VSTORE; /* LD1..LD4, ST1..ST4 */
  switch (kind) {
    case 1: return is_load ? LOAD : STORE; /* exclusive, acquire and release */
    case 3: return word >> 24 & 1 ? OTHER : word >> 30 == 3 && !vector ? OTHER : vector ? VLOAD : LOAD; /* literal */
    case 5: return vector ? (is_load ? VLOAD : VSTORE) : (is_load ? LOAD : STORE); /* pairs */
    case 7: {
      const uint32_t operation = word >> 22 & 3;
      if (vector) return operation & 1 ? VLOAD : VSTORE;
      const int atomic = !(word >> 24 & 1) && (word >> 21 & 1) && !(word & 0xc00);
      if (atomic || (word >> 30 == 3 && operation == 2)) return OTHER;
      return operation ? LOAD : STORE;
    }
    default: return OTHER;
  }
}

/* Floating point and vectors. */
static enum class arithmetic(uint32_t word) {
  if ((word & 0xbf20fc00) == 0x0e20cc00) return VFMA; /* FMLA, FMLS: vectors */
  if ((word & 0xbf00b400) == 0x0f001000) return VFMA; /* by element */
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
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof word);
    block->instructions[classify(word)]++;
  }
  block->next = blocks;
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &block->runs, 1);
}

static void called(plugin_id id, unsigned vcpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)id, (void)vcpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  const int64_t clock_gettime = 113;
  if (number != clock_gettime) return;
  uint64_t counts[CLASSES] = {0};
  for (struct block *block = blocks; block; block = block->next) {
    for (int i = 0; i < CLASSES; i++) counts[i] += block->runs * block->instructions[i];
    block->runs = 0;
  }
  for (int i = 0; i < CLASSES; i++) fprintf(out, "%s%s=%llu", i ? " " : "", names[i], (unsigned long long)counts[i]);
  fputc('\n', out);
  fflush(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const struct info_head *info, int count, char **words) {
  if (strcmp(info->target_name, "aarch64") || count != 1 || strncmp(words[0], "out=", 4) || !(out = fopen(words[0] + 4, "w"))) {
    fprintf(stderr, "insn_plugin: give out=FILE, on qemu-aarch64\n");
    return -1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  return 0;
}

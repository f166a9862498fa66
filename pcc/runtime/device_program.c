/* Which of a library's programs a device runs. */
#include <string.h>

#include "device.h"

static char lower(char letter) { return letter >= 'A' && letter <= 'Z' ? (char)(letter - 'A' + 'a') : letter; }

/* Whether the name has the part, which is in lower case. */
static bool contains(const char *name, const char *part) {
  for (; *name; name++) {
    size_t same = 0;
    while (part[same] && lower(name[same]) == part[same]) same++;
    if (!part[same]) return true;
  }
  return false;
}

/* Whether a program calls no steps of another form of the model than the one that this processor runs. */
static bool fits(const struct pcc_device_program *program) { return !program->isa || !strcmp(program->isa, pcc_chosen_model()->isa); }

/* Qualcomm's older drivers tell the model in the version alone: "QUALCOMM Adreno(TM)", "OpenCL 2.0 Adreno(TM) 640". Others have hashes there. */
static bool is_of(const char *part, const char *name, const char *version) {
  return contains(name, part) || (contains(name, "adreno") && contains(version, part));
}

const struct pcc_device_program *pcc_device_program_for(const char *name, const char *version) {
  const struct pcc_device_program *first = NULL, *of_any = NULL;
  for (int32_t i = 0; i < pcc_device_program_count; i++) {
    const struct pcc_device_program *program = pcc_device_programs[i];
    if (!fits(program)) continue;
    for (const char *const *part = program->devices; *part; part++)
      if (is_of(*part, name, version)) return program;
    if (!first) first = program;
    if (!of_any && !*program->devices) of_any = program;
  }
  return of_any ? of_any : first;
}

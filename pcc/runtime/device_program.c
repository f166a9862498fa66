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

const struct pcc_device_program *pcc_device_program_for(const char *name) {
  const struct pcc_device_program *chosen = pcc_device_programs[0];
  for (int32_t i = pcc_device_program_count; i--;)
    if (!*pcc_device_programs[i]->devices) chosen = pcc_device_programs[i];
  for (int32_t i = 0; i < pcc_device_program_count; i++)
    for (const char *const *part = pcc_device_programs[i]->devices; *part; part++)
      if (contains(name, *part)) return pcc_device_programs[i];
  return chosen;
}

#include "text.h"

#include <stdbool.h>
#include <stdio.h>

/* Bytes of the character that begins with this one; 0 where none does. */
static int length_of(unsigned char first) {
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;
  return first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

/* Whether two bytes begin no character: a longer form of a shorter one, a surrogate, or what is beyond Unicode. */
static bool is_wrong(unsigned char first, unsigned char second) {
  return (first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) || (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F);
}

void pcc_text(char *text, size_t size, const char *format, ...) {
  va_list values;
  va_start(values, format);
  pcc_text_of(text, size, format, values);
  va_end(values);
}

void pcc_text_of(char *text, size_t size, const char *format, va_list values) {
  vsnprintf(text, size, format, values);
  unsigned char *at = (unsigned char *)text;
  while (size && *at) {
    const int length = length_of(*at);
    int got = 1;
    while (got < length && (at[got] & 0xC0) == 0x80) got++;
    if (got < length && !at[got]) { /* the text ends within it */
      *at = 0;
    } else if (got < length || !length || (length > 2 && is_wrong(at[0], at[1]))) {
      *at++ = '?';
    } else {
      at += length;
    }
  }
}

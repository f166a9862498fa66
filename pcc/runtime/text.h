/* Texts for people. Parts of them come from drivers, and may be anything. */
#ifndef PCC_TEXT_H
#define PCC_TEXT_H

#include <stdarg.h>
#include <stddef.h>

/* As snprintf, and always UTF-8: cut where a character begins, with '?' for bytes that are none. */
__attribute__((format(printf, 3, 4))) void pcc_text(char *text, size_t size, const char *format, ...);
void pcc_text_of(char *text, size_t size, const char *format, va_list values);

#endif

/* What an NDK's crtbegin_so.o would add: the note by which Android's loader knows the API level (24) that the library was linked for. */
__asm__(
    ".section .note.android.ident,\"a\",%note\n"
    ".balign 4\n"
    ".long 8, 4, 1\n"
    ".asciz \"Android\"\n"
    ".long 24\n"
    ".previous\n");

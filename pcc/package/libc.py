"""The part of the C library that a static runner needs, from the sources of musl and of zig's own functions that come
with zig.

Zig would build all of musl before its first static link, 1,053 files in 40 seconds. A runner needs the files below,
which take 8 with zig's functions and the compiler's support routines. A function that the runtime begins to use and
that is not among them is an undefined symbol when a runner is linked.
"""

import hashlib
import os
from importlib.metadata import version
from pathlib import Path

from pcc.cache import cache_root, writing_cache
from pcc.progress import Progress
from pcc.zig import run_tool, zig, zig_folder

MUSL_FILES = {
    "conf": "sysconf",
    "env": "__environ __init_tls __libc_start_main",
    "errno": "__errno_location strerror",
    "exit": "_Exit exit",
    "fcntl": "open",
    "fenv": "fenv fesetround",
    "internal": "defsysinfo floatscan libc procfdname shgetc syscall_ret vdso",
    "linux": "sysinfo",
    "locale": "__lctrans",
    "math": "__fpclassifyl __signbitl fma fmal ilogbl nextafterl scalbn scalbnl",
    "misc": "getauxval getrlimit syscall",
    "mman": "mmap mremap munmap",
    "multibyte": "wcrtomb wctomb",
    "sched": "affinity",
    "signal": "block",
    "stat": "fstat fstatat",
    "stdio": "__fdopen __fmodeflags __lockfile __overflow __stdio_close __stdio_exit __stdio_read __stdio_seek "
    "__stdio_write __stdout_write __toread __towrite __uflow fclose ferror fflush fgetc fgets fopen fputc fputs fread "
    "fwrite ofl ofl_add printf putchar puts snprintf stderr stdout vfprintf vsnprintf",
    "stdlib": "strtod",
    "thread": "__lock __set_thread_area __syscall_cp __timedwait __unmapself __wait clone default_attr "
    "pthread_create pthread_join pthread_setcancelstate pthread_testcancel vmlock",
    "time": "clock_gettime",
    "unistd": "lseek readlink",
}
"""Folder of musl's ``src`` -> names of its files: what the linker takes from the whole library, on x86-64 and on
arm64."""
MUSL_FLAGS = (
    *(
        "-std=c99",
        "-ffreestanding",
        "-frounding-math",
        "-ffp-contract=off",
        "-fno-strict-aliasing",
        "-D_XOPEN_SOURCE=700",
        "-Os",
        "-w",
    ),
    *("-fomit-frame-pointer", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables"),
)
"""As zig compiles musl."""
ZIG_FLAGS = (
    "-lc",
    "-fcompiler-rt",
    "-OReleaseSmall",
    "-fstrip",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-unwind-tables",
    "-fno-stack-protector",
)


def libc_archive(arch: str, progress: Progress) -> Path:
    """The archive, start of the program included, for ``x86_64`` or ``aarch64``; built once, for any Linux or Android
    kernel."""
    key = hashlib.sha256(repr((version("ziglang"), MUSL_FILES, MUSL_FLAGS, ZIG_FLAGS)).encode()).hexdigest()[:12]
    archive = cache_root() / "runtime" / f"libc-{arch}-{key}.a"
    if not archive.exists():
        with writing_cache():
            archive.parent.mkdir(parents=True, exist_ok=True)
        progress(f"building the runner's C library for {arch} (once, some seconds)")
        partial = archive.with_suffix(f".{os.getpid()}.a")
        _build(arch, partial)
        partial.replace(archive)
    return archive


def _build(arch: str, archive: Path) -> None:
    library = zig_folder() / "lib"
    musl = library / "libc" / "musl"
    includes = [
        f"-I{musl / folder}" for folder in (f"arch/{arch}", "arch/generic", "src/include", "src/internal", "include")
    ]
    sources = [
        musl / "crt/crt1.c",
        *(_source(musl / "src" / folder, name, arch) for folder, names in MUSL_FILES.items() for name in names.split()),
    ]
    options = [
        "--name",
        "c",
        "-target",
        f"{arch}-linux-musl",
        *ZIG_FLAGS,
        f"-femit-bin={archive}",
        str(library / "c.zig"),
    ]
    run_tool([*zig(), "build-lib", *options, "-cflags", *MUSL_FLAGS, *includes, "--", *map(str, sources)])


def _source(folder: Path, name: str, arch: str) -> Path:
    """The file for the architecture where it has one of its own."""
    return next(
        (source for suffix in ("s", "S", "c") if (source := folder / arch / f"{name}.{suffix}").exists()),
        folder / f"{name}.c",
    )

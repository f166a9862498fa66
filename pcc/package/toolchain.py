"""C and objects to libraries and runners: zig's clang and linker from pip for every target, the NDK's for Android where
there is one.

All C is compiled against musl's headers, but so that it does not matter: no type whose size differs between C
libraries, no errno, no stdio streams in the library. So one object serves the shared library and the static runner, and
a shared library is linked against a stub of the C library that only has its name and the symbols we use. Symbols are
unversioned: any glibc, or bionic, binds its default ones.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pcc.cache import cache_root
from pcc.errors import PccError
from pcc.package.header import declarations, own_name
from pcc.package.libc import libc_archive
from pcc.progress import Progress, quiet
from pcc.target import Target
from pcc.zig import run_tool, zig

RUNTIME = Path(__file__).parents[1] / "runtime"
_MODEL_SOURCES = ("context.c", "prepared.c", "describe.c", "chosen.c", "cpu.c", "pool.c", "text.c", "wait.c")
LIBRARY_SOURCES = (*_MODEL_SOURCES, "embedded.c")
RUNNER_SOURCES = (*_MODEL_SOURCES, "mapped.c", "runner.c")
DEVICE_SOURCES = (
    "device_copy.c",
    "device_program.c",
    "device_test.c",
    "opencl.c",
    "opencl_library.c",
    "opencl_programs.c",
    "opencl_weights.c",
    "within.c",
)
"""What has code for a GPU is made of besides."""
NO_DEVICE_SOURCES = ("no_device.c",)
"""What has none, instead."""
LIBC_SYMBOLS = tuple(
    "calloc clock_gettime close free futimens getauxval getpid lseek memcmp memcpy memset open pthread_create "
    "pthread_join read rename snprintf strcmp strlen syscall unlink vsnprintf write".split()
)
"""All that a library needs from outside."""
DL_SYMBOLS = ("dlclose", "dlopen", "dlsym")
"""What code for a GPU needs besides, to open a driver: of libdl, which is a name for the C library where it is new."""
C_FLAGS = ("-std=c11", "-O2", "-g0", "-fPIC", "-fvisibility=hidden", "-fno-stack-protector", "-Wall", "-Wextra")
ANDROID_API = 24


@dataclass(frozen=True)
class Toolchain:
    """Compiles and links for one target. ``progress`` hears of anything that takes long."""

    target: Target
    progress: Progress = quiet

    def compile_model(self, source: Path, output: Path) -> None:
        """``model.c`` to an object that both `link_library` and `link_runner` take."""
        self._compile(self._zig_cc(), source, output)

    def link_library(self, name: str, objects: Sequence[Path], output: Path, *, has_gpu: bool = False) -> None:
        """``lib<name>.so`` from the model's objects (model, kernels, weights) and the runtime; it exports the interface
        (under names of its own, too, by which a program tells two models apart) and nothing else. ``has_gpu``: one of
        the objects defines programs for GPUs, whose driver may keep a thread in the library: it is not unloaded."""
        ndk = self._ndk_clang()
        device = DEVICE_SOURCES if has_gpu else NO_DEVICE_SOURCES
        note = ("android_note.c",) if self.target.is_android and not ndk else ()
        sources = (*LIBRARY_SOURCES, *device, *note)
        inputs = [str(file) for file in (*self._runtime(ndk or self._zig_cc(), sources), *objects)]
        page = 65536 if self.target.name == "aarch64-linux" else 16384
        flags = [
            "-soname",
            f"lib{name}.so",
            "-z",
            f"max-page-size={page}",
            "-z",
            "text",
            "-z",
            "now",
            "-z",
            "relro",
            "--no-undefined",
        ]
        flags += [
            "--hash-style=gnu",
            "--build-id=sha1",
            "--strip-debug",
            "-Bsymbolic-functions",
            "--version-script",
            str(self._version_script()),
            *(f"--defsym={own_name(name, function)}={function}" for function in declarations()),
            *(["-z", "nodelete"] if has_gpu else []),
        ]
        if ndk:
            libraries = ["-ldl"] * has_gpu
            run_tool([*ndk, "-shared", *(f"-Wl,{flag}" for flag in flags), *inputs, *libraries, "-o", str(output)])
            return
        stubs = [self._stub("libc.so.6", LIBC_SYMBOLS)] + [self._stub("libdl.so.2", DL_SYMBOLS)] * has_gpu
        self._lld("-shared", *flags, *inputs, *map(str, stubs), "-o", str(output))

    def link_runner(self, objects: Sequence[Path], output: Path) -> None:
        """``pcc-run`` from the model's objects (model, kernels): static, for any Linux or Android kernel."""
        inputs = [
            *self._runtime(self._zig_cc(), [*RUNNER_SOURCES, *NO_DEVICE_SOURCES]),
            *objects,
            libc_archive(self.target.arch, self.progress),
        ]
        flags = [
            "-z",
            "max-page-size=65536",
            "-z",
            "stack-size=1048576",
        ]  # of every thread: musl's own default is 128 KiB
        self._lld("-static", *flags, "--gc-sections", "--strip-all", *map(str, inputs), "-o", str(output))

    def link_gpu_runner(self, objects: Sequence[Path], output: Path) -> bool:
        """A runner that uses the GPU, from the model's objects (model, kernels, programs for GPUs): dynamic, for only
        such a program can open a driver. False for Android without an NDK, whose start of a program zig has not."""
        compiler = [*zig(), "cc", "-target", self.target.zig]
        if self.target.is_android:
            if (ndk := self._ndk_clang()) is None:
                return False
            compiler = ndk
        inputs = [*self._runtime(compiler, [*RUNNER_SOURCES, *DEVICE_SOURCES]), *objects]
        flags = ["-pie", "-Wl,-z,max-page-size=65536", "-s"]
        libraries = ["-ldl", "-lm", *(["-lpthread"] * (not self.target.is_android))]
        run_tool([*compiler, *flags, *map(str, inputs), *libraries, "-o", str(output)])
        return True

    def _lld(self, *arguments: str) -> None:
        emulation = {"x86_64": "elf_x86_64", "aarch64": "aarch64linux"}[self.target.arch]
        errata = ["--fix-cortex-a53-843419"] if self.target.arch == "aarch64" else []
        run_tool([*zig(), "ld.lld", "-m", emulation, *errata, *arguments])

    def _zig_cc(self) -> list[str]:
        return [*zig(), "cc", "-target", f"{self.target.arch}-linux-musl"]

    def _ndk_clang(self) -> list[str] | None:
        """The NDK's compiler for an Android target, if ``ANDROID_NDK_HOME`` is set."""
        home = os.environ.get("ANDROID_NDK_HOME")
        if not home or not self.target.is_android:
            return None
        name = f"{self.target.arch}-linux-android{ANDROID_API}-clang"
        found = sorted(Path(home).glob(f"toolchains/llvm/prebuilt/*/bin/{name}"))
        if not found:
            raise PccError(
                f"ANDROID_NDK_HOME={home} has no toolchains/llvm/prebuilt/*/bin/{name}: point it to an NDK, or unset "
                "it to use zig"
            )
        return [str(found[0])]

    def _runtime(self, compiler: list[str], sources: Sequence[str]) -> list[Path]:
        """Objects of the runtime's sources, compiled once for each compiler and version of the sources."""
        digest = hashlib.sha256(repr((compiler[-1], version("ziglang"), C_FLAGS)).encode())
        for file in sorted(RUNTIME.glob("*.[ch]")):
            digest.update(file.read_bytes())
        folder = cache_root() / "runtime" / digest.hexdigest()[:24]
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            self.progress(f"compiling the runtime for {self.target.name} (once)")
        objects = [(folder / source).with_suffix(".o") for source in sources]
        for source, compiled in zip(sources, objects, strict=True):
            if not compiled.exists():
                self._compile(compiler, RUNTIME / source, compiled)
        return objects

    def _version_script(self) -> Path:
        """What a library exports: the functions of pcc.h, and each as `own_name` has it."""
        functions = [name for function in declarations() for name in (function, f"*_{function}")]
        text = f"{{\n  global: {'; '.join(functions)};\n  local: *;\n}};\n"
        path = cache_root() / "runtime" / f"exports-{hashlib.sha256(text.encode()).hexdigest()[:12]}.map"
        if not path.exists():
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text(text)
            partial.replace(path)
        return path

    def _stub(self, soname: str, symbols: Sequence[str]) -> Path:
        """A library with a system library's name and the symbols we use: what to link against, never what is
        loaded. Android's names have no version."""
        if self.target.is_android:
            soname = re.sub(r"[.]so[.]\d+$", ".so", soname)
        folder = (
            cache_root()
            / "runtime"
            / f"stub-{self.target.arch}-{hashlib.sha256(repr(symbols).encode()).hexdigest()[:12]}"
        )
        if (folder / soname).exists():
            return folder / soname
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            source, compiled, stub = (Path(scratch) / file for file in ("stub.c", "stub.o", soname))
            source.write_text("".join(f"void {symbol}(void) {{}}\n" for symbol in symbols))
            run_tool(
                [
                    *self._zig_cc(),
                    "-w",
                    "-fPIC",
                    "-ffreestanding",
                    "-fno-builtin",
                    "-c",
                    str(source),
                    "-o",
                    str(compiled),
                ]
            )
            self._lld("-shared", "-soname", soname, str(compiled), "-o", str(stub))
            stub.replace(folder / soname)
        return folder / soname

    def _compile(self, compiler: list[str], source: Path, output: Path) -> None:
        arch_flags = ["-mno-outline-atomics"] if self.target.arch == "aarch64" else []
        partial = output.with_suffix(f".{os.getpid()}.o")
        run_tool([*compiler, *C_FLAGS, *arch_flags, f"-I{RUNTIME}", "-c", str(source), "-o", str(partial)])
        partial.replace(output)

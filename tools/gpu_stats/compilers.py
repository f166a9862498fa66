"""Runs Mesa's OpenCL compilers without a GPU: a library in front of the kernel's interface stands for the card.

The packages come by ``mesa-packages`` into pcc's cache at the first use: 470 MB for Adreno, 550 MB for Mali. A start of
Adreno's takes seconds; Mali's runs under QEMU, where the first takes a minute, which the cache keeps.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pcc.cache import cache_root
from pcc.errors import PccError
from pcc.scratch import scratch_folder
from tools.gpu_stats import adreno, mali
from tools.gpu_stats.stats import KernelStats

_FOLDER = Path(__file__).parent
_SECONDS = 3600
_NOTHING = "kernel void nothing(global int* x) { x[0] = 0; }\n"


@dataclass(frozen=True)
class Family:
    """GPUs that one of Mesa's compilers serves."""

    name: str
    arch: str
    """Of the packages' programs."""
    glibc: str
    driver: str
    variables: Mapping[str, str]
    parse: Callable[[str], KernelStats | None]

    @property
    def folder(self) -> Path:
        return cache_root() / "mesa" / self.name

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def install(self) -> None:
        """Unpacks the packages and builds the program that asks the driver, where that is not done yet."""
        if (self.folder / "build_programs").exists():
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(self.folder.parent) as scratch:
            fresh = scratch / self.name
            made = subprocess.run([_FOLDER / "mesa-packages", self.name, fresh], capture_output=True, text=True)
            if made.returncode:
                raise PccError(f"Mesa's packages for {self.name} cannot be had: {made.stderr.strip()[-300:]}")
            compiler = [sys.executable, "-m", "ziglang", "cc", "-target", f"{self.arch}-linux-gnu.{self.glibc}", "-O1"]
            includes = f"-I{fresh}/root/usr/include"
            program = fresh / "build_programs"
            subprocess.run([*compiler, "-w", includes, _FOLDER / "build_programs.c", "-o", program, "-ldl"], check=True)
            shutil.copy(program, fresh / "root" / "build_programs")
            for name in ("dev", "proc", "sys", "tmp"):
                (fresh / "root" / name).mkdir(exist_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
            fresh.rename(self.folder)


ADRENO = Family("adreno", "x86_64", "2.31", "freedreno", {"IR3_SHADER_DEBUG": "cs,disasm"}, adreno.parse)
MALI = Family(
    "mali",
    "aarch64",
    "2.36",
    "panfrost",
    {"BIFROST_MESA_DEBUG": "shaders,shaderdb", "RUSTICL_FEATURES": "fp16"},
    mali.parse,
)


@dataclass(frozen=True)
class Gpu:
    """A GPU that kernels are compiled for."""

    family: Family
    id: str
    profile: str
    """What stands for it in `pcc.codegen.opencl.profiles`."""

    def compile(self, texts: Mapping[str, str], options: str = "") -> dict[str, KernelStats]:
        """What the compiler says of programs of one kernel each, by their names. `PccError` for one that does not
        compile."""
        self.family.install()
        kept = self.family.folder / "cache" / self.id
        if not kept.exists():
            self._run({"nothing": _NOTHING}, "", None, kept)
        output = self._run(texts, options, kept, None)
        parts = re.split(r"^=== (?:program .*/(.*)\.cl|end)$", output, flags=re.MULTILINE)
        found: dict[str, KernelStats] = {}
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            if name is None:
                continue
            stats = self.family.parse(text)
            if stats is None:
                said = text[text.find("build error") :].strip()[:300] if "build error" in text else text.strip()[-300:]
                raise PccError(f"{name} does not compile for {self.family.name} {self.id}: {said}")
            found[name] = stats
        if missing := sorted(texts.keys() - found.keys()):
            raise PccError(f"the compiler for {self.family.name} {self.id} ended at {missing[0]}: {output[-300:]}")
        return found

    def _run(self, texts: Mapping[str, str], options: str, begin: Path | None, end: Path | None) -> str:
        """The compiler's output. Its cache keeps the translated library of built-in functions, and kernels: it begins
        with a copy of a folder, so that kernels are compiled, and printed, every time, and is left in another."""
        with scratch_folder(self.family.root / "tmp") as scratch:
            if begin:
                shutil.copytree(begin, scratch / "cache")
            for name, text in texts.items():
                (scratch / f"{name}.cl").write_text(text)
            output = self._build(scratch, [f"{name}.cl {options}" for name in texts])
            if end:
                end.parent.mkdir(exist_ok=True)
                shutil.copytree(scratch / "cache", end)
            return output

    def _build(self, scratch: Path, jobs: list[str]) -> str:
        root, shim = self.family.root, f"lib{self.family.driver}_noop_drm_shim.so"
        libraries = f"/usr/lib/{self.family.arch}-linux-gnu"
        is_native = platform.machine() == self.family.arch
        top = "" if is_native else str(root)
        inside = f"{top}/{scratch.relative_to(root)}"
        environment = {
            **os.environ,
            **self.family.variables,
            "HOME": inside,
            "RUSTICL_ENABLE": self.family.driver,
            "OCL_ICD_VENDORS": f"{top}/etc/OpenCL/vendors/rusticl.icd",
            "MESA_SHADER_CACHE_DIR": f"{inside}/cache",
        }
        if is_native:
            # Mesa looks for the library of built-in functions at a path from the root, and for cards in /dev.
            mounts = f"for d in dev sys proc; do mount --rbind /$d {root}/$d; done"
            namespace = ["unshare", *([] if os.getuid() == 0 else ["-r"]), "-m"]
            loader = f"/lib64/ld-linux-x86-64.so.2 --preload {libraries}/{shim} /build_programs"
            command = [*namespace, "sh", "-c", f"{mounts}; exec chroot {root} {loader}"]
            environment["FD_GPU_ID"] = self.id
        else:
            passed = {"LD_LIBRARY_PATH": libraries, "LD_PRELOAD": f"{libraries}/{shim}", "PAN_GPU_ID": self.id}
            options = [part for key, value in passed.items() for part in ("-E", f"{key}={value}")]
            command = [f"qemu-{self.family.arch}", "-L", str(root), *options, str(root / "build_programs")]
        lines = "".join(f"{inside}/{job}\n" for job in jobs)
        done = subprocess.run(
            command,
            input=lines,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_SECONDS,
        )
        return done.stdout


GPUS: dict[str, Gpu] = {
    "adreno-630": Gpu(ADRENO, "630", "adreno-6xx"),
    "adreno-730": Gpu(ADRENO, "730", "adreno-7xx"),
    "mali-g57": Gpu(MALI, "9093", "mali-g5x"),
    "mali-g610": Gpu(MALI, "a867", "mali-g6x"),
}

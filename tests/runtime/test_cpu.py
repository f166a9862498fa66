"""What the runtime says of instruction sets: those that kernels are made for are known, and any other is refused by its
name."""

import subprocess
from pathlib import Path

import pytest

from pcc.codegen.isa import ISAS
from pcc.package.toolchain import RUNTIME, run_tool, zig
from pcc.target import ARM_CPUS, TARGETS
from tests.arm64 import arm64

SOURCE = """#include "cpu.h"
#include <stdio.h>
int main(int count, char **names) {
  for (int i = 1; i < count; i++) {
    const char *lacks = pcc_cpu_lacks(names[i]);
    puts(lacks ? lacks : "nothing");
  }
  return 0;
}
"""


def _lacks(folder: Path, arch: str, names: list[str], start: list[str]) -> list[str]:
    (folder / "ask.c").write_text(SOURCE)
    program = folder / f"ask-{arch}"
    run_tool(
        [
            *zig(),
            "cc",
            "-target",
            f"{arch}-linux-musl",
            "-O2",
            "-static",
            "-s",
            f"-I{RUNTIME}",
            str(RUNTIME / "cpu.c"),
            str(folder / "ask.c"),
            "-o",
            str(program),
        ]
    )
    return subprocess.run(
        [*start, str(program), *names], capture_output=True, text=True, check=True
    ).stdout.splitlines()


UNKNOWN = ["sve2", "avx10", "avx", "avx2 ", "AVX2", "none"]


def test_x86(tmp_path: Path) -> None:
    known = [name for name in ISAS if name.startswith("avx")]
    answers = _lacks(tmp_path, "x86_64", [*UNKNOWN, "neon", *known], [])
    assert answers[: len(UNKNOWN) + 1] == [*UNKNOWN, "neon"]
    assert not set(answers[len(UNKNOWN) + 1 :]) & set(known), (
        "an instruction set of pcc.codegen.isa that cpu.c does not know"
    )
    assert {target.isa for target in TARGETS.values() if target.arch == "x86_64"} <= set(known)


@arm64
@pytest.mark.parametrize(
    ("cpu", "fp16"), [("cortex-a53", "arithmetic in fp16 (asimdhp)"), ("cortex-a76", "nothing"), ("max", "nothing")]
)
def test_arm64(cpu: str, fp16: str, tmp_path: Path) -> None:
    assert (
        {target.isa for target in TARGETS.values() if target.arch == "aarch64"}
        <= {"neon", *ARM_CPUS.values()}
        == {"neon", "neon-fp16"}
    )
    answers = _lacks(tmp_path, "aarch64", ["neon", "neon-fp16", "avx2", *UNKNOWN], ["qemu-aarch64", "-cpu", cpu])
    assert answers == ["nothing", fp16, "avx2", *UNKNOWN]

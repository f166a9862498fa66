"""An arm64 computer emulated by QEMU's user mode: right numbers and right instructions, but no times worth reading."""

import shutil
from pathlib import Path

from pcc.deploy.device import Device
from pcc.errors import PccError
from pcc.package.manifest import TargetRecord
from pcc.package.read import Package

LINUX, ANDROID = "aarch64-linux", "aarch64-android"
"""The first of them that a package has is what it runs; of Android the static runner alone, which needs no Android."""

SYSROOT = Path("/usr/aarch64-linux-gnu")
"""Where Debian puts the arm64 C library, which dynamic programs need (the runner is static)."""

RESERVED = ("-R", "0x1000000000")
"""With pages larger than the host's, QEMU places a mapping it finds no room for at the bottom of memory, now and then;
the C library's next hint then lies below zero, which Linux ignores and QEMU refuses ("no memory", 1 run in 100). With
64 GiB of addresses reserved it always finds room."""


class Qemu(Device):
    """``cpu`` is a processor that QEMU knows (``cortex-a53``, ``cortex-a76``, ``max``): code with instructions it lacks
    dies there as on the real one.

    ``page_size`` in bytes makes the emulated kernel's pages larger than 4 KiB: a library that is not aligned for them
    does not load.
    """

    def __init__(self, cpu: str = "max", page_size: int | None = None, target: str = LINUX) -> None:
        self.name = f"qemu ({cpu})"
        self.target = target
        self._cpu, self._page_size = cpu, page_size

    def record(self, package: Package) -> TargetRecord:
        names = [target.name for target in package.manifest.targets]
        is_for_android = self.target == LINUX and LINUX not in names and ANDROID in names
        record = package.target(ANDROID if is_for_android else self.target)
        if record.name != ANDROID or record.gpu is None:
            return record
        return record.model_copy(update={"gpu": record.gpu.model_copy(update={"runner": None})})

    def named(self, package: Package) -> str:
        record = self.record(package)
        return self.name if record.name == LINUX else f"{self.name}, {record.name}"

    def command(self, program: Path) -> list[str]:
        missing = self.missing()
        if missing:
            raise PccError(missing)
        pages = ["-p", str(self._page_size), *RESERVED] if self._page_size else []
        return ["qemu-aarch64", "-cpu", self._cpu, *pages, "-L", str(SYSROOT), str(program)]

    @staticmethod
    def missing() -> str | None:
        """What is needed and not installed, as a line for people; None if all is there."""
        lacks = [
            name
            for name, there in (("qemu-aarch64", shutil.which("qemu-aarch64")), (str(SYSROOT), SYSROOT.is_dir()))
            if not there
        ]
        if not lacks:
            return None
        return (
            f"{' and '.join(lacks)} not found: install qemu-user and libc6-arm64-cross (apt-get install qemu-user "
            "libc6-arm64-cross)"
        )

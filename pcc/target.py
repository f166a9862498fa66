"""What we compile for: processor, ABI and instruction set, as named presets."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pcc.errors import PccError


@dataclass(frozen=True)
class Gpu:
    """A GPU beside the processor, whichever the device has."""

    interface: str
    """How it is programmed: ``opencl``."""
    profiles: tuple[str, ...] = ("generic",)
    """Families of GPUs, each with a program of its own; at run time the device's name chooses."""
    on_cpu: tuple[str, ...] | None = None
    """Layers that the programs leave to the processor, by names or globs, or ``none``; if None, costs choose."""

    def __str__(self) -> str:
        return f"{self.interface}:{','.join(self.profiles)}"


@dataclass(frozen=True)
class Target:
    """One ABI with one instruction set, and possibly a GPU. ``triple`` is LLVM's, ``zig`` the linker's name of the same
    thing."""

    name: str
    triple: str
    zig: str
    isa: str
    cpu: str
    """LLVM's processor name: what instructions may be used and how they are scheduled; or `GENERIC`."""
    shares_library: bool = field(default=False, repr=False)
    """Whether it is one of the `levels` of another target, whose library holds all."""
    gpu: Gpu | None = field(default=None, repr=False)
    """What its library has code for besides."""

    @property
    def is_android(self) -> bool:
        return self.name.endswith("android")

    @property
    def arch(self) -> str:
        return self.name.split("-")[0]

    @property
    def folder(self) -> str:
        """Where texts about it go: one of several levels has a folder of its own."""
        return f"{self.name}/{self.isa}" if self.shares_library else self.name

    @property
    def levels(self) -> "tuple[Target, ...]":
        """The targets that one library is compiled for, best first: it runs the first whose instructions the processor
        has. Itself, unless it is `GENERIC`."""
        if self.cpu != GENERIC:
            return (self,)
        cpus = GENERIC_CPUS[self.arch]
        levels = (target_named(self.name, cpu) for cpu in cpus)
        return tuple(replace(level, shares_library=len(cpus) > 1, gpu=self.gpu) for level in levels)


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("x86_64-linux", "x86_64-unknown-linux-gnu", "x86_64-linux-gnu.2.17", isa="avx2", cpu="x86-64-v3"),
        Target("aarch64-linux", "aarch64-unknown-linux-gnu", "aarch64-linux-gnu.2.17", isa="neon", cpu="cortex-a53"),
        Target("aarch64-android", "aarch64-linux-android24", "aarch64-linux-musl", isa="neon", cpu="cortex-a53"),
    )
}

X86_CPUS: dict[str, str] = {
    "x86-64-v3": "avx2",
    "haswell": "avx2",
    "znver3": "avx2",
    "x86-64-v4": "avx512",
    "skylake-avx512": "avx512",
    "znver4": "avx512",
    "znver5": "avx512",
}
ARM_CPUS: dict[str, str] = {
    **dict.fromkeys(("cortex-a53", "cortex-a57", "cortex-a72", "cortex-a73"), "neon"),
    **dict.fromkeys(
        ("cortex-a55", "cortex-a75", "cortex-a76", "cortex-a77", "cortex-a78", "cortex-x1", "neoverse-n1"), "neon-fp16"
    ),
}


GENERIC = "generic"
"""The processor that is any: one library has code for several instruction sets."""
GENERIC_CPUS: dict[str, tuple[str, ...]] = {
    "x86_64": ("x86-64-v4", "x86-64-v3"),
    "aarch64": ("cortex-a76", "cortex-a53"),
}
"""The processors that stand for them, best first; the last is what every processor that pcc compiles for has."""


def host_fields() -> dict[str, str]:
    """What /proc/cpuinfo says of the processor we run on; empty where there is none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return cpu_fields(file.read())
    except OSError:
        return {}


def host_cpu() -> str:
    """The best processor name we know for this x86-64 machine."""
    fields = host_fields()
    maker, family = fields.get("vendor_id"), fields.get("cpu family")
    has_avx512 = {"avx512f", "avx512vl", "avx512dq", "avx512bw"} <= set(fields.get("flags", "").split())
    if maker == "AuthenticAMD" and family == "25":  # Zen 3 and Zen 4: only the latter has AVX-512
        return "znver4" if has_avx512 else "znver3"
    if maker == "AuthenticAMD" and family == "26" and has_avx512:
        return "znver5"
    return "x86-64-v4" if has_avx512 else "x86-64-v3"


def cpu_fields(cpuinfo: str) -> dict[str, str]:
    """What /proc/cpuinfo says of the first processor."""
    return {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in cpuinfo.split("\n\n")[0].splitlines())
    }


def processor_name(fields: Mapping[str, str]) -> str:
    """What a processor is called, by its fields. Virtual machines hide the name's number: family and model say it."""
    name = (
        fields.get("model name")
        or f"Arm implementer {fields.get('CPU implementer', '?')} part {fields.get('CPU part', '?')}"
    )
    return f"{name}, family {fields['cpu family']} model {fields['model']}" if "cpu family" in fields else name


def host_processor() -> str:
    """The name of the processor that we run on."""
    fields = host_fields()
    return processor_name(fields) if fields else platform.machine()


def executes_here(target: Target) -> bool:
    """Whether code for the target runs on this computer as it is."""
    if platform.system() != "Linux" or target.is_android or platform.machine().lower() != target.arch:
        return False
    return target.isa != "avx512" or X86_CPUS[host_cpu()] == "avx512"


def host_target() -> Target:
    """This computer as a target, with the best processor name we know for it; `PccError` where pcc makes no libraries
    for it."""
    machine, aliases = platform.machine().lower(), {"arm64": "aarch64", "amd64": "x86_64"}
    name = f"{aliases.get(machine, machine)}-{platform.system().lower()}"
    if name not in ("x86_64-linux", "aarch64-linux"):
        raise PccError(f"pcc makes no libraries for this computer ({name}), only for x86_64-linux and aarch64-linux")
    return target_named(name, "native" if name == "x86_64-linux" else None)


def target_named(name: str, cpu: str | None = None) -> Target:
    """The preset of that name, for a processor. On x86-64 ``cpu`` also picks AVX2 or AVX-512; ``native`` asks this
    machine.

    Raises `PccError` for names that are not known.
    """
    if name not in TARGETS:
        raise PccError(f"unknown target '{name}': choose one of {', '.join(TARGETS)}")
    target = TARGETS[name]
    if cpu is None:
        return target
    if cpu == GENERIC:
        return replace(target, cpu=GENERIC)
    if target.arch == "x86_64":
        cpu = host_cpu() if cpu == "native" else cpu
        if cpu in X86_CPUS:
            return replace(target, cpu=cpu, isa=X86_CPUS[cpu])
        raise PccError(f"unknown cpu '{cpu}' for {name}: choose native, generic or one of {', '.join(X86_CPUS)}")
    if cpu in ARM_CPUS:
        return replace(target, cpu=cpu, isa=ARM_CPUS[cpu])
    raise PccError(f"unknown cpu '{cpu}' for {name}: choose generic or one of {', '.join(ARM_CPUS)}")

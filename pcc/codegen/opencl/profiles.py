"""Phone GPUs as cost models see them: data, a row a family of GPUs.

There is no phone to time on. A profile's costs come from what Mesa's compilers say of pcc's kernels: how many issue
slots a multiply-add, a memory operation, a step of a loop and a stored number take. Adreno's are fitted (`python -m
tools.gpu_stats.costs`), Mali's read by hand. What a memory operation costs beside that, because it waits or because
bandwidth is short, no compiler says: `memory_weight` is an assumption.
"""

from dataclasses import dataclass, replace
from operator import add, mul
from typing import ClassVar

from pcc.dtype import FLOAT16, FLOAT32, DType


@dataclass(frozen=True)
class DeviceWork:
    """Counts of what all work-items together execute, or the slots that each of them takes."""

    mads: float = 0.0
    """Multiply-adds of numbers."""
    memory: float = 0.0
    """Loads and stores of up to four numbers."""
    steps: float = 0.0
    """Turns of inner loops."""
    loops: float = 0.0
    """Inner loops, whether they turn or not."""
    outputs: float = 0.0
    """Numbers that are begun, finished and stored."""
    items: float = 0.0
    adds: float = 0.0
    """Other arithmetic on numbers: transforms."""

    def __add__(self, other: "DeviceWork") -> "DeviceWork":
        return DeviceWork(*map(add, vars(self).values(), vars(other).values()))

    def __mul__(self, times: float) -> "DeviceWork":
        return DeviceWork(*[value * times for value in vars(self).values()])


@dataclass(frozen=True)
class GpuProfile:
    """A family of GPUs."""

    name: str
    devices: tuple[str, ...]
    """Parts of the names that devices of the family report, in lower case."""
    wave: int
    """Work-items that run in step."""
    numbers: int
    """Numbers of 32 bits that a work-item may keep as sums: more of them, with what else it needs, spill or leave too
    few waves."""
    slots: DeviceWork
    """What one of each takes."""
    memory_weight: float
    """Slots that a memory operation counts besides."""
    origin: str
    lanes: int
    """Items that execute a slot at once. This and ``clock`` are *assumed*, of the order of what public tables say of a
    device of the family: only the choice between the GPU and its processor goes by them."""
    clock: float
    """Hertz."""
    computes_fp16: bool = True
    """Whether it has fp16 arithmetic, not only fp16 in memory."""
    sinks_weights: bool = False
    """Whether convolutions load weights where they are used: for compilers that keep the order of a kernel's text, as
    Mali's does, where all weights at once would spill. Adreno's orders loads by itself."""
    sums: DType = FLOAT32
    """What layers of fp16 are to add up in."""

    backend: ClassVar[str] = "opencl"

    def computes_in(self, dtype: DType) -> bool:
        """Whether tensors of a type may be computed with: those of fp16 as fp32 at least."""
        return dtype in (FLOAT32, FLOAT16)

    def with_sums(self, dtype: DType) -> "GpuProfile":
        return replace(self, sums=dtype)

    def arithmetic(self, dtype: DType) -> DType:
        """What layers of a type compute in: fp32, but for fp16 where that is wanted and the device has it."""
        return self.sums if dtype == FLOAT16 and self.computes_fp16 else FLOAT32

    def slots_of(self, work: DeviceWork) -> float:
        """Issue slots."""
        return sum(map(mul, vars(work).values(), vars(self.slots).values()))

    def cycles(self, work: DeviceWork) -> float:
        """Slots, with what memory operations count besides: what choices go by."""
        return self.slots_of(work) + self.memory_weight * work.memory


_ADRENO = DeviceWork(mads=1.08, memory=1.7, steps=19.0, loops=26.0, outputs=5.0, items=18.0, adds=1.1)
_MALI = DeviceWork(mads=1.0, memory=8.0, steps=12.0, loops=8.0, outputs=4.0, items=60.0, adds=1.0)

_LIMITS = {"adreno": (64, 128, 8.0), "mali": (16, 16, 16.0)}
"""Wave, numbers of 32 bits as sums, weight of a memory operation. Adreno's work-items have 192 registers, of which 128
sums leave enough where nothing else takes many (`pcc.codegen.opencl.families.conv_sparse`). Mali's threads have 64, and
addresses of 64 bits take many of them: 16 fp32 sums are the most that does not spill (32 in fp16)."""


_LANES = {
    "adreno-6xx": (512, 0.7e9),
    "adreno-7xx": (1024, 0.8e9),
    "mali-g5x": (96, 0.9e9),
    "mali-g6x": (256, 0.9e9),
    "mali-g7x": (640, 0.8e9),
    "generic": (128, 0.8e9),
}


def _profile(name: str, devices: tuple[str, ...], slots: DeviceWork, origin: str) -> GpuProfile:
    is_adreno = name.startswith("adreno")
    wave, numbers, weight = _LIMITS["adreno" if is_adreno else "mali"]
    return GpuProfile(
        name,
        devices,
        wave,
        numbers,
        slots,
        weight,
        origin,
        *_LANES[name],
        computes_fp16=name != "generic",
        sinks_weights=not is_adreno,
    )


PROFILES: dict[str, GpuProfile] = {
    profile.name: profile
    for profile in (
        _profile("adreno-6xx", ("adreno (tm) 6", "adreno(tm) 6", "fd6"), _ADRENO, "Mesa's compiler for Adreno 630"),
        _profile("adreno-7xx", ("adreno (tm) 7", "adreno(tm) 7", "fd7"), _ADRENO, "Mesa's compiler for Adreno 730"),
        _profile("mali-g5x", ("mali-g5",), _MALI, "Mesa's compiler for Mali G57"),
        _profile("mali-g6x", ("mali-g6",), _MALI, "Mesa's compiler for Mali G610"),
        _profile("mali-g7x", ("mali-g7",), _MALI, "those of mali-g6x: Mesa has one model for Valhall"),
        _profile("generic", (), _ADRENO, "those of adreno-6xx, with Mali's limits: for a GPU that none knows"),
    )
}

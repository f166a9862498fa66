"""What a processor's time goes into: the currency in which kernel families price their schedules.

A family counts what a schedule executes (`Work`); a processor's profile (`Machine`) says what each kind costs. So a new
family needs no new numbers for every processor, and a new processor is one row. Sums of parts are a simple model: what
overlaps in the machine is in the coefficients, which `pcc tune --calibrate` fits to measured layers (`pcc.tune`); what
it finds for a user's processor is a file (`pcc.codegen.machine_profile`).
"""

from dataclasses import dataclass, replace
from operator import add, mul
from typing import ClassVar

from pcc.codegen.isa import Isa, isa_named
from pcc.codegen.program import View
from pcc.dtype import DType
from pcc.target import Target

FORESEEN = 0.5
"""What vectors from behind the L2 cache cost, or on their way there, that are asked for ahead or follow each other, so
that the processor itself asks: part of their time goes by beside other work. (Timed in dense and sparse 1x1
convolutions that write 3 to 5 MB, and where weights are 3 to 25 MB.)"""


@dataclass(frozen=True)
class Work:
    """Counts of what is executed, or what one of each costs. Vectors are of the instruction set's width."""

    fma: float = 0.0
    """Vector multiply-adds; where too few are independent, the ones that would fit in between."""
    loads: float = 0.0
    """Aligned vectors from the L1 cache."""
    crossing: float = 0.0
    """Vectors at any address: many cross a cache line."""
    far: float = 0.0
    """Those of either kind that come from the L2 cache, counted once more."""
    scattered: float = 0.0
    """The same where they do not follow each other: the processor does not ask for them ahead."""
    beyond: float = 0.0
    """Vectors' worth of tensors too large for the L2 cache that come from behind it, or go there."""
    updates: float = 0.0
    """Accumulators taken from the L1 cache and put back: each waits for the one before it."""
    stores: float = 0.0
    scalars: float = 0.0
    """Weights spread over a vector, and entries of tables."""
    branches: float = 0.0
    """Ends of inner loops."""
    lines: float = 0.0
    """Vectors transposed between rows of memory and lanes."""
    kept: float = 0.0
    """Vectors stored in the L1 cache, from where they are soon taken again."""
    lists: float = 0.0
    """Lists of entries: what it takes to begin and end them."""
    unforeseen: float = 0.0
    """Ends of lists of any length: what follows starts late, for the processor did not foresee the end. 0 where costs
    are counts."""

    def __add__(self, other: "Work") -> "Work":
        return Work(*map(add, vars(self).values(), vars(other).values()))

    def __mul__(self, count: float) -> "Work":
        return Work(*[value * count for value in vars(self).values()])


@dataclass(frozen=True)
class Machine:
    """A processor as cost models see it."""

    name: str
    isa: Isa
    l1_bytes: int
    l2_bytes: int
    fma_in_flight: int
    """Independent multiply-adds that keep the units busy: their number times their latency."""
    costs: Work
    """What one of each takes, in cycles (in executed instructions where ``origin`` says so: only ratios matter)."""
    origin: str
    """Where the costs come from."""
    fma_cycles: float = 0.0
    """What a vector multiply-add takes where nothing but the units limits: no inner loop costs less. 0 where costs are
    counts."""
    loads_ahead: int = 0
    """Registers that loads need which start long before their use: on cores that execute in order."""
    multiply_add_weight: float = 1.0
    """What a vector multiply-add counts beside other instructions, where costs are counted: more on cores with one unit
    for it, less on those with four."""
    load_pair_reach: int = 0
    """Bytes behind an address in which one instruction loads two vectors that follow each other; 0 on cores where that
    is no faster than two."""
    llvm_features: tuple[str, ...] = ()
    """What LLVM is told about the core, beside its name."""
    llvm_cpu: str = ""
    """The name itself, if another than the target's makes faster code."""

    backend: ClassVar[str] = "llvm"

    def computes_in(self, dtype: DType) -> bool:
        return self.isa.computes_in(dtype)

    def with_sums(self, dtype: DType) -> "Machine":
        """Itself: a CPU leaves no choice."""
        return self

    def beyond(self, *tensors: View | None, asked: bool = False) -> Work:
        """Each tensor read, or written, once; ``asked``: its cache lines are asked for ahead."""
        sizes = [tensor.nbytes for tensor in tensors if tensor is not None]
        return Work(
            beyond=(FORESEEN if asked else 1)
            * sum(size for size in sizes if size > self.l2_bytes)
            / self.isa.vector_bytes
        )

    def foreseen(self, nbytes: float) -> Work:
        """Weights, or what a thread keeps, that are read in order, again and again: what the L2 cache does not hold of
        them comes from behind it."""
        return Work(beyond=FORESEEN * max(nbytes - self.l2_bytes, 0) / self.isa.vector_bytes)

    def cycles(self, work: Work) -> float:
        return sum(map(mul, vars(work).values(), vars(self.costs).values()))

    def loop(self, step: Work) -> Work:
        """A step of an inner loop; where its multiply-adds alone take longer than the sum of all says, more of it,
        until it is as long."""
        least, cycles = step.fma * self.fma_cycles, self.cycles(step)
        return step * (least / cycles) if 0 < cycles < least else step


_KIB = 1 << 10

_AVX512 = Work(
    fma=0.14,
    loads=1.03,
    crossing=2.03,
    far=0.199,
    scattered=0.199,
    beyond=9.9,
    updates=1.25,
    stores=3.7,
    scalars=0.389,
    branches=0.13,
    lines=6.17,
    kept=1.0,
    lists=2.0,
    unforeseen=3.0,
)
_AVX512_FMA = 0.53
_TIMED = "timed on an Intel Xeon of family 6, model 207 (pcc tune --calibrate)"
_ZEN5 = Work(
    fma=0.119,
    loads=0.49,
    crossing=0.99,
    far=0.0696,
    scattered=0.0696,
    beyond=0.812,
    updates=0.781,
    stores=0.724,
    scalars=0.253,
    branches=0.105,
    lines=4.51,
    kept=1.11,
    lists=1.94,
    unforeseen=5.75,
)
_AVX2 = Work(
    fma=0.079,
    loads=0.70,
    crossing=1.12,
    far=0.25,
    scattered=0.25,
    beyond=6.5,
    updates=1.18,
    stores=1.93,
    scalars=0.60,
    branches=0.0,
    lines=0.0,
    kept=0.9,
    lists=2.0,
    unforeseen=3.0,
)
_ZEN3 = Work(
    fma=0.124,
    loads=0.589,
    crossing=1.28,
    far=0.103,
    scattered=0.384,
    beyond=1.38,
    updates=1.1,
    stores=1.2,
    scalars=0.606,
    branches=0.0,
    lines=0.0,
    kept=0.969,
    lists=1.97,
    unforeseen=3.61,
)
_NEON = Work(
    fma=0.9,
    loads=0.77,
    crossing=0.89,
    far=0.0,
    updates=1.4,
    stores=0.63,
    scalars=1.54,
    branches=1.88,
    lines=8.8,
    kept=0.63,
    lists=15.04,
)
_COUNTED = "instructions executed under QEMU (pcc tune --calibrate --cpu cortex-a76)"
_IN_ORDER = f"{_COUNTED}; multiply-adds weigh more, there is one unit"

_LDP_REACH = 1024
_ONE_LOAD_AT_A_TIME = ("+slow-paired-128",)
"""A pair of vectors takes as long as two loads, and no multiply-adds go on beside it: llvm-mca's 1.8 cycles for each
became 0.9."""

_OUT_OF_ORDER = ("+disable-latency-sched-heuristic",)
"""The core finds what can go on by itself. LLVM's scheduler loads early otherwise, for which 28 accumulators leave no
registers; in fp16, where weights must be in the first 16, it then took 1.42 instructions for a multiply-add, and takes
1.25."""

MACHINES: dict[str, Machine] = {
    machine.name: machine
    for machine in (
        Machine(
            "intel-avx512", isa_named("avx512"), 48 * _KIB, 2048 * _KIB, 8, _AVX512, _TIMED, fma_cycles=_AVX512_FMA
        ),
        Machine(
            "zen4",
            isa_named("avx512"),
            32 * _KIB,
            1024 * _KIB,
            8,
            _AVX512,
            "those of intel-avx512, which pcc tune --calibrate did not better on an AMD EPYC of family 25, model 17",
            fma_cycles=0.81,
            llvm_cpu="x86-64-v4",  # as fast as LLVM's znver4
        ),
        Machine(
            "zen5",
            isa_named("avx512"),
            48 * _KIB,
            1024 * _KIB,
            8,
            _ZEN5,
            "timed on an AMD EPYC of family 26, model 2 (pcc tune --calibrate)",
            fma_cycles=0.37,
            llvm_cpu="x86-64-v4",  # MobileNetV2's first layer: 161 us; 181 as LLVM 22 schedules for znver5
        ),
        Machine(
            "avx2",
            isa_named("avx2"),
            32 * _KIB,
            512 * _KIB,
            8,
            _AVX2,
            "timed on the Intel Xeon of intel-avx512 (pcc tune --calibrate --cpu x86-64-v3)",
        ),
        Machine(
            "zen3",
            isa_named("avx2"),
            32 * _KIB,
            512 * _KIB,
            8,
            _ZEN3,
            "timed on an AMD EPYC of family 25, model 1 (pcc tune --calibrate)",
            fma_cycles=0.5,
            llvm_cpu="x86-64-v3",  # as fast as LLVM's znver3, and any processor with AVX2 executes it
        ),
        Machine(
            "cortex-a53",
            isa_named("neon"),
            32 * _KIB,
            512 * _KIB,
            4,
            replace(_NEON, fma=1.5),
            _IN_ORDER,
            loads_ahead=4,
            multiply_add_weight=1.6,
            llvm_features=_ONE_LOAD_AT_A_TIME,
        ),
        Machine(
            "cortex-a55",
            isa_named("neon-fp16"),
            32 * _KIB,
            256 * _KIB,
            4,
            replace(_NEON, fma=1.5),
            _IN_ORDER,
            loads_ahead=4,
            multiply_add_weight=1.6,
            llvm_features=_ONE_LOAD_AT_A_TIME,
        ),
        Machine(
            "cortex-a72",
            isa_named("neon"),
            32 * _KIB,
            512 * _KIB,
            8,
            _NEON,
            _COUNTED,
            load_pair_reach=_LDP_REACH,
            llvm_features=_OUT_OF_ORDER,
        ),
        Machine(
            "cortex-a76",
            isa_named("neon-fp16"),
            64 * _KIB,
            256 * _KIB,
            8,
            _NEON,
            _COUNTED,
            load_pair_reach=_LDP_REACH,
            llvm_features=_OUT_OF_ORDER,
        ),
        Machine(
            "cortex-x1",
            isa_named("neon-fp16"),
            64 * _KIB,
            1024 * _KIB,
            16,
            replace(_NEON, fma=0.6),
            f"{_COUNTED}; multiply-adds weigh less, there are four units",
            multiply_add_weight=0.7,
            load_pair_reach=_LDP_REACH,
            llvm_features=_OUT_OF_ORDER,
        ),
    )
}

_OF_CPU = {
    **dict.fromkeys(("x86-64-v4", "skylake-avx512"), "intel-avx512"),
    "znver4": "zen4",
    "znver5": "zen5",
    **dict.fromkeys(("x86-64-v3", "haswell"), "avx2"),
    "znver3": "zen3",
    "cortex-a53": "cortex-a53",
    "cortex-a55": "cortex-a55",
    **dict.fromkeys(("cortex-a57", "cortex-a72", "cortex-a73"), "cortex-a72"),
    **dict.fromkeys(("cortex-a75", "cortex-a76", "cortex-a77", "cortex-a78", "neoverse-n1"), "cortex-a76"),
    "cortex-x1": "cortex-x1",
}
"""Processors (`pcc.target`) by the profile that stands for them."""


def machine_of(target: Target) -> Machine:
    """pcc's own profile for a target's processor."""
    return MACHINES[_OF_CPU[target.cpu]]


_PER_SECOND = {
    "intel-avx512": 3.0e9,
    "zen4": 4.0e9,
    "zen5": 3.0e9,
    "avx2": 3.0e9,
    "zen3": 3.0e9,
    "cortex-a53": 1.2e9,
    "cortex-a55": 1.5e9,
    "cortex-a72": 3.0e9,
    "cortex-a76": 5.0e9,
    "cortex-x1": 8.0e9,
}


def costs_per_second(target: Target) -> float:
    """How many cycles, or executed instructions where costs are these, a usual processor of a target does in a second
    on one thread: for comparisons with a GPU only."""
    return _PER_SECOND[machine_of(target).name]

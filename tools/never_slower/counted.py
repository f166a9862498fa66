"""Counts what built layers execute on an emulated arm64 processor."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pcc.codegen.program import Program
from pcc.tune.measure import count_program
from tools.bench_peers.ratios import Ratio
from tools.count_arm64.forms import TARGET
from tools.never_slower.built import DENSE, Variant, load_program


def counts(folder: Path, variants: Sequence[Variant]) -> list[Ratio]:
    """How many times more instructions the dense kernel executes than each variant."""
    joined = _joined(
        [load_program(folder, name) for name in dict.fromkeys((DENSE, *(variant.program for variant in variants)))]
    )
    counted = count_program(joined, TARGET)
    gains = [counted[DENSE].total / counted[variant.program].total for variant in variants]
    return [Ratio(median=gain, low=gain, high=gain, pairs=1) for gain in gains]


def _joined(programs: Sequence[Program]) -> Program:
    """One after the other, as one: they run in one emulation. Their buffers have different names, but for equal
    constants."""
    joined, *rest = programs
    for program in rest:
        joined = replace(
            joined,
            inputs=joined.inputs + program.inputs,
            outputs=joined.outputs + program.outputs,
            calls=joined.calls + program.calls,
            preparation=joined.preparation + program.preparation,
            buffers={**joined.buffers, **program.buffers},
            constants={**joined.constants, **program.constants},
        )
    return joined

"""Layers compiled ahead, a folder each: measuring them then takes a machine that is quiet for seconds, not for the
minutes that compilers take."""

import hashlib
import pickle
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from pydantic import BaseModel

from pcc.codegen.kernel import Kernel
from pcc.codegen.kernel_cache import generation
from pcc.codegen.machine import machine_of
from pcc.codegen.objects import compile_kernels
from pcc.codegen.program import Program
from pcc.target import Target
from pcc.tune.layers import Case
from tools.never_slower.points import DENSITIES, choices

DENSE = "dense"
INDEX = "layer.json"


class Variant(BaseModel):
    """What pcc chooses for a layer at a density."""

    density: float
    family: str
    schedule: str
    program: str
    """`DENSE` where that kernel is chosen."""
    modelled: float
    """The gain over the dense kernel that the cost model sees."""
    digest: str = ""
    """Of the machine code and the data of both kernels."""


class BuiltLayer(BaseModel):
    """A layer as the dense kernel computes it, and as chosen for every density."""

    layer: str
    kernel: int
    generation: str
    """Of the sources it was made by."""
    variants: list[Variant]


def build(cases: Sequence[Case], target: Target, root: Path, workers: int) -> None:
    """Chooses for every layer, compiles what is chosen, and saves a folder for each."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        chosen = list(pool.map(partial(_choose, target=target, root=root), cases))
    kernels = {
        kernel.name: kernel for _, _, programs in chosen for _, of_program in programs.values() for kernel in of_program
    }
    print(f"{len(cases)} layers take {len(kernels)} kernels", file=sys.stderr, flush=True)
    objects = {
        compiled.name: compiled.object.read_bytes()
        for compiled in compile_kernels(list(kernels.values()), target, workers)
    }
    for folder, layer, programs in chosen:
        for variant in layer.variants:
            digest = hashlib.sha256()
            for data, of_program in (programs[DENSE], programs[variant.program]):
                digest.update(data)
                for kernel in of_program:
                    digest.update(objects[kernel.name])
            variant.digest = digest.hexdigest()
        (folder / INDEX).write_text(layer.model_dump_json(indent=1), encoding="utf-8")


def load_layers(root: Path) -> list[tuple[Path, BuiltLayer]]:
    """The layers that the present sources have built, each with its folder."""
    found = [
        (path.parent, BuiltLayer.model_validate_json(path.read_text(encoding="utf-8")))
        for path in sorted(root.glob(f"*/{INDEX}"))
    ]
    return [(path, layer) for path, layer in found if layer.generation == generation()]


def load_program(folder: Path, name: str) -> Program:
    return pickle.loads((folder / f"{name}.pickle").read_bytes())


Chosen = tuple[Path, BuiltLayer, dict[str, tuple[bytes, tuple[Kernel, ...]]]]
"""A layer's folder, the layer, and of each program a digest of its calls and constants, and its kernels."""


def _choose(case: Case, target: Target, root: Path) -> Chosen:
    """Chooses for one layer, and saves the programs."""
    folder, machine = root / str(case).replace(" ", "_").replace("/", "s"), machine_of(target)
    folder.mkdir(parents=True, exist_ok=True)
    programs: dict[str, Program] = {}
    layer = BuiltLayer(layer=str(case), kernel=case.kernel, generation=generation(), variants=[])
    for density in DENSITIES:
        dense, chosen = choices(case, density, machine)
        if DENSE not in programs:
            programs[DENSE] = dense.program(case, DENSE, machine.isa)
        name = DENSE if chosen.family.name == dense.family.name else f"kept{density:.2f}"
        if name not in programs:
            programs[name] = chosen.program(case, name, machine.isa)
        gain = machine.cycles(dense.candidate.work) / machine.cycles(chosen.candidate.work)
        schedule = str(chosen.candidate.schedule)
        layer.variants.append(
            Variant(density=density, family=chosen.family.name, schedule=schedule, program=name, modelled=gain)
        )
    for name, program in programs.items():
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(program))
    print(
        f"{case}: "
        f"{', '.join(f'{variant.density:.0%} {variant.family} {variant.modelled:.2f}' for variant in layer.variants)}",
        file=sys.stderr,
        flush=True,
    )
    return folder, layer, {name: (_digest(program), program.kernels) for name, program in programs.items()}


def _digest(program: Program) -> bytes:
    """Changes with the calls or the constants."""
    digest = hashlib.sha256(
        repr([(call.kernel.name, call.args, call.work) for call in (*program.preparation, *program.calls)]).encode()
    )
    for name, values in program.constants.items():
        digest.update(name.encode() + values.tobytes())
    return digest.digest()

"""What the sweep covers: every layer of the zoo that pruning cuts, at densities from 5 to 100 %."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pcc.codegen.family import Candidate, KernelFamily, cheapest, families
from pcc.codegen.isa import Isa
from pcc.codegen.layers import Conv2d
from pcc.codegen.machine import Machine
from pcc.codegen.program import Program, ProgramBuilder
from pcc.models import create, entry, names
from pcc.sparsity import fkw
from pcc.sparsity.formats import DENSE, OWN, format_named
from pcc.tune.layers import PATTERNS, Case, dense_weight, sparse_weight

DENSITIES = (0.05, 0.1, 0.2, 0.3, 4 / 9, 0.6, 0.8, 1.0)
"""Shares of the weights that are kept. 3x3 windows have 8 patterns of 4 taps up to 4/9, and whole connections are cut
above."""


@dataclass(frozen=True)
class Chosen:
    """A family with a schedule of its own for a layer, and the weight in the family's format."""

    family: KernelFamily
    candidate: Candidate
    weight: np.ndarray | fkw.FKW

    def program(self, case: Case, name: str, isa: Isa) -> Program:
        """The layer of that name as a program of its own."""
        b = ProgramBuilder(name, isa)
        self.family.emit(case.layer(b, name, self.weight), self.candidate.schedule, b)
        return b.build()


def zoo_cases() -> list[Case]:
    """The different convolutions of the zoo that pruning cuts: square, padded to keep the size, not depthwise, not the
    first of a network."""
    found: dict[Case, None] = {}
    for name in names():
        with torch.device("meta"):  # sizes are all that matters
            module = create(name, weights=None).eval()
        convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
        for layer, size in _input_sizes(module, convolutions, entry(name).input_shape):
            kernel, stride = layer.kernel_size, layer.stride
            is_square = kernel[0] == kernel[1] and stride[0] == stride[1] and size[0] == size[1]
            is_plain = (
                layer.padding == (kernel[0] // 2, kernel[1] // 2) and layer.dilation == (1, 1) and layer.groups == 1
            )
            if layer is not convolutions[0] and is_square and is_plain:
                found[Case(layer.in_channels, size[0], layer.out_channels, kernel[0], stride[0])] = None
    return list(found)


def _input_sizes(
    module: nn.Module, layers: Sequence[nn.Conv2d], shape: tuple[int, ...]
) -> Iterator[tuple[nn.Conv2d, tuple[int, int]]]:
    """Each layer with the (height, width) of its input."""
    sizes: dict[nn.Conv2d, tuple[int, int]] = {}
    hooks = [
        layer.register_forward_hook(lambda part, inputs, _: sizes.update({part: tuple(inputs[0].shape[2:])}))
        for layer in layers
    ]
    with torch.inference_mode():
        module(torch.zeros(shape, device="meta"))
    for hook in hooks:
        hook.remove()
    return iter(sizes.items())


def choices(case: Case, density: float, machine: Machine) -> tuple[Chosen, Chosen]:
    """(dense, chosen): the cheapest dense kernel, and the one that select-kernels takes of all; they may be one."""
    weight = _weight(case, density)
    weights: dict[str, Any] = {DENSE: weight, **{name: format_named(name).pack(weight, 1, None) for name in OWN}}
    priced: list[tuple[float, Chosen]] = []
    for family in families().values():
        stored = weights[family.format]
        if family.layer is Conv2d and not isinstance(stored, str):
            found = cheapest(family, case.layer(ProgramBuilder("sweep", machine.isa), "conv", stored), machine)
            if not isinstance(found, str):
                priced.append((found[1], Chosen(family, found[0], stored)))
    best = min(priced, key=lambda entry: entry[0])[1]
    return min((entry for entry in priced if entry[1].family.format == DENSE), key=lambda entry: entry[0])[1], best


def _weight(case: Case, density: float) -> np.ndarray:
    """Random weights (O, I, kh, kw) of which this share is kept."""
    of_pattern = PATTERNS.shape[1] / case.kernel**2
    if density == 1:
        return dense_weight(case)
    if case.kernel == 3 and density <= of_pattern:
        return fkw.unpack(sparse_weight(case, PATTERNS, of_pattern / density, 1))
    return fkw.unpack(sparse_weight(case, None, 1 / density, 1))

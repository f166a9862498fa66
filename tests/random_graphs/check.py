"""Runs a drawn network through pcc, as a graph and as machine code, and says where it goes wrong."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from pcc.codegen.lower import lower
from pcc.codegen.machine import machine_of
from pcc.codegen.program import Program
from pcc.codegen.select_kernels import SelectKernels
from pcc.frontend.imported import import_model
from pcc.frontend.supported import refuse_unsupported
from pcc.ir.verify import relative_error, verify_structure
from pcc.passes.manager import PassManager
from pcc.passes.pipeline import parse_pipeline
from pcc.target import Target

EXACT = "decompose,canonicalize,fold-constants,fold-batchnorm,drop-filters,fuse-epilogues,reorder-kernels"
"""All that is done to a graph before kernels are chosen."""

PRUNED = (
    "decompose,canonicalize,fold-constants,fold-batchnorm,prune-pattern{patterns=4,spare_first=false},"
    "prune-connectivity{rate=2,spare_first=false},drop-filters,fuse-epilogues,reorder-kernels"
)

TOLERANCE = 1e-4
"""Relative to the largest number of an output."""
CANCELLED = 5e-6
"""In itself: what is left of a sum whose terms cancel, a mean of thousands of numbers around zero, has no better."""


def passed(model: Any, examples: Sequence[Tensor] | None, pipeline: str = EXACT) -> GraphModule:
    """The model's graph after passes, well formed."""
    graph_module = import_model(model, None if examples is None else tuple(examples)).graph
    graph_module = PassManager(parse_pipeline(pipeline), [refuse_unsupported])(graph_module).graph_module
    verify_structure(graph_module)
    return graph_module


def program(graph_module: GraphModule, target: Target) -> Program:
    """The kernel program of a graph after passes, memory not planned. The graph's layers have their kernels chosen
    then."""
    machine = machine_of(target)
    return lower(PassManager([SelectKernels(processor=machine.name)])(graph_module).graph_module, "random", machine.isa)


def differences(got: Sequence[Any], wanted: Sequence[Any]) -> list[str]:
    """What differs, output by output: count, type, shape, or numbers. Truth values leave a model as uint8."""
    if len(got) != len(wanted):
        return [f"{len(got)} outputs, not {len(wanted)}"]
    found = []
    for place, (have, want) in enumerate(zip(map(_array, got), map(_array, wanted), strict=True)):
        if (have.dtype, have.shape) != (want.dtype, want.shape):
            found.append(f"output {place} is {have.dtype}{list(have.shape)}, not {want.dtype}{list(want.shape)}")
        elif (
            error := relative_error([torch.from_numpy(have)], [torch.from_numpy(want)])
        ) > TOLERANCE and not np.allclose(have, want, rtol=0, atol=CANCELLED, equal_nan=True):
            found.append(f"output {place} differs by {error:.1e}")
    return found


def _array(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(np.uint8) if array.dtype == np.bool_ else array

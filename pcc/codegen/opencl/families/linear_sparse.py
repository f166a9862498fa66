"""Linear layers by the weights that are kept, whatever their zeros: single outputs, or four that share their inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.layers import Linear
from pcc.codegen.opencl.kernels.linear_sparse import SHARES, emit_linear_sparse, slices_of
from pcc.codegen.opencl.profiles import DeviceWork, GpuProfile
from pcc.codegen.opencl.program import DeviceProgramBuilder
from pcc.dtype import FLOAT16, FLOAT32, DType
from pcc.sparsity.csr import Csr


@dataclass(frozen=True)
class SharedSchedule:
    """Items of ``share`` outputs."""

    share: int

    def __str__(self) -> str:
        return f"{self.share} output{'s' * (self.share > 1)} an item, sums in {FLOAT32}"


@dataclass(frozen=True)
class LinearSparseFamily:
    name: str = "opencl-linear-sparse"
    layer: type[Linear] = Linear
    format: WeightFormat = "csr"
    dtypes: tuple[DType, ...] = (FLOAT32, FLOAT16)
    border: int | None = None

    def candidates(self, layer: Linear, machine: GpuProfile) -> Sequence[Candidate] | str:
        weight, rows = layer.weight, prod(layer.x.shape[:-1])
        assert isinstance(weight, Csr)
        found: list[Candidate] = []
        for share in SHARES:
            slices = slices_of(weight, share)
            items, turns = len(slices.outputs) * rows, slices.index.size * rows
            found.append(
                Candidate(
                    SharedSchedule(share),
                    DeviceWork(
                        mads=turns * share,
                        memory=3 * turns + items * (3 + (3 if layer.residual is not None else 2) * share),
                        steps=turns,
                        loops=items,
                        outputs=items * share,
                        items=items,
                    ),
                )
            )
        return found

    def emit(self, layer: Linear, schedule: SharedSchedule, b: DeviceProgramBuilder) -> None:
        emit_linear_sparse(layer, schedule.share, b)


FAMILY = LinearSparseFamily()

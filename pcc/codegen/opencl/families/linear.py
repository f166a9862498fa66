"""Linear layers of dense weights, four outputs of a row an item."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.layers import Linear
from pcc.codegen.opencl.kernel import LANES
from pcc.codegen.opencl.kernels.products import emit_linear
from pcc.codegen.opencl.profiles import DeviceWork, GpuProfile
from pcc.codegen.opencl.program import DeviceProgramBuilder
from pcc.dtype import FLOAT16, FLOAT32, DType


@dataclass(frozen=True)
class VectorSchedule:
    """There is but one."""

    def __str__(self) -> str:
        return f"{LANES} outputs an item, sums in {FLOAT32}"


@dataclass(frozen=True)
class LinearColumnsFamily:
    name: str = "opencl-linear"
    layer: type[Linear] = Linear
    format: WeightFormat = "dense"
    dtypes: tuple[DType, ...] = (FLOAT32, FLOAT16)
    border: int | None = None

    def candidates(self, layer: Linear, machine: GpuProfile) -> Sequence[Candidate] | str:
        outputs, depth = layer.weight.shape
        items = prod(layer.x.shape[:-1]) * -(-outputs // LANES)
        work = DeviceWork(
            mads=LANES * depth * items,
            memory=items * (2 * depth + LANES + 1),
            steps=depth * items,
            loops=items,
            outputs=LANES * items,
            items=items,
        )
        return [Candidate(VectorSchedule(), work)]

    def emit(self, layer: Linear, schedule: VectorSchedule, b: DeviceProgramBuilder) -> None:
        emit_linear(layer, b)


FAMILY = LinearColumnsFamily()

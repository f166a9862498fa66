"""Dense convolutions number by number: any geometry, tensors of any strides."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.layers import Conv2d
from pcc.codegen.opencl.kernels.conv_any import emit_conv
from pcc.codegen.opencl.profiles import DeviceWork, GpuProfile
from pcc.codegen.opencl.program import DeviceProgramBuilder
from pcc.dtype import FLOAT16, FLOAT32, DType


@dataclass(frozen=True)
class NumberSchedule:
    """There is but one: a work-item computes a number."""

    def __str__(self) -> str:
        return f"a number an item, any strides, sums in {FLOAT32}"


@dataclass(frozen=True)
class ConvAny:
    name: str = "opencl-conv-any"
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "dense"
    dtypes: tuple[DType, ...] = (FLOAT32, FLOAT16)
    border: int | None = None

    def candidates(self, layer: Conv2d, machine: GpuProfile) -> Sequence[Candidate] | str:
        outputs, taps = prod(layer.y.shape), prod(layer.weight.shape[1:])
        macs = outputs * taps
        return [
            Candidate(
                NumberSchedule(),
                DeviceWork(
                    mads=macs,
                    memory=2 * macs + 3 * outputs,
                    steps=macs,
                    loops=outputs * prod(layer.geometry.window),
                    outputs=outputs,
                    items=outputs,
                ),
            )
        ]

    def emit(self, layer: Conv2d, schedule: NumberSchedule, b: DeviceProgramBuilder) -> None:
        emit_conv(layer, b)


FAMILY = ConvAny()

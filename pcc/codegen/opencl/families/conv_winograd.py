"""Dense 3x3 of stride 1 by F(2x2) or F(4x4). F(4x4) sums in fp32 always: fp16 loses 1 % there (docs/gpu.md)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernels.winograd_forms import FORMS, WINDOW
from pcc.codegen.layers import Conv2d
from pcc.codegen.opencl.call import DeviceCall
from pcc.codegen.opencl.families.in_planes import emit_in_planes
from pcc.codegen.opencl.families.tiles import Scratch, converted, fits, out_of_reach, pair_size, vectors_of_store
from pcc.codegen.opencl.kernel import LANES
from pcc.codegen.opencl.kernels.winograd import WinogradProduct
from pcc.codegen.opencl.kernels.winograd_calls import tile_counts, winograd_calls
from pcc.codegen.opencl.planes import LEFT
from pcc.codegen.opencl.profiles import DeviceWork, GpuProfile
from pcc.codegen.opencl.program import DeviceProgramBuilder
from pcc.codegen.opencl.work_group import idle_share, range_over, work_groups
from pcc.codegen.range import Sizes
from pcc.dtype import FLOAT16, FLOAT32, DType


@dataclass(frozen=True)
class WinogradSchedule:
    """A product's tile, how many tiles an item transforms, and what sums are in."""

    filters: int
    vectors: int
    tiles: int
    sums: DType

    def __str__(self) -> str:
        product = f"products of {self.filters} filters and {self.vectors * LANES} tiles"
        return f"{product}, transforms of {self.tiles}, planes, sums in {self.sums}"


def _waste(items: Sizes) -> float:
    return idle_share(items, work_groups(items)[0])


@dataclass(frozen=True)
class Winograd:
    outputs: int
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "dense"
    dtypes: tuple[DType, ...] = (FLOAT32, FLOAT16)
    border: int | None = 1
    """The last tiles of a map reach below it and beside it."""

    @property
    def name(self) -> str:
        return f"opencl-conv-winograd-{self.outputs}"

    def candidates(self, layer: Conv2d, machine: GpuProfile) -> Sequence[Candidate] | str:
        geometry = layer.geometry
        if geometry != type(geometry)((WINDOW, WINDOW), padding=geometry.padding) or layer.groups > 1:
            return "only windows of 3x3 with stride, dilation and groups of 1"
        if reason := out_of_reach(layer):
            return reason
        if self.outputs > 2 and geometry.padding[3] + 2 >= LEFT:
            return "the last tiles of a row reach beyond the zeros beside it, which their sums would have to cancel"
        sums = FLOAT32 if self.outputs > 2 else machine.arithmetic(layer.x.dtype)
        tiles = LANES if self.outputs == 2 or machine.numbers >= 64 else 1
        products = ((8, 2), (8, 1), (4, 1))
        if layer.x.dtype == sums:  # converted numbers take registers, and so many sums would spill
            products = ((8, 4), *products)
        return [
            Candidate(schedule, self.work(layer, schedule) * layer.x.shape[0])
            for schedule in (WinogradSchedule(filters, vectors, tiles, sums) for filters, vectors in products)
            if fits(schedule.filters * schedule.vectors * LANES, machine, sums)
        ]

    def work(self, layer: Conv2d, schedule: WinogradSchedule, waste: Callable[[Sizes], float] = _waste) -> DeviceWork:
        """What an image takes; ``waste`` is how many times the items of a call there are, with those that have no
        work."""
        form, (filters, channels) = FORMS[self.outputs], layer.weight.shape[:2]
        rows, columns = tile_counts(self.outputs, *layer.y.shape[2:])
        tiles, squares, places = schedule.tiles, rows * columns, form.inputs**2
        vectors = max(1, self.outputs * tiles // LANES)
        stores = (
            self.outputs * (vectors // vectors_of_store(layer.y, vectors)) * (2 if layer.residual is not None else 1)
        )
        loads, turned = form.inputs * ((tiles * self.outputs) // LANES + 2), (columns // tiles, rows)
        of_inputs = DeviceWork(
            memory=(squares // tiles) * (loads + places) * channels,
            adds=squares * 2 * form.inputs * form.input_adds * channels,
            items=(squares // tiles) * channels,
        )
        of_outputs = DeviceWork(
            memory=(squares // tiles) * (places + stores + 2) * filters,
            adds=squares * (form.inputs + self.outputs) * form.output_adds * filters,
            outputs=squares * self.outputs**2 * filters,
            items=(squares // tiles) * filters,
        )
        product = self._product(layer, schedule)
        stored, groups = schedule.filters * schedule.vectors, -(-filters // schedule.filters)
        ranges = -(-(squares // LANES) // schedule.vectors), groups, places
        items, of_weights = prod(ranges), -(-schedule.filters // pair_size(layer.x.dtype))
        of_products = DeviceWork(
            mads=items * channels * stored * LANES,
            memory=items * (channels * (of_weights + schedule.vectors) + stored),
            steps=items * sum(divmod(channels, product.unroll)),
            loops=items * 2,
            outputs=items * stored * LANES,
            items=items,
        )
        parts = (
            of_inputs * waste((*turned, channels)),
            of_products * waste(ranges),
            of_outputs * waste((*turned, filters)),
        )
        return converted(sum(parts, DeviceWork()), layer.x.dtype, schedule.sums)

    def _product(self, layer: Conv2d, schedule: WinogradSchedule) -> WinogradProduct:
        return WinogradProduct(self.outputs, layer.x.dtype, schedule.sums, schedule.filters, schedule.vectors)

    def calls(self, layer: Conv2d, schedule: WinogradSchedule, scratch: Scratch) -> list[DeviceCall]:
        product = self._product(layer, schedule)
        return [
            call
            for image in range(layer.x.shape[0])
            for call in winograd_calls(layer, product, scratch, image, range_over, schedule.tiles)
        ]

    def emit(self, layer: Conv2d, schedule: WinogradSchedule, b: DeviceProgramBuilder) -> None:
        emit_in_planes(layer, schedule, self.calls, b, self.border or 0)


F2_FAMILY = Winograd(2)
F4_FAMILY = Winograd(4)

"""Writes programs for a GPU: calls with ranges, values in planes with zeros around them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import ClassVar

from pcc.codegen.listed_weight import FromLists, ListedWeight
from pcc.codegen.opencl.call import DeviceCall, Listed
from pcc.codegen.opencl.kernel import DeviceKernel
from pcc.codegen.opencl.kernels.borders import emit_borders
from pcc.codegen.opencl.kernels.unlist import UnlistWeight
from pcc.codegen.opencl.kernels.weights import PreparedWeight
from pcc.codegen.opencl.planes import Planes
from pcc.codegen.opencl.work_group import range_over
from pcc.codegen.packing import plain_rows
from pcc.codegen.program import Call, ProgramWriter, View
from pcc.codegen.range import Range
from pcc.dtype import DType


@dataclass
class DeviceProgramBuilder(ProgramWriter[DeviceKernel]):
    """Writes a program for a GPU."""

    backend: ClassVar[str] = "opencl"

    layouts: dict[str, Planes] = field(default_factory=dict)
    """How buffers lie that hold planes."""

    def bordered(self, name: str, shape: tuple[int, ...], border: int, dtype: DType) -> View:
        """A tensor (N, C, H, W) in a new buffer, with ``border`` rows of zeros above and below each plane and zeros
        beside its rows; where it is 0, nothing is said of what lies around."""
        images, channels, height, width = shape
        layout = Planes((images, channels, height, width), border, dtype)
        view = layout.view(self._add(name, "scratch", layout.elements, dtype).name)
        self.layouts[view.buffer] = layout
        if border:
            emit_borders(view, layout, self)
        return view

    def is_bordered(self, view: View, border: int) -> bool:
        """Whether a view is whole planes of a buffer with such a border."""
        layout = self.layouts.get(view.buffer)
        return (
            layout is not None
            and layout.border >= border
            and view.shape[2:] == layout.shape[2:]
            and view.strides[2:] == (layout.pitch, 1)
            and view.strides[1] % layout.plane == 0
            and (view.offset - layout.offset) % layout.plane == 0
        )

    def call(
        self,
        kernel: DeviceKernel,
        args: Mapping[str, View | int],
        range: Range,
        macs: int = 0,
        dense_macs: int | None = None,
    ) -> None:
        """Records a call. ``args`` must name exactly the kernel's parameters, in the types that it takes."""
        expected = [param.name for param in kernel.params]
        if sorted(expected) != sorted(args):
            raise ValueError(f"{kernel.name}: arguments {sorted(args)} do not fit parameters {sorted(expected)}")
        for param in kernel.params:
            if isinstance(view := args[param.name], View) and view.dtype != param.dtype:
                raise ValueError(f"{kernel.name} takes {param.dtype} as {param.name}, not {view.dtype}")
        ordered = {name: args[name] for name in expected}
        work = prod(range.global_size)
        dense = macs if dense_macs is None else dense_macs
        self.calls.append(Call(kernel, ordered, work, self.layer, macs, dense, self.node, range=range))

    def device_call(self, call: DeviceCall, dense_macs: int) -> None:
        """Records a call of a convolution's family, its tables as constants."""
        tables = {name: self.constant(f"{self.node}.{name}", values) for name, values in call.tables.items()}
        if call.listed:
            self._listed(call, call.listed, tables)
        tables |= {name: self.prepared_weight(f"{self.node}.{name}", weight) for name, weight in call.weights.items()}
        self.call(call.kernel, {**call.tensors, **tables, **call.numbers}, call.range, call.macs, dense_macs)

    def _listed(self, call: DeviceCall, listed: Listed, tables: Mapping[str, View]) -> None:
        """Notes how the weight and the places of a call can be made of lists that a library has."""
        weight, places, layer, node = tables["weight"], tables[listed.places], self.layer, self.node
        groups = listed.weight.shape[0] // listed.weight.share
        kernel = UnlistWeight(listed.weight.share, weight.dtype)

        def made_of(lists: ListedWeight, views: Mapping[str, View]) -> Call[DeviceKernel]:
            list_groups = -(-listed.weight.shape[0] // lists.size)
            args: dict[str, View | int] = {
                **views,
                "begins": tables[listed.begins],
                "size": lists.size,
                "list_groups": list_groups,
                "columns": views["lists"].shape[1],
                "blocks": views["lists"].shape[0] // list_groups,
                "plane": lists.plane,
                "groups": groups,
                "begin_step": listed.begin_step,
                "channel_step": listed.channel_step,
            }
            ordered = {param.name: args[param.name] for param in kernel.params}
            return Call(kernel, ordered, groups, layer, node=node, range=range_over((groups, 1, 1)))

        pair = FromLists(listed.weight, weight.buffer, places.buffer, made_of)
        self.from_lists.setdefault((pair.weights, pair.places), pair)

    def prepared_weight(self, name: str, weight: PreparedWeight) -> View:
        """What the device makes of a weight when a library is loaded, contiguous; where two calls read the same, it is
        there once."""
        kernel, numbers = weight.kernel, tuple(weight.numbers.items())
        tables = {
            "weight": self.constant(f"{name}.plain", weight.weight),
            "rows": self.constant(f"{name}.rows", plain_rows(weight.weight.shape)),
            **{table: self.constant(f"{name}.{table}", values) for table, values in weight.tables.items()},
        }
        known = kernel, tuple(tables.items()), numbers
        if known not in self.shared:
            made = View(self._add(name, "prepared", weight.elements, kernel.dtype).name, (weight.elements,), (1,),
                        dtype=kernel.dtype)  # fmt: skip
            args = {**tables, weight.result: made, **weight.numbers}
            ordered = {param.name: args[param.name] for param in kernel.params}
            items = prod(weight.range.global_size)
            self.preparation.append(Call(kernel, ordered, items, self.layer, node=self.node, range=weight.range))
            self.shared[known] = made
        return self.shared[known]

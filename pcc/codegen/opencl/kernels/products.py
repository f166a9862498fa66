"""Linear layers and products of two computed matrices. Sums are fp32."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.layers import Linear, MatMul
from pcc.codegen.opencl.kernel import LANES
from pcc.codegen.opencl.kernels.epilogue import apply, parameter_at
from pcc.codegen.opencl.kernels.numbers import (
    elements,
    numbers,
    of_numbers,
    place,
    symbol_of,
    tensor,
    whole_numbers,
)
from pcc.codegen.opencl.kernels.reference import store_rows_reference
from pcc.codegen.opencl.kernels.weights import PreparedWeight, packed_weight
from pcc.codegen.opencl.work_group import range_over
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32, DType, dtype_of

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder
    from pcc.codegen.opencl.program import DeviceProgramBuilder


def emit_linear(layer: Linear, b: "DeviceProgramBuilder") -> None:
    """``y = activation(x @ weight.T + bias + residual)``, of a dense weight."""
    assert isinstance(layer.weight, np.ndarray)
    (rows, depth), outputs = layer.x.shape, len(layer.weight)
    missing = -outputs % LANES
    of_outputs = channel_arrays(layer, lambda values: np.pad(values, (0, missing)).astype(np.float32))
    tensors = {"x": layer.x, "y": layer.y}
    if layer.residual is not None:
        tensors["residual"] = layer.residual
    types = (layer.x.dtype, dtype_of(layer.weight.dtype), layer.y.dtype)
    kernel = LinearColumns(types, Epilogue(layer.residual is not None, layer.activation))
    places = {
        f"{name}_{word}": value
        for name, view in tensors.items()
        for word, value in (("offset", view.offset), ("row", view.strides[0]))
    }
    b.call(
        kernel,
        {
            **tensors,
            "weight": b.prepared_weight(f"{layer.name}.weight", _by_inputs(layer.weight, outputs + missing)),
            **b.named_constants(layer.name, of_outputs),
            **places,
            "rows": rows,
            "depth": depth,
            "outputs": outputs,
        },
        range_over(((outputs + missing) // LANES, rows, 1)),
        macs=rows * int(np.count_nonzero(layer.weight)),
        dense_macs=rows * layer.weight.size,
    )


def _by_inputs(weight: np.ndarray, width: int) -> PreparedWeight:
    """A weight (outputs, inputs) as (inputs, outputs filled up to ``width``)."""
    outputs, inputs = weight.shape
    rows = np.stack([np.arange(outputs), np.full(outputs, width), np.zeros(outputs)], 1).astype(np.int32)
    return packed_weight(weight, dtype_of(weight.dtype), rows, inputs * width)


@dataclass(frozen=True)
class LinearColumns:
    """An item is four neighbouring outputs of a row. ``weight`` is (inputs, outputs filled up to fours), so that
    neighbours read neighbours."""

    types: tuple[DType, DType, DType]
    """Of ``x``, of the weight, of ``y`` and the residual."""
    epilogue: Epilogue

    arithmetic = FLOAT32

    @property
    def name(self) -> str:
        return f"pcc_linear_{self.epilogue.symbol}_{symbol_of(*self.types)}"

    @property
    def params(self) -> tuple[Param, ...]:
        added = self.epilogue.residual
        return (
            tensor("x", self.types[0]),
            tensor("weight", self.types[1]),
            *self.epilogue.params,
            tensor("y", self.types[2], writes=True),
            *((tensor("residual", self.types[2]), *numbers("residual_offset", "residual_row")) if added else ()),
            *numbers("x_offset", "x_row", "y_offset", "y_row", "rows", "depth", "outputs"),
        )

    def body(self, k: "DeviceKernelBuilder") -> None:
        fours = k.let((k["outputs"] + (LANES - 1)) >> 2)
        block, row, _ = place(k, fours, k["rows"])
        first = k.let(block * LANES)
        x, pitch = k.let(k["x_offset"] + row * k["x_row"]), k.let(fours * LANES)
        total = k.variable(k.load_vector(k["bias"], first))
        with k.loop(k["depth"]) as i:
            weight = k.load_vector(k["weight"], i * pitch + first)
            total.value = k.mad(weight, k.splat(k.load(k["x"], x + i)), total.value)
        y = k.let(k["y_offset"] + row * k["y_row"] + first)
        for lane in range(LANES):
            with k.when_all(*([first + lane < k["outputs"]] if lane else [])):
                added = None
                if self.epilogue.residual:
                    added = k.load(k["residual"], k["residual_offset"] + row * k["residual_row"] + first + lane)
                parameter = parameter_at(k, self.epilogue, first + lane)
                value = apply(of_numbers(k), self.epilogue, k.lane(total.value, lane), added, parameter)
                k.store(k["y"], y + lane, value)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n = whole_numbers(args)
        pitch = -(-n["outputs"] // LANES) * LANES
        x = np.asarray(args["x"])[elements(n["x_offset"], (n["rows"], n["depth"]), (n["x_row"], 1))]
        weight = np.asarray(args["weight"])[: n["depth"] * pitch].reshape(n["depth"], pitch)[:, : n["outputs"]]
        sums = x.astype(np.float32) @ weight.astype(np.float32) + np.asarray(args["bias"])[: n["outputs"]]
        outputs = np.arange(n["outputs"])
        store_rows_reference(args, self.epilogue, sums, outputs, outputs)


def emit_matmul(layer: MatMul, b: "DeviceProgramBuilder") -> None:
    """``y = a @ b``, matrix by matrix."""
    (_, rows, depth), (batch, _, columns) = layer.a.shape, layer.y.shape
    tensors = {"a": layer.a, "b": layer.b, "y": layer.y}
    places = {
        f"{name}_{word}": value
        for name, view in tensors.items()
        for word, value in (("offset", view.offset), ("batch", view.batch_stride), ("row", view.strides[1]))
    }
    b.call(
        MatMulOf((layer.a.dtype, layer.b.dtype, layer.y.dtype)),
        {**tensors, **places, "rows": rows, "columns": columns, "depth": depth},
        range_over((columns, rows, batch)),
        macs=batch * rows * columns * depth,
    )


@dataclass(frozen=True)
class MatMulOf:
    """An item is a number of the product."""

    types: tuple[DType, DType, DType]

    arithmetic = FLOAT32

    @property
    def name(self) -> str:
        return f"pcc_matmul_{symbol_of(*self.types)}"

    @property
    def params(self) -> tuple[Param, ...]:
        places = (f"{name}_{word}" for name in "aby" for word in ("offset", "batch", "row"))
        return (
            tensor("a", self.types[0]),
            tensor("b", self.types[1]),
            tensor("y", self.types[2], writes=True),
            *numbers(*places, "rows", "columns", "depth"),
        )

    def body(self, k: "DeviceKernelBuilder") -> None:
        column, row, batch = place(k, k["columns"], k["rows"])
        a = k.let(k["a_offset"] + batch * k["a_batch"] + row * k["a_row"])
        b = k.let(k["b_offset"] + batch * k["b_batch"] + column)
        total = k.variable(k.splat(0.0, 1))
        with k.loop(k["depth"]) as i:
            total.value = k.mad(k.load(k["a"], a + i), k.load(k["b"], b + i * k["b_row"]), total.value)
        k.store(k["y"], k["y_offset"] + batch * k["y_batch"] + row * k["y_row"] + column, total.value)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n, batch = whole_numbers(args), range.global_size[2]
        shapes = {
            "a": (batch, n["rows"], n["depth"]),
            "b": (batch, n["depth"], n["columns"]),
            "y": (batch, n["rows"], n["columns"]),
        }
        at = {
            name: elements(n[f"{name}_offset"], shape, (n[f"{name}_batch"], n[f"{name}_row"], 1))
            for name, shape in shapes.items()
        }
        a, b = (np.asarray(args[name])[at[name]].astype(np.float32) for name in "ab")
        y = np.asarray(args["y"])
        y[at["y"]] = (a @ b).astype(y.dtype)

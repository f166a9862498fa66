"""Sparse linear layers: an item is one output of a row, or four that go through the inputs that any of them keeps.

Weights are stored as SELL-C-sigma (Kreutzer et al., 2014): *slices* of `SLICE` items whose lists are about as long,
filled up to the longest of each, entry by entry, so that neighbours read neighbours. Four outputs that keep the same
inputs, as layers pruned by blocks do, use each input and its place four times.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.layers import Linear
from pcc.codegen.opencl.kernel import LANES
from pcc.codegen.opencl.kernels.epilogue import apply, parameter_at
from pcc.codegen.opencl.kernels.numbers import elements, numbers, of_numbers, place, symbol_of, tensor, whole_numbers
from pcc.codegen.opencl.kernels.reference import store_rows_reference
from pcc.codegen.opencl.work_group import range_over
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32, DType, dtype_of
from pcc.sparsity.csr import Csr

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder, Expr
    from pcc.codegen.opencl.program import DeviceProgramBuilder

SLICE = 16
"""Items of a slice: 64 bytes of single weights in fp32."""

SHARES = (1, LANES)
"""How many outputs an item may have."""


@dataclass(frozen=True)
class Slices:
    """A weight as `LinearSparse` reads it. S slices of `SLICE` items of ``share`` outputs, E entries of an item in
    all."""

    share: int
    starts: np.ndarray
    """int32 (S + 1,): the first entry of each slice, which has at least one."""
    index: np.ndarray
    """int32 (E, SLICE): the input of each entry; 0 where a list has ended."""
    weight: np.ndarray
    """(E, SLICE, share): 0 where an output does not keep that input."""
    outputs: np.ndarray
    """int32 (S * SLICE, share): what each item computes; M where there is nothing."""


def slices_of(csr: Csr, share: int) -> Slices:
    """The slices of a weight. Outputs that keep the same inputs come to lie in the same items, as far as they fill
    them; items with the longest lists come first."""
    count = csr.shape[0]
    rows = [row.tobytes() for row in np.split(csr.index, csr.offset[1:-1])]
    kind = np.unique(np.array(rows, object), return_inverse=True)[1]
    by_kind = np.argsort(kind, kind="stable")
    sizes, rank = np.bincount(kind), np.empty(count, np.int64)
    rank[by_kind] = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    is_left_over = rank >= sizes[kind] // share * share
    ordered = np.lexsort((kind, -np.diff(csr.offset), is_left_over))
    items = -(-count // (share * SLICE)) * SLICE
    outputs = np.concatenate([ordered, np.full(items * share - count, count)]).reshape(items, share)
    item = np.empty(count, np.int64)
    item[ordered] = np.arange(count) // share
    lane = np.empty(count, np.int64)
    lane[ordered] = np.arange(count) % share
    # Entries of items: what any of an item's outputs keeps, by item, then by input.
    of_entry = np.repeat(np.arange(count), np.diff(csr.offset))
    kept, entry = np.unique(item[of_entry] * csr.columns + csr.index, return_inverse=True)
    length = np.bincount(kept // csr.columns, minlength=items)
    longest_first = np.argsort(-length, kind="stable")
    new_place = np.empty(items, np.int64)
    new_place[longest_first] = np.arange(items)
    longest = np.maximum(length[longest_first].reshape(-1, SLICE).max(axis=1), 1)
    starts = np.concatenate([[0], longest.cumsum()])
    at_item = kept // csr.columns
    within = np.arange(len(kept)) - np.repeat(np.concatenate([[0], length.cumsum()])[:-1], length)
    at = starts[new_place[at_item] // SLICE] + within, new_place[at_item] % SLICE
    index = np.zeros((starts[-1], SLICE), np.int32)
    index[at] = kept % csr.columns
    weight = np.zeros((starts[-1], SLICE, share), csr.weight.dtype)
    weight[at[0][entry], at[1][entry], lane[of_entry]] = csr.weight
    return Slices(share, starts.astype(np.int32), index, weight, outputs[longest_first].astype(np.int32))


def emit_linear_sparse(layer: Linear, share: int, b: "DeviceProgramBuilder") -> None:
    """``y = activation(x @ weight.T + bias + residual)``, of a weight in compressed rows; items of ``share``
    outputs."""
    assert isinstance(layer.weight, Csr)
    slices, rows, (count, _) = slices_of(layer.weight, share), layer.x.shape[0], layer.weight.shape
    of_places = channel_arrays(
        layer, lambda values: np.append(values, np.float32(0))[slices.outputs.ravel()].astype(np.float32)
    )
    tensors = {"x": layer.x, "y": layer.y}
    if layer.residual is not None:
        tensors["residual"] = layer.residual
    places = {
        f"{name}_{word}": value
        for name, view in tensors.items()
        for word, value in (("offset", view.offset), ("row", view.strides[0]))
    }
    types = (layer.x.dtype, dtype_of(layer.weight.weight.dtype), layer.y.dtype)
    tables = {"starts": slices.starts, "index": slices.index, "weight": slices.weight, "places": slices.outputs}
    b.call(
        LinearSparse(share, types, Epilogue(layer.residual is not None, layer.activation)),
        {
            **tensors,
            **b.named_constants(layer.name, {**tables, **of_places}),
            **places,
            "rows": rows,
            "items": len(slices.outputs),
            "outputs": count,
        },
        range_over((len(slices.outputs), rows, 1)),
        macs=rows * len(layer.weight.weight),
        dense_macs=rows * count * layer.weight.columns,
    )


@dataclass(frozen=True)
class LinearSparse:
    """An item is ``share`` outputs of a row. Arithmetic is fp32."""

    share: int
    types: tuple[DType, DType, DType]
    """Of ``x``, of the weight, of ``y`` and the residual."""
    epilogue: Epilogue

    arithmetic = FLOAT32

    @property
    def name(self) -> str:
        return f"pcc_linear_sparse_f{self.share}_{self.epilogue.symbol}_{symbol_of(*self.types)}"

    @property
    def params(self) -> tuple[Param, ...]:
        added = (tensor("residual", self.types[2]), *numbers("residual_offset", "residual_row"))
        return (
            tensor("x", self.types[0]),
            tensor("weight", self.types[1]),
            *(Param("starts", "i32*"), Param("index", "i32*"), Param("places", "i32*")),
            *self.epilogue.params,
            tensor("y", self.types[2], writes=True),
            *(added if self.epilogue.residual else ()),
            *numbers("x_offset", "x_row", "y_offset", "y_row", "rows", "items", "outputs"),
        )

    def body(self, k: "DeviceKernelBuilder") -> None:
        item, row, _ = place(k, k["items"], k["rows"])
        piece, lane = k.divide(item, SLICE)
        begin, first = k.word(k["starts"], piece), k.let(item * self.share)
        count = k.let(k.word(k["starts"], piece + 1) - begin)
        x, entry = k.let(k["x_offset"] + row * k["x_row"]), k.variable(k.let(begin * SLICE + lane))
        load = k.load if self.share == 1 else k.load_vector
        total = k.variable(load(k["bias"], first))
        with k.loop(count):
            at = k.let(entry.value)
            value = k.load(k["x"], x + k.word(k["index"], at))
            total.value = k.mad(load(k["weight"], at * self.share), k.splat(value, self.share), total.value)
            entry.value = at + SLICE
        for output in range(self.share):
            self._store(k, row, first + output, total.value if self.share == 1 else k.lane(total.value, output))

    def _store(self, k: "DeviceKernelBuilder", row: "Expr", at: "Expr", total: "Expr") -> None:
        output = k.word(k["places"], at)
        with k.when_all(output < k["outputs"]):
            added = None
            if self.epilogue.residual:
                added = k.load(k["residual"], k["residual_offset"] + row * k["residual_row"] + output)
            value = apply(of_numbers(k), self.epilogue, total, added, parameter_at(k, self.epilogue, at))
            k.store(k["y"], k["y_offset"] + row * k["y_row"] + output, value)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n = whole_numbers(args)
        arrays = {name: np.asarray(args[name]) for name in ("starts", "index", "weight", "places", "bias")}
        index = arrays["index"].reshape(-1, SLICE)
        weight = arrays["weight"].astype(np.float32).reshape(*index.shape, self.share)
        x = np.asarray(args["x"])
        depth = int(index.max(initial=0)) + 1
        x = x[elements(n["x_offset"], (n["rows"], depth), (n["x_row"], 1))].astype(np.float32)
        starts = arrays["starts"]
        sums = [np.einsum("ncl,cls->nls", x[:, index[begin:end]], weight[begin:end]) for begin, end in pairwise(starts)]
        places = arrays["places"].ravel()
        there = places < n["outputs"]
        found = np.concatenate(sums, axis=1).reshape(n["rows"], -1) + arrays["bias"].ravel()
        store_rows_reference(args, self.epilogue, found[:, there], places[there], np.flatnonzero(there))

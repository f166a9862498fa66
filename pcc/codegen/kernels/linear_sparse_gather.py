"""Sparse linear layers by lists: each lane of a vector is an output, which takes the inputs it keeps from wherever they
lie.

Weights are stored as SELL-C-sigma (Kreutzer et al., 2014): *slices* of as many outputs as a vector has lanes, longest
lists first, so that the lists of a slice are about as long. An entry is 5 bytes: a weight, and how far its input lies
behind the one before, which fits a byte as long as no 255 weights in a row are zero; where they are, entries of weight
0 bridge them. So a layer costs memory in proportion to what it keeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.kernels.linear import residual_rows, store_reference
from pcc.codegen.kernels.linear_sparse import AHEAD, csr_of, memory_work
from pcc.codegen.layers import Linear
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import FLOAT32, INT32, INT64, REALS, UINT8, DType
from pcc.sparsity.csr import Csr

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder

ROWS = (1, 2, 4)
"""Rows of the input that may share a tile."""

UNROLLED = 2
"""Entries that an iteration takes; every slice has a multiple of them."""

_FARTHEST = 255
"""Inputs that one entry can step over."""


@dataclass(frozen=True)
class LinearGatherSchedule:
    """Tiles of ``rows`` rows of the input times one vector of outputs."""

    rows: int

    def __str__(self) -> str:
        return f"tiles of {self.rows} rows x 1 vector"


@dataclass(frozen=True)
class LinearSparseGatherFamily:
    """Sparse linear layers, whatever their zeros; rows of ``x``, ``y`` and the residual may lie apart. Arithmetic is
    fp32."""

    name: str = "linear-sparse-gather"
    layer: type[Linear] = Linear
    format: WeightFormat = "csr"
    dtypes: tuple[DType, ...] = REALS

    def candidates(self, layer: Linear, machine: Machine) -> list[Candidate]:
        csr, lanes, batch = csr_of(layer), machine.isa.lanes(FLOAT32), layer.x.shape[0]
        lengths = _slice_lengths(_row_lengths(csr), lanes)
        steps, slices = int(lengths.sum()), len(lengths)
        memory = memory_work(steps * lanes * (csr.weight.itemsize + UINT8.bytes), machine)
        found = []
        for rows in (rows for rows in ROWS if rows == 1 or rows <= batch):
            # An element that is gathered costs more than a narrow load; without such an instruction, its step is read
            # and added up by itself, too.
            gathered = Work(loads=0.25, scalars=1) if machine.isa.gathers else Work(scalars=3 / 2)
            steps_of_lanes = Work(loads=0.25) if machine.isa.gathers else Work(scalars=3 / 2) * lanes
            step = (gathered * lanes + Work(fma=1)) * rows + steps_of_lanes + Work(loads=1, branches=1 / UNROLLED)
            store = Work(stores=1, scalars=2, branches=1) * (lanes * rows)
            found.append(
                Candidate(LinearGatherSchedule(rows), (step * steps + store * slices) * -(-batch // rows) + memory)
            )
        return found

    def emit(self, layer: Linear, schedule: LinearGatherSchedule, b: ProgramBuilder) -> None:
        csr, lanes, batch = csr_of(layer), b.isa.lanes(FLOAT32), layer.x.shape[0]
        tables = slices_of(csr, lanes)
        outputs, slices, row_tiles = csr.shape[0], len(tables.starts) - 1, -(-batch // schedule.rows)
        of_places = channel_arrays(
            layer, lambda values: np.pad(values[tables.outputs], (0, slices * lanes - outputs)).astype(np.float32)
        )
        b.call(
            LinearSparseGather(schedule.rows, lanes, Epilogue(layer.residual is not None, layer.activation)),
            {
                "x": layer.x,
                "x_row": layer.x.strides[0],
                "starts": b.table(f"{layer.name}.starts", tables.starts * lanes),
                "steps": b.constant(f"{layer.name}.steps", tables.steps),
                "w": b.constant(f"{layer.name}.weight", tables.weight),
                **b.named_constants(layer.name, of_places),
                "places": b.table(f"{layer.name}.places", tables.outputs),
                "y": layer.y,
                "y_row": layer.y.strides[0],
                "batch": batch,
                "outputs": outputs,
                "row_tiles": row_tiles,
                **residual_rows(layer),
            },
            work=slices * row_tiles,
            macs=batch * len(csr.weight),
            dense_macs=batch * outputs * csr.columns,
        )


FAMILY = LinearSparseGatherFamily()


# ---- the weight ----


@dataclass(frozen=True)
class Slices:
    """A weight as `LinearSparseGather` reads it. S slices of C outputs; E entries of a lane in all."""

    starts: np.ndarray
    """int64 (S + 1,): the first entry of each slice."""
    steps: np.ndarray
    """uint8 (E, C): how far an entry's input lies behind that of the entry before it; behind input 0 in a list's
    first."""
    weight: np.ndarray
    """(E, C): 0 where a list has ended, and where an entry only bridges a gap."""
    outputs: np.ndarray
    """int64 (M,): the output of each place."""


def slices_of(csr: Csr, lanes: int) -> Slices:
    """The lists of a weight in slices of ``lanes``, longest first; of equal ones the first."""
    gap = _gaps(csr)
    bridges = _bridges(gap)
    row_start = np.concatenate([[0], (bridges + 1).cumsum()])[csr.offset]
    length = np.diff(row_start)
    outputs = np.argsort(-length, kind="stable")
    starts = np.concatenate([[0], _slice_lengths(length, lanes).cumsum()])
    place = np.empty(len(outputs), np.int64)
    place[outputs] = np.arange(len(outputs))
    # Where each entry of a list goes: the bridges before a weight, then the weight.
    first = starts[place // lanes] * lanes + place % lanes - row_start[:-1] * lanes
    entry = np.arange(row_start[-1]) * lanes + np.repeat(first, length)
    kept = (bridges + 1).cumsum() - 1
    steps, weight = np.zeros(starts[-1] * lanes, np.uint8), np.zeros(starts[-1] * lanes, csr.weight.dtype)
    steps[entry] = _FARTHEST
    steps[entry[kept]] = gap - bridges * _FARTHEST
    weight[entry[kept]] = csr.weight
    return Slices(starts, steps.reshape(-1, lanes), weight.reshape(-1, lanes), outputs)


def _gaps(csr: Csr) -> np.ndarray:
    """int32 (N,): how far each kept weight's input lies behind the one before it in its row, or behind input 0."""
    gap = np.diff(csr.index, prepend=np.int32(0))
    first = csr.offset[:-1][np.diff(csr.offset) > 0]
    gap[first] = csr.index[first]
    return gap


def _bridges(gap: np.ndarray) -> np.ndarray:
    """The entries that are needed to step over each gap, beside the weight's own."""
    return np.maximum(gap - 1, 0) // _FARTHEST


def _row_lengths(csr: Csr) -> np.ndarray:
    """int64 (M,): entries of each output's list."""
    return np.diff(np.concatenate([[0], (_bridges(_gaps(csr)) + 1).cumsum()])[csr.offset])


def _slice_lengths(lengths: np.ndarray, lanes: int) -> np.ndarray:
    """Entries of a lane in each slice, given the lengths of the lists."""
    longest = np.sort(lengths)[::-1][::lanes]
    return -(-longest // UNROLLED) * UNROLLED


# ---- the kernel ----


@dataclass(frozen=True)
class LinearSparseGather:
    """Tiles of ``rows`` rows times ``lanes`` outputs; items are (slice, tile of rows), rows fastest."""

    rows: int
    lanes: int
    epilogue: Epilogue

    @property
    def name(self) -> str:
        return f"pcc_linear_sparse_gather_{self.rows}x{self.lanes}_{self.epilogue.symbol}"

    @property
    def params(self) -> tuple[Param, ...]:
        residual = (Param("residual", "f32*"), Param("r_row")) if self.epilogue.residual else ()
        tables = (
            Param("starts", "i32*"),
            Param("steps", "u8*"),
            Param("w", "f32*"),
            *self.epilogue.params,
            Param("places", "i32*"),
        )
        numbers = ("x_row", "y_row", "batch", "outputs", "row_tiles")
        return (
            Param("x", "f32*"),
            *tables,
            Param("y", "f32*", writes=True),
            *(Param(name) for name in numbers),
            *residual,
        )

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        lanes = self.lanes
        held = k.local(self.rows * lanes)
        with k.work() as item:
            part, row_tile = k.divide(item, k["row_tiles"])
            # Rows past the last one repeat it.
            rows = [k.let(tirx.min(row_tile * self.rows + r, k["batch"] - 1)) for r in range(self.rows)]
            inputs = [k.pointer(k["x"], row * k["x_row"]) for row in rows]
            first = k.let(part * lanes)
            begin = k.let(k.load(k["starts"], part))
            steps, weights = k.pointer(k["steps"], begin), k.pointer(k["w"], begin)
            sums = k.local(self.rows * lanes)
            # An instruction gathers for a vector; without one, a lane is summed up by itself.
            width, index = (lanes, INT32) if k.isa.gathers else (1, INT64)
            place = k.local(lanes, index)
            for lane in range(0, lanes, width):
                k.store(place, lane, k.splat(tirx.const(0, index.tir()), width), width)
                bias = k.let(k.load(k["bias"], first + lane, width))
                for r in range(self.rows):
                    k.store(sums, r * lanes + lane, bias, width)
            iterations = k.let((k.load(k["starts"], part + 1) - begin) // (UNROLLED * lanes))
            with k.loop(k.wide(0), k.wide(iterations)) as iteration:
                at = iteration * (UNROLLED * lanes)
                if k.isa.gathers:  # gathers fill the queue of loads, and no load looks far ahead by itself
                    k.ahead(weights, at, AHEAD, UNROLLED * lanes)
                    k.prefetch(steps, at + AHEAD // FLOAT32.bytes, write=False)
                for at in (at + entry * lanes for entry in range(UNROLLED)):
                    weight = k.let(k.load(weights, at, lanes))
                    for lane in range(0, lanes, width):
                        places = k.let(
                            k.load(place, lane, width) + tirx.Cast(index.tir(width), k.load(steps, at + lane, width))
                        )
                        k.store(place, lane, places, width)
                        factor = weight if width == lanes else k.shuffle([weight], [lane])
                        for r, x in enumerate(inputs):
                            value = k.gather(x, places, lanes) if width == lanes else k.load(x, places)
                            k.store(
                                sums, r * lanes + lane, k.load(sums, r * lanes + lane, width) + factor * value, width
                            )
            for lane in range(0, self.rows * lanes, width):
                k.store(held, lane, k.load(sums, lane, width), width)
            for r, row in enumerate(rows):
                self._store(k, held, r, row, first)

    def _store(self, k: "KernelBuilder", held: "Buffer", r: int, row: "Expr", first: "Expr") -> None:
        """One row of the tile to wherever its outputs lie."""
        from tvm import tirx

        with k.loop(0, k.let(tirx.min(self.lanes, k["outputs"] - first))) as lane:
            output = k.let(k.load(k["places"], first + lane))
            residual = k.load(k["residual"], row * k["r_row"] + output) if self.epilogue.residual else None
            parameter = self.epilogue.parameter(k, first + lane)
            value = self.epilogue.apply(k, k.load(held, r * self.lanes + lane), residual, 1, parameter)
            k.store(k["y"], row * k["y_row"] + output, value)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, starts, steps, w, bias, places = (
            np.asarray(args[name]) for name in ("x", "starts", "steps", "w", "bias", "places")
        )
        batch, outputs, row_tiles = (int(args[name]) for name in ("batch", "outputs", "row_tiles"))
        for item in range(begin, end):
            part, row_tile = divmod(item, row_tiles)
            row = np.arange(row_tile * self.rows, min((row_tile + 1) * self.rows, batch))[:, None]
            first, last = part * self.lanes, min((part + 1) * self.lanes, outputs)
            entries = slice(starts[part], starts[part + 1])
            index = steps[entries].reshape(-1, self.lanes).astype(np.int64).cumsum(axis=0)
            products = x[row[:, :, None] * int(args["x_row"]) + index] * w[entries].reshape(-1, self.lanes)
            value = (products.sum(axis=1) + bias[part * self.lanes : (part + 1) * self.lanes])[:, : last - first]
            store_reference(args, self.epilogue, value, row, places[first:last], np.arange(first, last))

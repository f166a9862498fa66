"""Sparse convolution from an FKW weight: pattern-pruned and connectivity-pruned layers of any kernel size, stride, dilation and grouping.

Two kernels, picked by their modelled cost. `ConvSparseScatter` loads every input once for a block of filters and keeps accumulators in L1: the form for
patterns. `ConvSparseGather` keeps the accumulators of one filter group in registers: the form for kernels of one or two taps. Both are driven by
tables, so that one small kernel for each (taps, tile, epilogue) serves every layer of every network.
"""

import numpy as np

from pcc.codegen.kernels import sparse_tile as tile
from pcc.codegen.kernels.conv_sparse_gather import ConvSparseGather
from pcc.codegen.kernels.conv_sparse_scatter import ConvSparseScatter
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.sparse_plan import SparsePlan, choose_plan
from pcc.codegen.kernels.sparse_tables import gather_tables, scatter_tables
from pcc.codegen.kernels.stage import Staged, cost_stage, stage, staged_pitch
from pcc.codegen.layers import Conv2d
from pcc.codegen.program import ProgramBuilder, View
from pcc.errors import PccError
from pcc.sparsity.fkw import FKW

CHANNELS_IN_L1 = 8
"""Input channels whose segments are mixed, to bring segments of like length together, while their inputs stay in L1."""

MEASURED_TO_IDEAL = 0.8
"""The dense cost model counts multiply-adds at full speed, of which that kernel reaches 70 to 75 %; sparse costs are measured ones. Between the two,
with a margin in favour of dense."""


def emit_conv_sparse(layer: Conv2d, b: ProgramBuilder, plan: SparsePlan | None = None) -> None:
    """Records the calls that compute a convolution whose weight is an FKW; ``plan`` stands in for the cheapest one by the cost model."""
    fkw = _weight_of(layer)
    staged = stage(b, layer.x, layer.geometry)
    plan = plan or choose_plan(fkw, staged.positions, b.lanes)[0]
    epilogue = Epilogue(layer.residual is not None, layer.activation)
    kernel, tables, numbers = (_scatter if plan.form == "scatter" else _gather)(fkw, staged, plan, epilogue)

    batch, filters = layer.y.shape[:2]
    blocks = -(-filters // (plan.block * (fkw.group if plan.form == "gather" else 1)))
    positions, work = tile.position_args(staged, layer, plan.size, blocks)
    tables |= {"channels": fkw.reorder, "bias": np.zeros(filters, np.float32) if layer.bias is None else layer.bias}
    views: dict[str, View] = {"x": staged.view, "y": layer.y, **({} if layer.residual is None else {"residual": layer.residual})}
    views |= {name: b.constant(f"{layer.name}.{name}", values) for name, values in tables.items()}
    outputs = batch * staged.height * staged.width
    args = {**views, "x_image": staged.image, **numbers, **positions, **tile.output_strides(layer)}
    b.call(kernel, args, work, macs=fkw.weight.size * outputs, dense_macs=int(np.prod(fkw.shape)) * outputs)


def cost_conv_sparse(layer: Conv2d, lanes: int) -> float:
    """Modelled cost on one core, in times of a vector multiply-add as `cost_conv_dense` has it; staging is counted alike."""
    rows, columns = layer.geometry.output_size(*layer.x.shape[2:])
    positions = (rows - 1) * staged_pitch(layer.x, layer.geometry) + columns
    image = choose_plan(_weight_of(layer), positions, lanes)[1]
    return MEASURED_TO_IDEAL * layer.x.shape[0] * image + cost_stage(layer.x, layer.geometry, lanes)


def _weight_of(layer: Conv2d) -> FKW:
    if not isinstance(layer.weight, FKW):
        raise PccError(f"layer {layer.name}: a sparse convolution needs its weight packed as FKW")
    return layer.weight


Parts = tuple[ConvSparseScatter | ConvSparseGather, dict[str, np.ndarray], dict[str, int]]
"""Kernel, tables, numbers."""


def _scatter(fkw: FKW, staged: Staged, plan: SparsePlan, epilogue: Epilogue) -> Parts:
    tables = scatter_tables(fkw, plan.block, CHANNELS_IN_L1, plan.most_taps)
    taps = tables.patterns.shape[1]
    arrays = {
        "weight": tables.weight,
        "taps": staged.taps[tables.patterns],
        "blocks_at": tables.blocks,
        "segments": tables.segments * np.array([staged.plane, taps, 1], np.int32),
        "slots": tables.slots * plan.size,
    }
    return ConvSparseScatter(taps, plan.size, plan.room, epilogue), arrays, {}


def _gather(fkw: FKW, staged: Staged, plan: SparsePlan, epilogue: Epilogue) -> Parts:
    tables = gather_tables(fkw, plan.most_taps)
    patterns, taps = tables.patterns.shape
    arrays = {"weight": tables.weight, "taps": staged.taps[tables.patterns], "segments": tables.segments, "channels_at": tables.channels * staged.plane}
    numbers = {"groups": fkw.shape[0] // fkw.group, "groups_per_item": plan.block, "patterns": patterns}
    return ConvSparseGather(taps, plan.size, fkw.group, epilogue), arrays, numbers

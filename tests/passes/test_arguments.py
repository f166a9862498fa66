"""No rule of canonicalize and no composite drops an argument: each is varied, and the node is refused or still computes
what ATen does."""

from dataclasses import dataclass
from operator import getitem
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from pcc.ir.annotations import skips
from pcc.ir.graph import assign_attribute, infer_all, is_constant
from pcc.ir.ops import CANONICAL
from pcc.ir.verify import run_graph
from pcc.passes.canonical import CannotCompile, apply_rule
from pcc.passes.canonicalize import RULES, Canonicalize
from pcc.passes.composites import COMPOSITES
from pcc.passes.decompose import Decompose

aten: Any = torch.ops.aten


@dataclass(frozen=True)
class Input:
    """A tensor that the model is called with."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Weight(Input):
    """A tensor that the model holds."""


@dataclass(frozen=True)
class Places(Weight):
    """Whole numbers from 0 on, below ``end``, that the model holds."""

    end: int = 2


@dataclass(frozen=True)
class Sorted(Weight):
    """Numbers in order that the model holds."""


@dataclass(frozen=True)
class Mask(Input):
    """Truth values that the model computes."""


X, Y, IMAGE = Input((2, 6)), Input((1, 6)), Input((2, 4, 9, 7))
CHANNELS = Weight((4,))
CONV: dict[str, Any] = {"input": IMAGE, "weight": Weight((4, 2, 3, 2)), "bias": CHANNELS, "groups": 2}
WINDOW: dict[str, Any] = {"self": IMAGE, "kernel_size": [2, 2]}
STATISTICS: dict[str, Any] = {
    "input": IMAGE,
    "weight": CHANNELS,
    "bias": CHANNELS,
    "running_mean": CHANNELS,
    "running_var": CHANNELS,
}
NORM: dict[str, Any] = {**STATISTICS, "momentum": 0.1, "eps": 1e-5}

ROWS, SQUARES = Input((2, 4, 9)), Input((2, 5, 5))
ATTENTION: dict[str, Any] = {"query": Input((2, 4, 5, 3)), "key": Input((2, 4, 6, 3)), "value": Input((2, 4, 6, 7))}
SLIDING: dict[str, Any] = {"kernel_size": [2, 2], "dilation": [1, 1], "padding": [0, 0], "stride": [1, 1]}
SAMPLING: dict[str, Any] = {"interpolation_mode": 0, "padding_mode": 0, "align_corners": False}
CELL: dict[str, Any] = {"input": Input((2, 3))}
RECURRENT: dict[str, Any] = {
    **{
        "input": Input((2, 2, 3)),
        "has_biases": True,
        "num_layers": 1,
        "dropout": 0.0,
        "train": False,
        "bidirectional": False,
        "batch_first": False,
    },
}
STATE = Input((1, 2, 4))


def _parameters(gates: int) -> list[Weight]:
    """Of a recurrent layer from 3 features to 4."""
    return [Weight((gates * 4, 3)), Weight((gates * 4, 4)), Weight((gates * 4,)), Weight((gates * 4,))]


LSTM, GRU, PLAIN = (_parameters(gates) for gates in (4, 3, 1))


def each(example: dict[str, Any], *operators: Any) -> dict[Any, dict[str, Any]]:
    """The same arguments for several operators."""
    return dict.fromkeys(operators, example)


EXAMPLES: dict[Any, dict[str, Any]] = {
    aten.conv2d.default: CONV,
    aten.conv2d.padding: CONV,
    aten.convolution.default: {
        **CONV,
        **{"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "transposed": False, "output_padding": [0, 0]},
    },
    aten.linear.default: {"input": X, "weight": Weight((5, 6)), "bias": Weight((5,))},
    aten.mm.default: {"self": X, "mat2": Weight((6, 5))},
    aten.matmul.default: {"self": X, "other": Weight((6, 5))},
    aten.addmm.default: {"self": Weight((5,)), "mat1": X, "mat2": Weight((6, 5))},
    **each(WINDOW, aten.max_pool2d.default, aten.avg_pool2d.default, aten.max_pool2d_with_indices.default),
    **each(
        {"self": IMAGE, "output_size": [3, 1]},
        aten.adaptive_avg_pool2d.default,
        aten._adaptive_avg_pool2d.default,
        aten.adaptive_max_pool2d.default,
    ),
    **each({"self": IMAGE, "dim": [1]}, aten.mean.dim, aten.sum.dim_IntList),
    **each(
        {"self": IMAGE, "input": IMAGE, "output_size": [18, 10], "scale_factors": None},
        aten.upsample_nearest2d.vec,
        aten.upsample_nearest2d.default,
    ),
    aten.upsample_bilinear2d.vec: {
        "input": IMAGE,
        "output_size": [18, 10],
        "scale_factors": None,
        "align_corners": False,
    },
    aten.upsample_bilinear2d.default: {"self": IMAGE, "output_size": [18, 10], "align_corners": False},
    **each({"self": IMAGE, "dim": 1}, aten.softmax.int, aten.log_softmax.int),
    **each({"self": IMAGE, "dim": 1, "half_to_float": False}, aten._softmax.default, aten._log_softmax.default),
    aten.batch_norm.default: {**NORM, "training": False, "cudnn_enabled": False},
    aten.native_batch_norm.default: {**NORM, "training": False},
    aten._native_batch_norm_legit_no_training.default: NORM,
    aten._native_batch_norm_legit.no_stats: {
        "input": IMAGE,
        "weight": CHANNELS,
        "bias": CHANNELS,
        "training": True,
        "momentum": 0.1,
        "eps": 1e-5,
    },
    **each({"self": X, "dtype": torch.float32}, aten.to.dtype, aten.to.dtype_layout),
    aten.to.device: {"self": X, "dtype": torch.float32, "device": torch.device("cpu")},
    aten.type_as.default: {"self": X, "other": X},
    **each(
        {"input": IMAGE, "p": 0.5, "train": False},
        aten.dropout.default,
        aten.feature_dropout.default,
        aten.alpha_dropout.default,
        aten.feature_alpha_dropout.default,
    ),
    **each({"self": X, "size": [3, 4]}, aten.view.default, aten._unsafe_view.default),
    aten.reshape.default: {"self": X, "shape": [3, 4]},
    aten.unflatten.int: {"self": X, "dim": 1, "sizes": [2, 3]},
    aten.unsqueeze.default: {"self": X, "dim": 0},
    aten.squeeze.dim: {"self": Y, "dim": 0},
    aten.squeeze.dims: {"self": Y, "dim": [0]},
    aten.permute.default: {"self": IMAGE, "dims": [0, 2, 3, 1]},
    aten.transpose.int: {"self": IMAGE, "dim0": 1, "dim1": 2},
    aten.select.int: {"self": IMAGE, "dim": 1, "index": 2},
    aten.split.Tensor: {"self": Input((4, 6)), "split_size": 2},
    aten.split_with_sizes.default: {"self": Input((4, 4)), "split_sizes": [2, 2]},
    aten.expand.default: {"self": Y, "size": [4, 6]},
    aten.repeat.default: {"self": Y, "repeats": [2, 1]},
    aten.roll.default: {"self": IMAGE, "shifts": [1], "dims": [1]},
    **each({"tensors": [X, X]}, aten.cat.default, aten.concat.default, aten.stack.default),
    aten.pad.default: {"self": IMAGE, "pad": [1, 2, 2, 1]},
    aten.constant_pad_nd.default: {"self": IMAGE, "pad": [1, 2]},
    **each({"self": X, "min": 0.25}, aten.clamp.default, aten.clip.default, aten.clamp_min.default),
    aten.clamp_max.default: {"self": X, "max": 0.25},
    **each({"self": X, "min": Y}, aten.clamp.Tensor, aten.clamp_min.Tensor),
    aten.clamp_max.Tensor: {"self": X, "max": Y},
    **each(
        {"input": ROWS, "weight": Weight((4, 2, 3)), "bias": CHANNELS, "groups": 2},
        aten.conv1d.default,
        aten.conv1d.padding,
    ),
    aten.conv_transpose1d.default: {
        "input": ROWS,
        "weight": Weight((4, 2, 3)),
        "bias": CHANNELS,
        "groups": 2,
        "stride": [3],
    },
    aten.conv_transpose2d.input: {
        "input": IMAGE,
        "weight": Weight((4, 2, 3, 2)),
        "bias": CHANNELS,
        "groups": 2,
        "stride": [3, 3],
    },
    **each(
        {"self": ROWS, "kernel_size": [3]},
        aten.avg_pool1d.default,
        aten.max_pool1d.default,
        aten.max_pool1d_with_indices.default,
    ),
    aten.avg_pool3d.default: {"self": Input((2, 5, 3, 2)), "kernel_size": [2, 1, 1], "stride": [1, 1, 1]},
    **each({"self": ROWS, "output_size": [3]}, aten.adaptive_avg_pool1d.default, aten.adaptive_max_pool1d.default),
    **each({**ATTENTION, "attn_mask": Weight((5, 6))}, aten.scaled_dot_product_attention.default),
    **each({"self": SQUARES, "mat2": SQUARES}, aten.bmm.default),
    **each({"self": Y, "vec": Input((6,)), "vec2": Input((5,)), "tensor": Input((6,))}, aten.mv.default),
    aten.dot.default: {"self": Input((6,)), "tensor": Input((6,))},
    aten.outer.default: {"self": Input((6,)), "vec2": Input((5,))},
    aten.baddbmm.default: {"self": SQUARES, "batch1": SQUARES, "batch2": SQUARES},
    aten.cdist.default: {"x1": SQUARES, "x2": SQUARES},
    aten.bilinear.default: {"input1": X, "input2": X, "weight": Weight((3, 6, 6)), "bias": Weight((3,))},
    aten.layer_norm.default: {"input": X, "normalized_shape": [6], "weight": Weight((6,)), "bias": Weight((6,))},
    aten.native_layer_norm.default: {
        "input": X,
        "normalized_shape": [6],
        "weight": Weight((6,)),
        "bias": Weight((6,)),
        "eps": 1e-5,
    },
    aten.rms_norm.default: {"input": X, "normalized_shape": [6], "weight": Weight((6,))},
    aten.group_norm.default: {"input": IMAGE, "num_groups": 2, "weight": CHANNELS, "bias": CHANNELS},
    aten.native_group_norm.default: {
        "input": IMAGE,
        "weight": CHANNELS,
        "bias": CHANNELS,
        "N": 2,
        "C": 4,
        "HxW": 63,
        "group": 2,
        "eps": 1e-5,
    },
    aten.instance_norm.default: {**NORM, "use_input_stats": True, "cudnn_enabled": False},
    aten.pairwise_distance.default: {"x1": X, "x2": X},
    aten.norm.ScalarOpt_dim: {"self": X, "p": 2, "dim": [1]},
    aten.cosine_similarity.default: {"x1": IMAGE, "x2": IMAGE},
    **{
        getattr(packet, kind): {"self": IMAGE, "dim": [1]}
        for packet in (aten.var, aten.std, aten.var_mean, aten.std_mean)
        for kind in ("dim", "correction")
    },
    **each(
        {"self": IMAGE, "dim": 1},
        aten.max.dim,
        aten.min.dim,
        aten.any.dim,
        aten.all.dim,
        aten.prod.dim_int,
        aten.median.dim,
    ),
    aten.kthvalue.default: {"self": IMAGE, "k": 2},
    aten.bucketize.Tensor: {"self": X, "boundaries": Sorted((3,))},
    aten.searchsorted.Tensor: {"self": X, "sorted_sequence": Sorted((3,))},
    **each({"self": IMAGE}, aten.diagonal.default, aten.diag_embed.default),
    **each({"tensors": [Input((3,)), Input((4,))], "indexing": "ij"}, aten.meshgrid.default, aten.meshgrid.indexing),
    **each({"self": Input((2, 3, 3)), "other": Input((2, 3, 3))}, aten.cross.default, aten.linalg_cross.default),
    aten.one_hot.default: {"self": Places((4,)), "num_classes": 3},
    **each({"self": IMAGE, "dim": [1]}, aten.any.dims, aten.all.dims, aten.logsumexp.default),
    **each(
        {"self": IMAGE, "dim": 1}, aten.cumsum.default, aten.cumprod.default, aten.cummax.default, aten.cummin.default
    ),
    aten.topk.default: {"self": IMAGE, "k": 2},
    aten.sort.stable: {"self": X, "stable": True},
    aten.argsort.stable: {"self": X, "stable": True},
    **each({"self": IMAGE, "padding": [1, 2, 2, 1]}, aten.reflection_pad2d.default, aten.replication_pad2d.default),
    **each({"self": ROWS, "padding": [1, 2]}, aten.reflection_pad1d.default, aten.replication_pad1d.default),
    aten.flip.default: {"self": IMAGE, "dims": [1]},
    aten.index_select.default: {"self": IMAGE, "dim": 1, "index": Places((5,))},
    aten.index.Tensor: {"self": IMAGE, "indices": [None, Places((5,))]},
    aten.gather.default: {"self": X, "dim": 1, "index": Places((2, 3))},
    aten.take_along_dim.default: {"self": X, "dim": 1, "indices": Places((2, 3))},
    aten.embedding.default: {"weight": Weight((4, 3)), "indices": Places((5,))},
    aten.slice_scatter.default: {"self": X, "src": Input((2, 4)), "dim": 1, "start": 1, "end": 5},
    aten.select_scatter.default: {"self": X, "src": Input((6,)), "dim": 0, "index": 1},
    aten.index_put.default: {"self": X, "indices": [None, Places((3,))], "values": Input((1,))},
    aten.scatter.src: {"self": X, "dim": 1, "index": Places((2, 1)), "src": X},
    aten.scatter.value: {"self": X, "dim": 1, "index": Places((2, 1)), "value": 0.3},
    aten.scatter_add.default: {"self": X, "dim": 1, "index": Places((2, 3), 5), "src": X},
    aten.scatter_reduce.two: {"self": X, "dim": 1, "index": Places((2, 3), 5), "src": X, "reduce": "sum"},
    aten.scatter.reduce: {"self": X, "dim": 1, "index": Places((2, 3), 5), "src": X, "reduce": "add"},
    aten.scatter.value_reduce: {"self": X, "dim": 1, "index": Places((2, 3), 5), "value": 0.3, "reduce": "multiply"},
    aten.index_copy.default: {"self": X, "dim": 1, "index": Places((1,)), "source": Input((2, 1))},
    aten.index_add.default: {"self": X, "dim": 1, "index": Places((6,)), "source": X},
    aten.max_unpool2d.default: {"self": Input((2, 4, 3, 1)), "indices": Places((2, 4, 3, 1), 8), "output_size": [4, 2]},
    aten.heaviside.default: {"self": X, "values": Y},
    aten.copy.default: {"self": X, "src": Y},
    aten.fill.Tensor: {"self": X, "value": Input(())},
    aten.fill.Scalar: {"self": X, "value": 0.3},
    aten.im2col.default: {"self": IMAGE, **SLIDING},
    aten.col2im.default: {"self": Input((2, 12, 48)), "output_size": [9, 7], **SLIDING},
    aten.unfold.default: {"self": IMAGE, "dimension": 2, "size": 3, "step": 2},
    aten.lstm.input: {**RECURRENT, "params": LSTM, "hx": [STATE, STATE]},
    aten.gru.input: {**RECURRENT, "params": GRU, "hx": STATE},
    **each({**RECURRENT, "params": PLAIN, "hx": STATE}, aten.rnn_tanh.input, aten.rnn_relu.input),
    aten.lstm_cell.default: {
        **CELL,
        "w_ih": LSTM[0],
        "w_hh": LSTM[1],
        "b_ih": LSTM[2],
        "b_hh": LSTM[3],
        "hx": [Input((2, 4)), Input((2, 4))],
    },
    aten.gru_cell.default: {
        **CELL,
        "w_ih": GRU[0],
        "w_hh": GRU[1],
        "b_ih": GRU[2],
        "b_hh": GRU[3],
        "hx": Input((2, 4)),
    },
    **each(
        {**CELL, "w_ih": PLAIN[0], "w_hh": PLAIN[1], "b_ih": PLAIN[2], "b_hh": PLAIN[3], "hx": Input((2, 4))},
        aten.rnn_tanh_cell.default,
        aten.rnn_relu_cell.default,
    ),
    **each(
        {"self": ROWS, "input": ROWS, "output_size": [13], "scale_factors": None},
        aten.upsample_nearest1d.vec,
        aten.upsample_nearest1d.default,
    ),
    **each(
        {"self": ROWS, "input": ROWS, "output_size": [13], "scale_factors": None, "align_corners": False},
        *(
            aten.upsample_linear1d.vec,
            aten.upsample_linear1d.default,
            aten._upsample_nearest_exact1d.vec,
            aten._upsample_nearest_exact1d.default,
        ),
    ),
    **each(
        {"self": IMAGE, "input": IMAGE, "output_size": [18, 5], "scale_factors": None, "align_corners": False},
        *(
            aten.upsample_bicubic2d.vec,
            aten.upsample_bicubic2d.default,
            aten._upsample_nearest_exact2d.vec,
            aten._upsample_nearest_exact2d.default,
        ),
        *(
            aten._upsample_bilinear2d_aa.vec,
            aten._upsample_bilinear2d_aa.default,
            aten._upsample_bicubic2d_aa.vec,
            aten._upsample_bicubic2d_aa.default,
        ),
    ),
    **each(
        {"input": IMAGE, "grid": Input((2, 4, 5, 2)), **SAMPLING},
        aten.grid_sampler.default,
        aten.grid_sampler_2d.default,
    ),
    aten.affine_grid_generator.default: {"theta": Input((2, 2, 3)), "size": [2, 1, 4, 5], "align_corners": False},
    **each(
        {"self": X, "condition": Mask((2, 6))},
        aten.where.self,
        aten.where.ScalarOther,
        aten.where.ScalarSelf,
        aten.where.Scalar,
    ),
    **each(
        {"self": Mask((2, 6)), "other": Mask((1, 6))},
        *(aten.bitwise_not.default, aten.bitwise_and.Tensor, aten.bitwise_or.Tensor, aten.bitwise_xor.Tensor),
        *(aten.__and__.Tensor, aten.__or__.Tensor, aten.__xor__.Tensor),
    ),
    **each(
        {"self": Mask((2, 6)), "other": True},
        *(
            aten.bitwise_and.Scalar,
            aten.bitwise_or.Scalar,
            aten.bitwise_xor.Scalar,
            aten.__and__.Scalar,
            aten.__or__.Scalar,
            aten.__xor__.Scalar,
        ),
    ),
    aten.where.Scalar: {"self": 0.3, "other": 0.4, "condition": Mask((2, 6))},
    aten.where.ScalarSelf: {"self": 0.3, "other": X, "condition": Mask((2, 6))},
    aten.masked_fill.Scalar: {"self": X, "mask": Mask((2, 6)), "value": 0.3},
    aten.masked_fill.Tensor: {"self": X, "mask": Mask((2, 6)), "value": Weight(())},
    aten.threshold.default: {"self": X, "threshold": 0.1, "value": 0.3},
    aten.pow.Scalar: {"self": 1.7, "exponent": X},
    aten.rrelu.default: {"self": X},
    **each({"size": [2, 3], "fill_value": 0.3}, aten.zeros.default, aten.ones.default, aten.full.default),
    aten.prelu.default: {"self": IMAGE, "weight": CHANNELS},
    aten._prelu_kernel.default: {"self": X, "weight": Weight((1, 1))},
    **each({"self": X, "rounding_mode": None}, aten.div.Tensor_mode, aten.div.Scalar_mode),
    aten.pow.Tensor_Scalar: {"self": X, "exponent": 2},
    aten.pow.Tensor_Tensor: {"self": X, "exponent": Y},
}
"""Arguments to start from, where the schema's defaults and ``{"self": X}`` do not do."""

OTHERS: dict[str, list[Any]] = {
    **{"stride": [[2, 1], [2], [2, 1, 1]], "padding": [[1, 0], [1], [1, 0, 0], [2, 1, 1, 2], "same"]},
    **{
        "dilation": [[2, 2], [2]],
        "transposed": [True],
        "output_padding": [[1, 1]],
        "output_size": [[4, 2], [4], [7, 9]],
    },
    **{
        "kernel_size": [[3, 2], [4], [3, 1, 1]],
        "ceil_mode": [True],
        "count_include_pad": [False],
        "divisor_override": [3],
    },
    **{
        "dim": [0, [0], [1, 2], -1],
        "keepdim": [True],
        "dtype": [torch.float64],
        "half_to_float": [True],
        "dims": [[0, 3, 2, 1], [2]],
    },
    **{
        "align_corners": [True],
        "scale_factors": [[2.0, 1.45], [1.45]],
        "scales_h": [2.1],
        "scales_w": [1.45],
        "training": [True],
        "momentum": [0.5],
        "eps": [0.1],
    },
    **{
        "memory_format": [torch.channels_last, torch.contiguous_format],
        "layout": [torch.strided],
        "device": [torch.device("cpu")],
    },
    **{
        "pin_memory": [False],
        "non_blocking": [True],
        "copy": [True],
        "implicit": [True],
        "cudnn_enabled": [True],
        "p": [0.3],
        "train": [True],
    },
    **{
        "size": [[4, 3], [5, 6], [2, 1, 3, 7], 2],
        "shape": [[4, 3]],
        "sizes": [[3, 2]],
        "start_dim": [1],
        "end_dim": [1],
        "dim0": [3, -1],
        "dim1": [0, -1],
    },
    **{
        "start": [1, -2, -5],
        "end": [1, -2, -1],
        "step": [2],
        "index": [0, -1],
        "split_size": [3],
        "split_sizes": [[1, 3]],
    },
    **{"repeats": [[1, 3]], "shifts": [[-3]]},
    **{
        "pad": [[-1, 0, 2, 2]],
        "mode": ["reflect"],
        "value": [1.5],
        "alpha": [3],
        "beta": [2],
        "threshold": [0.5],
        "other": [0.7, False],
        "min": [-0.1, 0],
    },
    **{
        "max": [0.5],
        "min_val": [-0.3],
        "max_val": [0.4],
        "negative_slope": [0.3],
        "approximate": ["tanh"],
        "scale": [1.7],
        "input_scale": [0.6],
    },
    **{
        "exponent": [3, 0.5],
        "rounding_mode": ["floor", "trunc"],
        "is_causal": [True],
        "scale_factor": [2.0],
        "enable_gqa": [True],
    },
    **{
        "dropout_p": [0.5],
        "p": [0.3, 1.0, 3.0],
        "compute_mode": [1],
        "normalized_shape": [[2, 6]],
        "num_groups": [4],
        "group": [4],
    },
    **{
        "use_input_stats": [False],
        "unbiased": [False],
        "correction": [0, 2],
        "ord": [1, float("inf"), float("-inf"), 0, 3],
        "k": [3],
        "largest": [False],
    },
    **{
        "sorted": [False],
        "descending": [True],
        "stable": [False],
        "padding_idx": [1],
        "scale_grad_by_freq": [True],
        "sparse": [True],
        "accumulate": [True],
    },
    **{
        "unsafe": [True],
        "diagonal": [1, -2],
        "dimension": [-1],
        "num_layers": [2],
        "has_biases": [False],
        "dropout": [0.3],
        "bidirectional": [True],
    },
    **{
        "batch_first": [True],
        "interpolation_mode": [1, 2],
        "padding_mode": [1, 2],
        "scales": [1.4],
        "lower": [0.2],
        "upper": [0.4],
        "fill_value": [2],
    },
    **{"self": [0.7], "nan": [0.1], "posinf": [3.0], "neginf": [-3.0], "cudnn_enable": [False], "sparse_grad": [True]},
    **{
        "reduce": ["prod", "mean", "amax", "amin", "add", "multiply"],
        "include_self": [False],
        "offset": [1, -1],
        "dim2": [2],
        "tensors": [[Input((3,)), Input(()), Input((4,))]],
        "out_int32": [True],
        "right": [True],
        "side": ["right"],
        "indexing": ["xy"],
        "num_classes": [5, -1],
        "indices": [[Places((3,))], [Places((3,)), Places((1,), 6)]],
    },
}
"""Other values of an argument, by its name; those that ATen refuses for an operator are left out."""

EXCLUSIVE: dict[str, dict[str, Any]] = {
    "scale_factors": {"output_size": None},
    "is_causal": {"attn_mask": None},
    "step": {"src": Input((2, 2))},
}
"""Arguments that others have to make room for."""

FIXED = (
    "groups",
    "half_to_float",
    "N",
    "C",
    "HxW",
    "num_layers",
    "has_biases",
    "bidirectional",
    "params",
    "generator",
    "enable_gqa",
    "output_padding",
    "normalized_shape",
    "hx",
)
"""What the shapes of the operands and fp32 leave one legal value, which the examples have (groups is 2 there, not the
default), and random generators."""

VARIED = [operator for operator in {**RULES, **COMPOSITES} if operator.namespace == "aten"]


def example_of(operator: Any) -> dict[str, Any]:
    """Arguments with which an operator compiles; those that it does not have are left out of the shared examples."""
    arguments = {argument.name: argument for argument in operator._schema.arguments}
    other = {"other": Y if "Tensor" in str(arguments["other"].type) else 0.7} if "other" in arguments else {}
    return {
        name: value for name, value in {**other, **EXAMPLES.get(operator, {"self": X})}.items() if name in arguments
    }


def graph_of(operator: Any, args: dict[str, Any]) -> tuple[GraphModule, list[Tensor], Node]:
    """A graph of one call (and, where it gives several values, of its last one, or of a pooling's or batch norm's
    first)."""
    generator = torch.Generator().manual_seed(1)
    root, graph, inputs = nn.Module(), Graph(), []

    def operand(value: Any) -> Any:
        if not isinstance(value, Input):
            return value
        tensor = torch.rand(value.shape, generator=generator) * 2 - (0 if isinstance(value, Weight) else 1)
        tensor = (tensor * value.end / 2).long() if isinstance(value, Places) else tensor
        tensor = tensor.sort()[0] if isinstance(value, Sorted) else tensor
        if isinstance(value, Weight):
            name = f"weight_{len(graph.nodes)}"
            assign_attribute(root, name, tensor)
            return graph.create_node("get_attr", name)
        inputs.append(tensor)
        x = graph.placeholder(f"x{len(graph.nodes)}")
        return graph.call_function(aten.gt.Scalar, (x, 0)) if isinstance(value, Mask) else x

    arguments = {
        name: pytree.tree_map(operand, value, is_leaf=lambda v: isinstance(v, Input)) for name, value in args.items()
    }
    positional, keyword, all_positional = [], {}, True
    for argument in operator._schema.arguments:
        all_positional = all_positional and argument.name in arguments and not argument.kwarg_only
        if all_positional:
            positional.append(arguments[argument.name])
        elif argument.name in arguments:
            keyword[argument.name] = arguments[argument.name]
    node = graph.call_function(operator, tuple(positional), keyword)
    returns = [str(result.type) for result in operator._schema.returns]
    result = node
    if len(returns) > 1 or returns[0].startswith("List"):
        result = graph.call_function(getitem, (node, 0 if len(returns) > 1 else 1))
    graph.output((result,))
    graph_module = GraphModule(root, graph)
    infer_all(graph_module, inputs)
    return graph_module, inputs, node


def outcome(operator: Any, args: dict[str, Any]) -> str | None:
    """Why the call is refused; None if it compiles to what ATen computes; ``illegal`` if ATen refuses it."""
    try:
        graph_module, inputs, _ = graph_of(operator, args)
        expected = run_graph(graph_module, inputs)
    except (RuntimeError, IndexError, TypeError, ValueError, AssertionError):
        return "illegal"
    Decompose()(graph_module)
    Canonicalize()(graph_module)
    left = [reason for part in graph_module.graph.nodes for reason in skips(part)]
    if left:
        return str(left[0].reason)
    assert {
        part.target for part in graph_module.graph.nodes if part.op == "call_function" and not is_constant(part)
    } <= CANONICAL
    actual = [value.double() for value in run_graph(graph_module, inputs)]  # whole numbers and truth are fp32 values
    torch.testing.assert_close(
        actual,
        [want.double() for want in expected],
        rtol=3e-6,
        atol=3e-6,
        equal_nan=True,
        msg=f"{operator}({args}) computes something else",
    )
    return None


@pytest.mark.parametrize("operator", VARIED, ids=str)
def test_no_argument_is_dropped(operator: Any) -> None:
    start = example_of(operator)
    assert outcome(operator, start) is None, "the example itself must compile"
    for argument in operator._schema.arguments:
        if (
            "Tensor" in str(argument.type)
            and not isinstance(start.get(argument.name), list)
            and argument.name not in ("min", "max")
        ):
            continue
        exclusive = {name: value for name, value in EXCLUSIVE.get(argument.name, {}).items() if name in start}
        varied = [
            outcome(operator, {**start, **exclusive, argument.name: value})
            for value in [*OTHERS.get(argument.name, []), *_tensors(argument)]
        ]
        assert (
            argument.name in FIXED or operator is aten.col2im.default or any(reason != "illegal" for reason in varied)
        ), f"{argument.name} of {operator} is never varied: add a value to OTHERS"


def _tensors(argument: Any) -> list[Any]:
    return [[X, X, X]] if "List[Tensor]" in str(argument.type) else [X] if "Tensor" in str(argument.type) else []


def test_an_argument_that_a_rule_does_not_name_is_refused() -> None:
    def rule(node: Node, self: Node) -> None:
        raise AssertionError("called although an argument would be dropped")

    _, _, node = graph_of(aten.softplus.default, {"self": X, "beta": 1, "threshold": 3})
    with pytest.raises(CannotCompile, match="argument threshold=3"):
        apply_rule(rule, node)

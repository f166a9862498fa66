"""Reductions over axes, softmax, cumulative sums, the largest k."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from pcc.frontend.onnx.emitter import Emitter, Refused, Value, dtype, integers, number, rank, shape
from pcc.frontend.onnx.rule import Rule
from pcc.frontend.onnx.rules.arithmetic import convert
from pcc.frontend.onnx.rules.moves import axes_of

_aten: Any = torch.ops.aten

_Reduce = Any
"""``(emit, x, axes, keepdims) -> Value``, axes not negative, at least one."""


def _reduction(reduce: _Reduce) -> Rule:
    def rule(
        emit: Emitter,
        x: Value,
        axes_input: Value | None = None,
        *,
        axes: Sequence[int] | None = None,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Value:
        """Axes are an attribute in older opsets, an input in newer ones; without any all are reduced, or none where
        that is asked for."""
        chosen = integers(axes_input if axes_input is not None else axes, "its axes are")
        if not chosen and noop_with_empty_axes:
            return _elementwise_part(emit, reduce, x)
        dims = sorted(axes_of(chosen, rank(x))) if chosen else list(range(rank(x)))
        return _elementwise_part(emit, reduce, x) if not dims else reduce(emit, x, dims, bool(keepdims))

    return rule


def _axis(axis: int, x: Value) -> int:
    if not -rank(x) <= axis < rank(x):
        raise Refused(f"axis {axis} of {shape(x)}")
    return axis % rank(x)


def _elementwise_part(emit: Emitter, reduce: _Reduce, x: Value) -> Value:
    """What a reduction over no axis does: the sum of one square is that square."""
    return emit.call(_aten.squeeze.dim, reduce(emit, emit.call(_aten.unsqueeze.default, x, 0), [0], True), 0)


def _sum(emit: Emitter, x: Value, dims: list[int], keep: bool) -> Value:
    return emit.call(
        _aten.sum.dim_IntList, x, dims, keep, **({} if dtype(x).is_floating_point else {"dtype": dtype(x)})
    )


def _mean(emit: Emitter, x: Value, dims: list[int], keep: bool) -> Value:
    if dtype(x).is_floating_point:
        return emit.call(_aten.mean.dim, x, dims, keep)
    count = prod(shape(x)[dim] for dim in dims)
    return emit.call(
        _aten.div.Tensor_mode, _sum(emit, x, dims, keep), torch.tensor(count, dtype=dtype(x)), rounding_mode="trunc"
    )


def _extreme(target: Any) -> _Reduce:
    def reduce(emit: Emitter, x: Value, dims: list[int], keep: bool) -> Value:
        return emit.call(target, x, dims, keep)

    return reduce


def _product(emit: Emitter, x: Value, dims: list[int], keep: bool) -> Value:
    for dim in reversed(dims):
        x = emit.call(_aten.prod.dim_int, x, dim, keep, **({} if dtype(x).is_floating_point else {"dtype": dtype(x)}))
    return x


def p_norm(emit: Emitter, x: Value, p: int, dims: list[int], keep: bool) -> Value:
    """The root of the sum of powers; in the type of x."""
    if p == 1:
        return _sum(emit, emit.call(_aten.abs.default, x), dims, keep)
    if p == 2:
        total = _sum(emit, emit.call(_aten.mul.Tensor, x, x), dims, keep)
        return convert(emit, emit.call(_aten.sqrt.default, total), dtype(x))
    powers = emit.call(_aten.pow.Tensor_Scalar, emit.call(_aten.abs.default, x), p)
    return emit.call(_aten.pow.Tensor_Scalar, _sum(emit, powers, dims, keep), 1 / p)


def _l1(emit: Emitter, x: Value, dims: list[int], keep: bool) -> Value:
    return p_norm(emit, x, 1, dims, keep)


def _l2(emit: Emitter, x: Value, dims: list[int], keep: bool) -> Value:
    return p_norm(emit, x, 2, dims, keep)


def _log_sum(emit: Emitter, x: Value, dims: list[int], keep: bool) -> Value:
    return convert(emit, emit.call(_aten.log.default, _sum(emit, x, dims, keep)), dtype(x))


def _log_sum_exp(emit: Emitter, x: Value, dims: list[int], keep: bool) -> Value:
    return convert(emit, emit.call(_aten.logsumexp.default, x, dims, keep), dtype(x))


def _sum_square(emit: Emitter, x: Value, dims: list[int], keep: bool) -> Value:
    return _sum(emit, emit.call(_aten.mul.Tensor, x, x), dims, keep)


# ---- softmax and its like ----


def _softmax(target: Any) -> Rule:
    def rule(emit: Emitter, x: Value, *, axis: int | None = None) -> Value:
        """Before opset 13 over all dimensions from ``axis`` on (1 by default), since then over one (the last by
        default)."""
        chosen = _axis(axis if axis is not None else -1 if emit.opset >= 13 else min(1, rank(x) - 1), x)
        if emit.opset >= 13 or prod(shape(x)[chosen + 1 :]) == 1:
            return emit.call(target, x, chosen)
        flat = emit.call(_aten.reshape.default, x, [prod(shape(x)[:chosen]), prod(shape(x)[chosen:])])
        return emit.call(_aten.reshape.default, emit.call(target, flat, 1), list(shape(x)))

    return rule


def hardmax(emit: Emitter, x: Value, *, axis: int | None = None) -> Value:
    """One where the first of the largest values is, zero elsewhere."""
    chosen = _axis(axis if axis is not None else -1 if emit.opset >= 13 else 1, x)
    if emit.opset < 13 and prod(shape(x)[chosen + 1 :]) != 1:
        flat = emit.call(_aten.reshape.default, x, [prod(shape(x)[:chosen]), prod(shape(x)[chosen:])])
        return emit.call(_aten.reshape.default, _hardmax(emit, flat, 1), list(shape(x)))
    return _hardmax(emit, x, chosen)


def _hardmax(emit: Emitter, x: Value, axis: int) -> Value:
    places = torch.arange(shape(x)[axis]).reshape([-1 if dim == axis else 1 for dim in range(rank(x))])
    return convert(emit, emit.call(_aten.eq.Tensor, emit.call(_aten.argmax.default, x, axis, True), places), dtype(x))


def _arg(target: Any) -> Rule:
    def rule(emit: Emitter, x: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Value:
        axis = _axis(axis, x)
        if not select_last_index:
            return emit.call(target, x, axis, bool(keepdims))
        places = emit.call(target, emit.call(_aten.flip.default, x, [axis]), axis, bool(keepdims))
        return emit.call(_aten.rsub.Scalar, places, shape(x)[axis] - 1)

    return rule


def top_k(
    emit: Emitter,
    x: Value,
    count: Value | None = None,
    *,
    k: int | None = None,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,
) -> tuple[Value, ...]:
    many = int(number(count, "its k is")) if count is not None else k
    if many is None:
        raise Refused("k is missing")
    along = _axis(axis, x)
    if not any(emit.used[1:]):
        return tuple(emit.call(_aten.topk.default, x, many, along, bool(largest), bool(sorted)))
    # Of equal values the first ones, which topk does not promise.
    values, places = emit.call(_aten.sort.stable, x, stable=True, dim=along, descending=bool(largest))
    return emit.call(_aten.slice.Tensor, values, along, 0, many), emit.call(_aten.slice.Tensor, places, along, 0, many)


def _cumulative(target: Any, start: int) -> Rule:
    def rule(emit: Emitter, x: Value, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> Value:
        """``exclusive``: of what comes before an element, from ``start`` on."""
        along = _axis(int(number(axis, "its axis is")), x)
        if reverse:
            x = emit.call(_aten.flip.default, x, [along])
        if exclusive:
            first = torch.full(
                [1 if dim == along else size for dim, size in enumerate(shape(x))], start, dtype=dtype(x)
            )
            x = emit.call(
                _aten.cat.default, [first, emit.call(_aten.slice.Tensor, x, along, 0, shape(x)[along] - 1)], along
            )
        total = emit.call(target, x, along, **({} if dtype(x).is_floating_point else {"dtype": dtype(x)}))
        return emit.call(_aten.flip.default, total, [along]) if reverse else total

    return rule


RULES: dict[str, Rule] = {
    "ReduceSum": _reduction(_sum),
    "ReduceMean": _reduction(_mean),
    "ReduceMax": _reduction(_extreme(_aten.amax.default)),
    "ReduceMin": _reduction(_extreme(_aten.amin.default)),
    "ReduceProd": _reduction(_product),
    "ReduceL1": _reduction(_l1),
    "ReduceL2": _reduction(_l2),
    "ReduceLogSum": _reduction(_log_sum),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "ReduceSumSquare": _reduction(_sum_square),
    "Softmax": _softmax(_aten.softmax.int),
    "LogSoftmax": _softmax(_aten.log_softmax.int),
    "Hardmax": hardmax,
    "ArgMax": _arg(_aten.argmax.default),
    "ArgMin": _arg(_aten.argmin.default),
    "TopK": top_k,
    "CumSum": _cumulative(_aten.cumsum.default, 0),
    "CumProd": _cumulative(_aten.cumprod.default, 1),
}

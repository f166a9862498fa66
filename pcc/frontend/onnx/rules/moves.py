"""Data movement: shapes, order, parts, copies, padding."""

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from pcc.frontend.onnx.emitter import Emitter, Refused, Value, check_size, dtype, integers, number, rank, shape
from pcc.frontend.onnx.rule import Rule
from pcc.frontend.onnx.rules.windows import pad_list

_aten: Any = torch.ops.aten


def axis_of(axis: int, dimensions: int) -> int:
    if not -dimensions <= axis < dimensions:
        raise Refused(f"axis {axis} of {dimensions} dimensions")
    return axis % dimensions


def axes_of(axes: Iterable[int], dimensions: int) -> list[int]:
    """Each another one."""
    chosen = [axis_of(axis, dimensions) for axis in axes]
    if len(set(chosen)) < len(chosen):
        raise Refused(f"the axes {chosen}, of which one comes twice")
    return chosen


def reshaped(emit: Emitter, x: Value, sizes: Sequence[int]) -> Value:
    return x if shape(x) == tuple(sizes) else emit.called_like(emit.call(_aten.reshape.default, x, list(sizes)), x)


def identity(emit: Emitter, x: Value) -> Value:
    return x


def reshape(emit: Emitter, x: Value, sizes: Value, *, allowzero: int = 0) -> Value:
    """0 keeps a dimension, or is one of size 0 where that is allowed; -1 is what is left."""
    wanted = integers(sizes, "its shape is")
    assert wanted is not None
    if not allowzero:
        if any(size == 0 and place >= rank(x) for place, size in enumerate(wanted)):
            raise Refused(f"a shape of {wanted} for a value of {shape(x)}")
        wanted = [shape(x)[place] if size == 0 else size for place, size in enumerate(wanted)]
    if wanted.count(-1) == 1 and 0 not in wanted:
        wanted[wanted.index(-1)] = prod(shape(x)) // -prod(wanted)
    return reshaped(emit, x, wanted)


def flatten(emit: Emitter, x: Value, *, axis: int = 1) -> Value:
    axis = axis if axis == rank(x) else axis_of(axis, max(1, rank(x)))
    return reshaped(emit, x, [prod(shape(x)[:axis]), prod(shape(x)[axis:])])


def transpose(emit: Emitter, x: Value, *, perm: Sequence[int] | None = None) -> Value:
    order = list(perm) if perm is not None else list(reversed(range(rank(x))))
    return emit.called_like(emit.call(_aten.permute.default, x, order), x)


def squeeze(emit: Emitter, x: Value, axes_input: Value | None = None, *, axes: Sequence[int] | None = None) -> Value:
    chosen = integers(axes_input if axes_input is not None else axes, "its axes are")
    dims = axes_of(chosen, rank(x)) if chosen is not None else [dim for dim, size in enumerate(shape(x)) if size == 1]
    if any(shape(x)[dim] != 1 for dim in dims):
        raise Refused(f"axes {sorted(dims)} of a value of {shape(x)} are not all 1")
    return reshaped(emit, x, [size for dim, size in enumerate(shape(x)) if dim not in dims])


def unsqueeze(emit: Emitter, x: Value, axes_input: Value | None = None, *, axes: Sequence[int] | None = None) -> Value:
    chosen = integers(axes_input if axes_input is not None else axes, "its axes are")
    if chosen is None:
        raise Refused("its axes are missing")
    dims = axes_of(chosen, rank(x) + len(chosen))
    old = iter(shape(x))
    return reshaped(emit, x, [1 if dim in dims else next(old) for dim in range(rank(x) + len(chosen))])


def concat(emit: Emitter, *values: Value, axis: int = 1) -> Value:
    return values[0] if len(values) == 1 else emit.call(_aten.cat.default, list(values), axis_of(axis, rank(values[0])))


def split(
    emit: Emitter,
    x: Value,
    sizes_input: Value | None = None,
    *,
    axis: int = 0,
    split: Sequence[int] | None = None,
    num_outputs: int | None = None,
) -> list[Value]:
    """In listed parts, or in as many as there are outputs, the last of which may be smaller."""
    axis = axis_of(axis, rank(x))
    sizes = integers(sizes_input if sizes_input is not None else split, "its sizes are")
    count, have = len(emit.used), shape(x)[axis]
    if sizes is None:
        if num_outputs not in (None, count):
            raise Refused(f"num_outputs={num_outputs} of a node with {count} outputs")
        part = -(-have // count)
        sizes = [max(0, min(part, have - part * place)) for place in range(count)]
    if sum(sizes) != have or len(sizes) != count:
        raise Refused(f"parts of {sizes} of {have}, for {count} outputs")
    return emit.call(_aten.split_with_sizes.default, x, sizes, axis)


def slice_(
    emit: Emitter,
    x: Value,
    first: Value | None = None,
    last: Value | None = None,
    along: Value | None = None,
    by: Value | None = None,
    *,
    starts: Sequence[int] | None = None,
    ends: Sequence[int] | None = None,
    axes: Sequence[int] | None = None,
) -> Value:
    """Starts, ends and axes are attributes up to opset 9, inputs since."""
    begins = integers(first if first is not None else starts, "its starts are")
    stops = integers(last if last is not None else ends, "its ends are")
    if begins is None or stops is None:
        raise Refused("its starts or ends are missing")
    dims = axes_of(integers(along if along is not None else axes, "its axes are") or range(len(begins)), rank(x))
    steps = integers(by, "its steps are") or [1] * len(begins)
    for dim, begin, stop, step in zip(dims, begins, stops, steps, strict=True):
        have = shape(x)[dim]
        taken = range(*slice(begin, stop, step).indices(have))
        if step < 0:  # starts are clamped to an element, where Python's slices are empty
            start, end = (place if place >= 0 else place + have for place in (begin, stop))
            x = pick(emit, x, dim, range(min(max(start, 0), have - 1), max(end, -1), step))
        elif (taken.start, taken.stop, step) != (0, have, 1):
            x = emit.call(_aten.slice.Tensor, x, dim, taken.start, max(taken.start, taken.stop), step)
    return x


def pick(emit: Emitter, x: Value, dim: int, places: Sequence[int]) -> Value:
    """Rows of one dimension by their numbers: nothing, a slice, a reversal, or a list."""
    count = len(places)
    if list(places) == list(range(shape(x)[dim])):
        return x
    if count and list(places) == list(range(places[0], places[0] + count)):
        return emit.call(_aten.slice.Tensor, x, dim, places[0], places[0] + count)
    if count and list(places) == list(reversed(range(shape(x)[dim]))):
        return emit.call(_aten.flip.default, x, [dim])
    return emit.call(_aten.index_select.default, x, dim, torch.tensor(places, dtype=torch.int64))


def expand(emit: Emitter, x: Value, sizes: Value) -> Value:
    wanted = integers(sizes, "its shape is")
    assert wanted is not None
    check_size(wanted)
    target = torch.broadcast_shapes(shape(x), tuple(wanted))
    return x if shape(x) == tuple(target) else emit.call(_aten.expand.default, x, list(target))


def tile(emit: Emitter, x: Value, repeats: Value) -> Value:
    counts = integers(repeats, "its repeats are")
    assert counts is not None
    return x if all(count == 1 for count in counts) else emit.call(_aten.repeat.default, x, counts)


_MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def pad(
    emit: Emitter,
    x: Value,
    amounts: Value | None = None,
    value_input: Value | None = None,
    along: Value | None = None,
    *,
    mode: str = "constant",
    pads: Sequence[int] | None = None,
    value: float = 0.0,
) -> Value:
    """Amounts and value are attributes up to opset 10, inputs since."""
    wanted = integers(amounts if amounts is not None else pads, "its pads are")
    if wanted is None:
        raise Refused("its pads are missing")
    dims = axes_of(integers(along, "its axes are") or range(rank(x)), rank(x))
    if len(wanted) != 2 * len(dims):
        raise Refused(f"pads={wanted} for {len(dims)} axes")
    pairs = [(0, 0)] * rank(x)
    for place, dim in enumerate(dims):
        pairs[dim] = wanted[place], wanted[place + len(dims)]
    if mode == "constant":
        fill = number(value_input, "its value is") if value_input is not None else value
        return x if not any(map(any, pairs)) else emit.call(_aten.constant_pad_nd.default, x, pad_list(pairs), fill)
    if mode not in _MODES:
        raise Refused(f"mode={mode}")
    padded = [dim for dim, pair in enumerate(pairs) if any(pair)]
    image = rank(x) in (3, 4) and all(dim >= 2 for dim in padded) and dtype(x).is_floating_point
    reach = {"reflect": -1, "edge": 1 << 60, "wrap": 0}[mode]
    if padded and image and all(0 <= amount <= shape(x)[dim] + reach for dim in padded for amount in pairs[dim]):
        return emit.call(_aten.pad.default, x, pad_list(pairs[2:]), _MODES[mode])
    for dim in padded:
        x = pick(
            emit,
            x,
            dim,
            _sources(pairs[dim], shape(x)[dim], mode),
        )
    return x


def _sources(pads: tuple[int, int], size: int, mode: str) -> list[int]:
    """Where each element of a padded dimension comes from."""
    places = range(-pads[0], size + pads[1])
    if mode == "wrap":  # repeats what cropping leaves
        begin, end = max(0, -pads[0]), size + min(0, pads[1])
        return [begin + (place - begin) % (end - begin) for place in places]
    return [_source(place, size, mode) for place in places]


def _source(place: int, size: int, mode: str) -> int:
    """Where the element at ``place``, inside or outside, comes from."""
    if mode == "edge" or size == 1:
        return min(max(place, 0), size - 1)
    place %= 2 * (size - 1)
    return min(place, 2 * (size - 1) - place)


def depth_to_space(emit: Emitter, x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    """``DCR`` has the block's place outside of the channel (TensorFlow), ``CRD`` inside (pixel shuffle)."""
    if mode == "CRD":
        return emit.call(_aten.pixel_shuffle.default, x, blocksize)
    if mode != "DCR":
        raise Refused(f"mode={mode}")
    n, c, h, w = _image(x)
    depth = c // blocksize**2
    split = reshaped(emit, x, [n, blocksize, blocksize, depth, h, w])
    return reshaped(
        emit, emit.call(_aten.permute.default, split, [0, 3, 4, 1, 5, 2]), [n, depth, h * blocksize, w * blocksize]
    )


def space_to_depth(emit: Emitter, x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    if mode == "CRD":
        return emit.call(_aten.pixel_unshuffle.default, x, blocksize)
    n, c, h, w = _image(x)
    split = reshaped(emit, x, [n, c, h // blocksize, blocksize, w // blocksize, blocksize])
    return reshaped(
        emit,
        emit.call(_aten.permute.default, split, [0, 3, 5, 1, 2, 4]),
        [n, c * blocksize**2, h // blocksize, w // blocksize],
    )


def _image(x: Value) -> tuple[int, int, int, int]:
    if rank(x) != 4:
        raise Refused(f"a value of {shape(x)}, which is no NCHW image")
    n, c, h, w = shape(x)
    return n, c, h, w


def center_crop_pad(emit: Emitter, x: Value, sizes: Value, *, axes: Sequence[int] | None = None) -> Value:
    """Cut or padded with zeros to a size, alike on both sides; the odd one is at the end."""
    wanted = integers(sizes, "its shape is")
    assert wanted is not None
    dims = axes_of(axes if axes is not None else range(rank(x)), rank(x))
    for dim, want in zip(dims, wanted, strict=True):
        have = shape(x)[dim]
        if want < have:
            begin = (have - want) // 2
            x = emit.call(_aten.slice.Tensor, x, dim, begin, begin + want)
        elif want > have:
            before = (want - have) // 2
            pairs = [(before, want - have - before) if place == dim else (0, 0) for place in range(rank(x))]
            x = emit.call(_aten.constant_pad_nd.default, x, pad_list(pairs), 0)
    return x


def columns_to_image(
    emit: Emitter,
    x: Value,
    sizes: Value,
    block: Value,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Windows, laid back into their padded image and added up; then the padding goes."""
    image, kernel = integers(sizes, "its image_shape is"), integers(block, "its block_shape is")
    if image is None or kernel is None or len(image) != 2 or len(kernel) != 2:
        raise Refused(f"image_shape={image}, block_shape={kernel}; pcc has it for images")
    top, left, bottom, right = pads or (0, 0, 0, 0)
    padded = [image[0] + top + bottom, image[1] + left + right]
    result = emit.call(
        _aten.col2im.default, x, padded, kernel, list(dilations or (1, 1)), [0, 0], list(strides or (1, 1))
    )
    return (
        emit.call(_aten.constant_pad_nd.default, result, [-left, -right, -top, -bottom], 0.0)
        if pads and any(pads)
        else result
    )


def reverse_sequence(emit: Emitter, x: Value, lengths: Value, *, batch_axis: int = 1, time_axis: int = 0) -> Value:
    """The first so many steps of each row turned round."""
    counts = integers(lengths, "its sequence lengths are")
    if counts is None or {batch_axis, time_axis} != {0, 1} or len(counts) != shape(x)[batch_axis]:
        raise Refused(f"batch_axis={batch_axis}, time_axis={time_axis} of {shape(x)} with {counts} steps")
    steps = shape(x)[time_axis]
    table = torch.tensor([[count - 1 - step if step < count else step for count in counts] for step in range(steps)])
    rows = torch.arange(len(counts)).expand(steps, -1)
    return emit.call(_aten.index.Tensor, x, [rows.T.contiguous(), table.T.contiguous()] if time_axis else [table, rows])


def trilu(emit: Emitter, x: Value, k: Value | None = None, *, upper: int = 1) -> Value:
    diagonal = int(number(k, "its k is")) if isinstance(k, Tensor | torch.fx.Node) else 0
    return emit.call(_aten.triu.default if upper else _aten.tril.default, x, diagonal)


RULES: dict[str, Rule] = {
    "Identity": identity,
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "CenterCropPad": center_crop_pad,
    "Trilu": trilu,
    "Col2Im": columns_to_image,
    "ReverseSequence": reverse_sequence,
}

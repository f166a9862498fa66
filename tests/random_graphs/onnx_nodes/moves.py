"""Nodes that move data, or choose some of it by index."""

from typing import Any

import numpy as np

from tests.random_graphs.builder import Unfit
from tests.random_graphs.onnx_builder import OnnxBuilder, scalar, whole

# ---- moves ----


def view(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: True)
    value = b.values[x]
    rank = value.ndim
    match b.random.randrange(8):
        case 0 if rank > 1:
            first = b.random.randrange(rank - 1)
            shape = [0] * first + [value.shape[first] * value.shape[first + 1]] + list(value.shape[first + 2 :])
            if b.flag():
                shape[b.random.randrange(len(shape))] = -1
            b.add("Reshape", x, whole(*shape))
        case 1:
            d = b.divisor(value.size)
            b.add("Reshape", x, whole(*b.random.choice([[d, -1], [-1, d], [1, d, -1], [1, -1, d, 1]])))
        case 2 | 3:
            sizes: dict[str, Any] = (
                {"perm": b.random.sample(range(rank), rank)} if rank and b.random.random() < 0.8 else {}
            )
            b.add("Transpose", x, **sizes)
        case 4:
            axes = sorted({b.random.randint(0, rank) for _ in range(b.size(2))})
            b.add("Unsqueeze", x, whole(*axes)) if b.opset >= 13 else b.add("Unsqueeze", x, axes=axes)
        case 5:
            axes = [axis for axis in range(rank) if value.shape[axis] == 1 and b.flag()]
            if not axes:
                b.add("Squeeze", x)
            else:
                b.add("Squeeze", x, whole(*axes)) if b.opset >= 13 else b.add("Squeeze", x, axes=axes)
        case 6:
            b.add("Flatten", x, axis=b.random.randint(-rank, rank) if rank else 0)
        case _ if rank == 4:
            n = b.size(2)
            operator = b.random.choice(["DepthToSpace", "SpaceToDepth"])
            modes: dict[str, Any] = {"mode": b.random.choice(["DCR", "CRD"])} if operator == "DepthToSpace" else {}
            b.add(operator, x, blocksize=n, **modes)
        case _:
            b.add("Identity", x)


def spread(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.dtype != np.bool_)
    value = b.values[x]
    if b.flag():
        sizes = [b.size(3) if size == 1 else b.random.choice([1, size]) for size in value.shape]
        b.add("Expand", x, whole(*b.random.choice([[], [2]]), *sizes))
    else:
        b.add("Tile", x, whole(*(b.size(2) for _ in value.shape)))


def part(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.ndim > 0)
    value = b.values[x]
    axis = b.axis(value)
    size = value.shape[axis]
    if b.random.random() < 0.6:
        first = b.random.randrange(-size, size)
        last = b.random.choice([b.random.randint(-size, size), 2**31, 2**63 - 1])
        step = b.random.choice([1, 1, 2, -1, -2])
        if step < 0:
            last = b.random.choice([b.random.randint(-size, size), -(2**31), -(2**63)])
        b.add("Slice", x, whole(first), whole(last), whole(axis), whole(step))
    else:
        if size < 2:
            raise Unfit
        cut = b.random.randrange(1, size)
        if b.opset >= 13:
            b.add("Split", x, whole(cut, size - cut), axis=axis, outputs=2)
        else:
            b.add("Split", x, split=[cut, size - cut], axis=axis, outputs=2)


def concat(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.ndim > 0)
    value = b.values[x]
    axis = b.axis(value)
    d = axis % value.ndim

    def alike(y: np.ndarray) -> bool:
        if y.ndim != value.ndim or y.dtype != value.dtype:
            return False
        return all(y.shape[i] == value.shape[i] for i in range(y.ndim) if i != d)

    b.add("Concat", x, *(b.pick(alike) for _ in range(b.size(2))), axis=axis)


def pad(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.dtype == np.float32 and x.ndim > 0)
    value = b.values[x]
    mode = b.random.choice(["constant", "constant", "reflect", "edge"])
    pads = [b.random.randint(-1 if mode == "constant" else 0, 2) if b.flag() else 0 for _ in range(2 * value.ndim)]
    if mode == "reflect":
        pads = [min(amount, value.shape[place % value.ndim] - 1) for place, amount in enumerate(pads)]
    fill = b.random.choice([None, scalar(0), scalar(1.5)]) if mode == "constant" else None
    b.add("Pad", x, whole(*pads), fill, mode=mode)


# ---- by index ----


def gather(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.ndim > 0)
    value = b.values[x]
    axis = b.axis(value)
    size = value.shape[axis]
    kind = b.random.choice([np.int64, np.int32])
    match b.random.randrange(5):
        case 0 | 1:
            shape = b.random.choice([(), (b.size(4),), (b.size(2), b.size(3))])
            b.add("Gather", x, np.asarray(b.numbers.integers(-size, size, shape), kind), axis=axis)
        case 2:
            shape = [b.size(n) if i == axis % value.ndim else n for i, n in enumerate(value.shape)]
            b.add("GatherElements", x, b.numbers.integers(-size, size, shape).astype(kind), axis=axis)
        case 3:
            depth = b.size(value.ndim)
            index = np.stack([b.numbers.integers(0, n, (2, 2)) for n in value.shape[:depth]], -1)
            b.add("GatherND", x, index)
        case _ if value.dtype == np.float32:
            if b.flag():
                shape = list(value.shape)
                count = shape[axis] = b.size(size)
                places = b.numbers.permutation(size)[:count].reshape(
                    [-1 if i == axis % value.ndim else 1 for i in range(value.ndim)]
                )
                b.add("ScatterElements", x, np.broadcast_to(places, shape).astype(kind), b.noise(*shape), axis=axis)
            else:
                count = b.size(value.shape[0])
                b.add(
                    "ScatterND",
                    x,
                    b.numbers.permutation(value.shape[0])[:count].reshape(-1, 1).astype(np.int64),
                    b.noise(count, *value.shape[1:]),
                )
        case _:
            raise Unfit


def gather_computed(b: OnnxBuilder) -> None:
    index = b.pick(lambda x: x.dtype.type in (np.int64, np.int32))
    most = int(b.values[index].max()) + 1
    if int(b.values[index].min()) < 0 or most > 64:
        raise Unfit
    if b.flag():
        b.add("Gather", b.noise(most + b.size(2), b.size(4)), index)
    else:
        b.add(
            "OneHot",
            index,
            whole(most + 1),
            np.array([0, 1], np.float32),
            axis=b.random.randint(-1, b.values[index].ndim),
        )


STEPS = [view, view, view, spread, part, part, concat, concat, pad, gather, gather, gather_computed]

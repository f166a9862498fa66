"""Steps that move data, or choose some of it by index."""

from typing import Any

import torch
import torch.nn.functional as F

from tests.random_graphs.builder import Builder, Unfit

# ---- moves ----


def view(b: Builder) -> None:  # noqa: C901  # a list of cases
    x = b.pick(lambda x: True)
    value = b.values[x]
    rank = value.dim()
    match b.random.randrange(13):
        case 0 | 1:
            shape = b.factors(value.numel(), b.size(4))
            b.add(lambda x: x.reshape(shape), x)
        case 2 | 3:
            order = b.random.sample(range(rank), rank)
            b.add(lambda x: x.permute(order), x)
        case 4:
            d = b.random.randint(-rank - 1, rank)
            b.add(lambda x: x.unsqueeze(d), x)
        case 5:
            b.add(lambda x: x.squeeze(), x)
        case 6 if rank > 1:
            first = b.random.randrange(rank)
            last = b.random.randrange(first, rank)
            b.add(lambda x: x.flatten(first, last), x)
        case 7:
            sizes = b.random.choice([[], [2]]) + [b.size(3) if size == 1 else -1 for size in value.shape]
            b.add(lambda x: x.expand(sizes), x)
        case 8 if rank == 4:
            r = b.random.choice([n for n in (1, 2, 3) if value.shape[1] % (n * n) == 0])
            b.add(lambda x: F.pixel_shuffle(x, r), x)
        case 9 if rank == 4:
            r = b.random.choice([n for n in (1, 2, 3) if value.shape[2] % n == value.shape[3] % n == 0])
            b.add(lambda x: F.pixel_unshuffle(x, r), x)
        case 10 if rank == 4:
            groups = b.divisor(value.shape[1])
            b.add(lambda x: F.channel_shuffle(x, groups) if groups > 1 else x.contiguous(), x)
        case 11:
            counts = [b.size(2) for _ in range(rank)]
            b.add(lambda x: x.repeat(*counts) if counts else x.clone(), x)
        case _:
            d = b.dim(value)
            shift = b.random.randint(-4, 4)
            b.add(
                b.random.choice(
                    [lambda x: x.flip(d), lambda x: torch.roll(x, shift, d), lambda x: torch.roll(x, shift)]
                ),
                x,
            )


def part(b: Builder) -> None:
    x = b.pick(lambda x: x.dim() > 0)
    value = b.values[x]
    d = b.dim(value)
    size = value.shape[d]
    match b.random.randrange(5):
        case 0 | 1:
            index = [slice(None)] * value.dim()
            first = b.random.randrange(size)
            index[d] = slice(first, b.random.randint(first + 1, size), b.size(3))
            b.add(lambda x: x[tuple(index)], x)
        case 2:
            place = b.random.randrange(-size, size)
            b.add(lambda x: x.select(d, place), x)
        case 3:
            sizes = b.size(size)
            b.add(lambda x: x.split(sizes, d), x)
        case _:
            count = b.size(3)
            b.add(lambda x: x.chunk(count, d), x)


def join(b: Builder) -> None:
    x = b.pick(lambda x: x.dim() > 0)
    value = b.values[x]
    d = b.dim(value) % value.dim()

    def alike(y: torch.Tensor) -> bool:
        if y.dim() != value.dim() or y.dtype != value.dtype:
            return False
        return all(y.shape[i] == value.shape[i] for i in range(y.dim()) if i != d)

    others = [b.pick(alike) for _ in range(b.size(2))]
    b.add(lambda *xs: torch.cat(xs, d), x, *others)


def stack(b: Builder) -> None:
    x = b.pick(lambda x: True)
    y = b.pick(lambda y: y.shape == b.values[x].shape and y.dtype == b.values[x].dtype)
    d = b.random.randint(-b.values[x].dim() - 1, b.values[x].dim())
    b.add(lambda *xs: torch.stack(xs, d), x, y, x)


def pad(b: Builder) -> None:
    x = b.pick(lambda x: x.is_floating_point() and x.dim() > 1)
    value = b.values[x]
    mode = b.random.choice(["constant", "constant", "reflect", "replicate", "circular"])
    most = value.dim() if mode == "constant" else value.dim() - 2 or 1
    least = -1 if mode == "constant" else 0
    widths = [b.random.randint(least, 2) for _ in range(2 * (b.size(most) if mode == "constant" else most))]
    fill = b.random.choice([None, 0.0, 1.5]) if mode == "constant" else None
    b.add(lambda x: F.pad(x, widths, mode, fill), x)


def unfold(b: Builder) -> None:
    x = b.real(4)
    kernel, dilation, padding, stride = b.size(3), b.size(2), b.random.randint(0, 1), b.size(2)
    b.add(lambda x: F.unfold(x, kernel, dilation, padding, stride), x)


# ---- by index ----


def take(b: Builder) -> None:
    x = b.pick(lambda x: x.dim() > 0)
    value = b.values[x]
    d = b.dim(value)
    size = value.shape[d]
    places = torch.randint(size, (b.size(5),), generator=b.generator)
    match b.random.randrange(6):
        case 0:
            b.add(lambda x: x.index_select(d, places), x)
        case 1:
            index: list[Any] = [slice(None)] * value.dim()
            index[d] = places - size if b.flag() else places
            b.add(lambda x: x[tuple(index)], x)
        case 2 if value.dim() > 1:
            rows = torch.randint(value.shape[0], (len(places),), generator=b.generator)
            columns = torch.randint(value.shape[-1], (len(places),), generator=b.generator)
            b.add(lambda x: x[rows, ..., columns], x)
        case 3:
            table = torch.randint(
                size,
                [b.size(n) if i == d % value.dim() else n for i, n in enumerate(value.shape)],
                generator=b.generator,
            )
            b.add(lambda x: x.gather(d, table), x)
        case 4 if value.is_floating_point():
            where = torch.randperm(size, generator=b.generator)[: len(places)]
            shape = list(value.shape)
            shape[d] = len(where)
            table = where.reshape([-1 if i == d % value.dim() else 1 for i in range(value.dim())]).expand(shape)
            b.add(lambda x: x.scatter(d, table, torch.ones(shape) * 0.5), x)
        case _:
            first = b.random.randrange(size)
            b.add(lambda x: torch.slice_scatter(x, x.narrow(d, 0, 1), d, first, first + 1), x)


def take_computed(b: Builder) -> None:
    """Rows of a table by whole numbers that the network computes."""
    index = b.pick(lambda x: x.dtype == torch.int64)
    table = b.noise(int(b.values[index].max()) + 1 + b.random.randint(0, 2), b.size(4))
    if bool((b.values[index] < 0).any()) or len(table) > 64:
        raise Unfit
    b.add(lambda i: F.embedding(i, table), index)


STEPS = [view, view, view, part, part, join, join, stack, pad, unfold, take, take, take_computed]

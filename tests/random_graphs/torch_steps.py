"""The steps of a PyTorch network: each function draws its operands and arguments, and adds itself."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.random_graphs.builder import Builder, Unfit, apart

Step = Callable[[Builder], Any]

# ---- layers ----


def _image(b: Builder) -> int:
    return b.real(4)


def conv2d(b: Builder) -> None:
    x = _image(b)
    channels, *size = b.values[x].shape[1:]
    groups = b.random.choice([1, 1, 1, b.divisor(channels), channels])
    kernel = [b.random.choice([1, 2, 3, 3, 3, 5]) for _ in size]
    dilation, stride = [b.size(2) for _ in size], [b.random.choice([1, 1, 2, 3]) for _ in size]
    mode = b.random.choice(["zeros", "zeros", "zeros", "reflect", "replicate", "circular"])
    padding: Any = [b.random.randint(0, 3) for _ in size] if b.random.random() < 0.8 else "same"
    if padding == "same":
        stride = [1, 1]
    b.add(nn.Conv2d(channels, groups * b.size(4), kernel, stride, padding, dilation, groups, b.flag(), mode), x)  # type: ignore[arg-type]


def conv1d(b: Builder) -> None:
    x = b.real(2, 3)
    channels = b.values[x].shape[-2]
    groups = b.random.choice([1, b.divisor(channels)])
    b.add(nn.Conv1d(channels, groups * b.size(4), b.size(4), b.size(2), b.random.randint(0, 2), b.size(2), groups, b.flag()), x)


def conv_transpose(b: Builder) -> None:
    x = b.real(3, 4)
    kind, count = (nn.ConvTranspose1d, 1) if b.values[x].dim() == 3 else (nn.ConvTranspose2d, 2)
    channels = b.values[x].shape[1]
    groups = b.random.choice([1, 1, b.divisor(channels)])
    stride, dilation = [b.size(3) for _ in range(count)], [b.size(2) for _ in range(count)]
    kernel, padding = [b.size(4) for _ in range(count)], [b.random.randint(0, 2) for _ in range(count)]
    rest = [b.random.randrange(max(s, d)) for s, d in zip(stride, dilation, strict=True)]
    b.add(kind(channels, groups * b.size(3), kernel, stride, padding, rest, groups, b.flag(), dilation), x)  # type: ignore[arg-type]


def linear(b: Builder) -> None:
    x = b.pick(lambda x: x.is_floating_point() and x.dim() > 0)
    b.add(nn.Linear(b.values[x].shape[-1], b.size(8), b.flag()), x)


def recurrent(b: Builder) -> None:
    x = b.real(2, 3)
    kind = b.random.choice([nn.LSTM, nn.GRU, nn.RNN])
    if b.values[x].shape[0] > 8 or b.values[x].shape[-2] > 8:
        raise Unfit
    layer = kind(b.values[x].shape[-1], b.size(4), b.size(2), bias=b.flag(), batch_first=b.flag(), bidirectional=b.flag())
    b.add(_First(layer), x)


class _First(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


# ---- pools, norms, resampling ----


def pool2d(b: Builder) -> None:
    x = _image(b)
    kernel, stride, dilation = ([b.size(most) for _ in range(2)] for most in (4, 3, 2))
    padding = [b.random.randint(0, k // 2) for k in kernel]
    match b.random.randrange(3):
        case 0:
            b.add(nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=b.flag()), x)  # type: ignore[arg-type]
        case 1:
            divisor = b.random.choice([None, None, 3])
            b.add(nn.AvgPool2d(kernel, stride, padding, b.flag(), b.flag(), divisor), x)  # type: ignore[arg-type]
        case _:
            power, ceil = float(b.size(2)), b.flag()
            b.add(lambda x: F.lp_pool2d(x.abs() + 0.1, power, kernel, stride, ceil), x)  # type: ignore[arg-type]


def pool1d(b: Builder) -> None:
    x = b.real(2, 3)
    kernel, stride, padding = b.size(4), b.size(3), b.random.randint(0, 1)
    b.add(b.random.choice([nn.MaxPool1d, nn.AvgPool1d])(kernel, stride, min(padding, kernel // 2), ceil_mode=b.flag()), x)


def adaptive_pool(b: Builder) -> None:
    x = b.real(3, 4)
    count = b.values[x].dim() - 2
    size = [b.size(6) for _ in range(count)]
    kinds = [(nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d), (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)][count - 1]
    b.add(b.random.choice(kinds)(tuple(size) if count == 2 else size[0]), x)


def norm(b: Builder) -> None:
    x = b.pick(lambda x: x.is_floating_point() and x.dim() >= 2)
    shape = b.values[x].shape
    channels, affine = shape[1], b.flag()
    last = list(shape[-b.size(len(shape) - 1) :])
    layers: list[nn.Module] = [
        nn.LayerNorm(last, eps=1e-2, elementwise_affine=affine),
        nn.GroupNorm(b.divisor(channels), channels, 1e-2, affine),
        nn.RMSNorm(last, 1e-2, affine),
        nn.LocalResponseNorm(b.size(4), 0.1, 0.75, 1.5),
    ]
    if len(shape) in (2, 3, 4):
        layers += [(nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(channels, affine=affine)] * 3
    if len(shape) in (3, 4):
        layers += [(nn.InstanceNorm2d if len(shape) == 4 else nn.InstanceNorm1d)(channels, 1e-2, affine=affine, track_running_stats=b.flag())]
    b.add(b.random.choice(layers), x)


def normalize(b: Builder) -> None:
    x = b.real()
    dim, p = b.dim(b.values[x]), b.random.choice([1.0, 2.0, 2.0, float("inf")])
    b.add(lambda x: F.normalize(x + 0.01, p, dim, 1e-2), x)


def resize(b: Builder) -> None:
    x = b.real(3, 4)
    count = b.values[x].dim() - 2
    mode = b.random.choice(["nearest", "nearest-exact", *(["linear"] if count == 1 else ["bilinear", "bilinear", "bicubic"])])
    corners = b.flag() if mode.endswith(("linear", "cubic")) else None
    if b.flag():
        sizes = [b.size(9) for _ in range(count)]
        b.add(lambda x: F.interpolate(x, sizes, mode=mode, align_corners=corners), x)
    else:
        factors = [b.random.choice([0.5, 1.0, 1.5, 2.0, 2.3]) for _ in range(count)]
        if mode.startswith("nearest"):
            factors = [factor for factor in factors if factor != 2.3] or [2.0]
            factors = [factors[0]] * count
        again = b.flag()
        b.add(lambda x: F.interpolate(x, scale_factor=factors, mode=mode, align_corners=corners, recompute_scale_factor=again), x)


def sample_grid(b: Builder) -> None:
    x = _image(b)
    batch, sizes = b.values[x].shape[0], (b.size(5), b.size(5))
    mode, border, corners = b.random.choice(["bilinear", "bicubic"]), b.random.choice(["zeros", "border", "reflection"]), b.flag()
    theta = torch.eye(2, 3) + 0.3 * b.noise(batch, 2, 3)
    b.add(lambda x: F.grid_sample(x, F.affine_grid(theta, [batch, 1, *sizes], corners), mode, border, corners), x)


# ---- products ----


def product(b: Builder) -> None:
    """Of a value with itself turned, with another, or with a constant on either side."""
    x = b.pick(lambda x: x.is_floating_point() and x.dim() > 0)
    value = b.values[x]
    match b.random.randrange(5):
        case 0 if value.dim() > 1:
            b.add(lambda x: x @ x.transpose(-1, -2) / x.shape[-1], x)
        case 1 if value.dim() > 1:
            left = b.noise(b.size(4), value.shape[-2])
            b.add(lambda x: left @ x, x)
        case 2 if value.dim() > 1:
            y = b.pick(lambda y: y.is_floating_point() and y.dim() == value.dim() and y.shape[-1] == value.shape[-1] and y.shape[:-2] == value.shape[:-2])
            b.add(lambda x, y: torch.matmul(x, y.mT), x, y)
        case 3 if value.dim() == 4:
            y = b.pick(lambda y: y.shape == value.shape and y.is_floating_point())
            text = b.random.choice(["nchw,nchw->nhw", "nchw,ndhw->ncd", "nchw,ncdw->nchd", "nchw,nchv->nhwv"])
            b.add(lambda x, y: torch.einsum(text, x, y), x, y)
        case _:
            right = b.noise(value.shape[-1], b.size(6))
            b.add(lambda x: torch.matmul(x, right), x)


def attention(b: Builder) -> None:
    q = b.real(3, 4)
    shape = b.values[q].shape
    k = b.pick(lambda x: x.is_floating_point() and x.dim() == len(shape) and x.shape[:-2] == shape[:-2] and x.shape[-1] == shape[-1])
    causal = b.flag()
    b.add(lambda q, k: F.scaled_dot_product_attention(q, k, k * 0.5, is_causal=causal), q, k)


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
            b.add(b.random.choice([lambda x: x.flip(d), lambda x: torch.roll(x, shift, d), lambda x: torch.roll(x, shift)]), x)


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
    alike = lambda y: y.dim() == value.dim() and y.dtype == value.dtype and all(y.shape[i] == value.shape[i] for i in range(y.dim()) if i != d)  # noqa: E731
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
    x = _image(b)
    kernel, dilation, padding, stride = b.size(3), b.size(2), b.random.randint(0, 1), b.size(2)
    b.add(lambda x: F.unfold(x, kernel, dilation, padding, stride), x)


# ---- along dimensions ----


def reduce(b: Builder) -> None:
    x = b.real()
    dims, keep = b.dims(b.values[x]), b.flag()
    kinds: Sequence[Callable[[Tensor], Tensor]] = [
        lambda x: x.sum(dims, keep),
        lambda x: x.mean(dims, keep),
        lambda x: x.mean(),
        lambda x: x.amax(dims, keep),
        lambda x: x.amin(dims, keep),
        lambda x: x.max(),
        lambda x: torch.logsumexp(x, dims, keep),
        lambda x: torch.linalg.vector_norm(x + 0.1, 2, dims, keep),
        lambda x: x.abs().sum(dims[0], keep),
        lambda x: torch.var(x, dims, correction=0, keepdim=keep),
        lambda x: torch.std(x, dims, keepdim=keep),
        lambda x: torch.tanh(x).prod(dims[0], keep),
    ]
    b.add(b.random.choice(kinds), x)


def along(b: Builder) -> None:
    x = b.real()
    d = b.dim(b.values[x])
    b.add(b.random.choice([lambda x: x.softmax(d), lambda x: F.log_softmax(x, d), lambda x: x.cumsum(d), lambda x: torch.tanh(x).cumprod(d)]), x)


def order(b: Builder) -> None:
    """What asks which of several numbers is larger."""
    x = b.real()
    value = b.values[x]
    d, keep, largest = b.dim(value), b.flag(), b.flag()
    ordered = value.sort(d).values
    apart(ordered.diff(dim=d))
    k = b.size(value.shape[d])
    kinds: Sequence[Callable[[Tensor], Any]] = [
        lambda x: x.argmax(d, keep),
        lambda x: x.argmin(d, keep),
        lambda x: tuple(x.max(d, keep)),
        lambda x: tuple(x.min(d, keep)),
        lambda x: tuple(torch.topk(x, k, d, largest)),
        lambda x: tuple(torch.sort(x, d, descending=largest)),
        lambda x: x.argsort(d, largest),
        lambda x: tuple(x.median(d, keep)),
    ]
    b.add(b.random.choice(kinds), x)


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
            table = torch.randint(size, [b.size(n) if i == d % value.dim() else n for i, n in enumerate(value.shape)], generator=b.generator)
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


# ---- element by element ----

_UNARY: Sequence[Callable[[Tensor], Tensor]] = [
    *(torch.relu, torch.sigmoid, torch.tanh, torch.abs, torch.neg, torch.erf, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.relu6, F.selu, F.softsign),
    *(F.gelu, F.softplus, F.logsigmoid, F.hardtanh, F.celu, F.tanhshrink),
    lambda x: F.gelu(x, approximate="tanh"),
    lambda x: F.leaky_relu(x, 0.2),
    lambda x: F.elu(x, 0.7),
    lambda x: F.softplus(x, 2.0, 5.0),
    lambda x: (x * 0.3).clamp(-3, 3).exp(),
    lambda x: (x * 0.3).clamp(-3, 3).expm1(),
    lambda x: (x.abs() + 0.1).log(),
    lambda x: x.abs().log1p(),
    lambda x: (x.abs() + 0.1).log2(),
    lambda x: (x.abs() + 0.1).sqrt(),
    lambda x: (x.abs() + 0.1).rsqrt(),
    lambda x: 1 / (x.abs() + 0.5),
    lambda x: (x.abs() + 0.2) ** 0.7,
    lambda x: x**2,
    lambda x: torch.tanh(x) ** 3,
    lambda x: 2 ** x.clamp(-3, 3),
    lambda x: x.clamp(min=-0.5),
    lambda x: x.clamp(max=0.7),
    lambda x: 1 - x,
    lambda x: 0.5 * x + 0.25,
    lambda x: x / 3,
    lambda x: F.glu(torch.cat([x, x], -1), -1),
]


def unary(b: Builder) -> None:
    b.add(b.random.choice(_UNARY), b.real())


def step_function(b: Builder) -> None:
    """Functions with jumps, away from these."""
    x = b.real()
    value = b.values[x] * 1.7
    apart(value, value - value.round(), value - value.floor() - 0.5)
    kinds: Sequence[Callable[[Tensor], Tensor]] = [
        *(torch.floor, torch.ceil, torch.round, torch.trunc, torch.sign, torch.frac),
        *(lambda x: x % 1, lambda x: torch.fmod(x, 1), lambda x: x // 1, lambda x: x.to(torch.int64), lambda x: x.int()),
        *(lambda x: F.threshold(x, 0.0, 0.3), lambda x: x > 0, lambda x: x <= 0, lambda x: x.masked_fill(x < 0, 0.25)),
        *(lambda x: torch.where(x > 0, x, x * 0.1), lambda x: (x >= 0).to(x.dtype)),
    ]
    chosen = b.random.choice(kinds)
    b.add(lambda x: chosen(x * 1.7), x)


def binary(b: Builder) -> None:
    """Of two values that broadcast, or of one and a constant of some of its dimensions."""
    x = b.real()
    value = b.values[x]
    kinds: Sequence[Callable[[Tensor, Tensor], Tensor]] = [
        *(torch.add, torch.add, torch.sub, torch.mul, torch.mul, torch.maximum, torch.minimum),
        lambda x, y: x / (y.abs() + 0.5),
        lambda x, y: torch.add(x, y, alpha=0.5),
        lambda x, y: torch.lerp(x, y, 0.3),
        lambda x, y: torch.addcmul(x, x, y, value=0.5),
    ]
    chosen = b.random.choice(kinds)
    if b.random.random() < 0.7:
        b.add(chosen, x, b.pick(lambda y: y.is_floating_point() and _broadcast(value, y)))
    else:
        shape = [size if b.flag() else 1 for size in value.shape][b.random.randint(0, value.dim()) :]
        constant = b.noise(*shape)
        b.add(lambda x: chosen(x, constant), x) if b.flag() else b.add(lambda x: chosen(constant, x), x)


def residual(b: Builder) -> None:
    x = b.pick(lambda x: x.is_floating_point() and x.dim() > 2)
    y = b.pick(lambda y: y.shape == b.values[x].shape and y.is_floating_point())
    b.add(b.random.choice([torch.add, torch.add, lambda x, y: torch.relu(x + y), lambda x, y: x * torch.sigmoid(y)]), x, y)


def _broadcast(x: Tensor, y: Tensor) -> bool:
    return all(1 in (m, n) or m == n for m, n in zip(x.shape[::-1], y.shape[::-1], strict=False))


def gate(b: Builder) -> None:
    """Squeeze and excite."""
    x = _image(b)
    b.add(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)), x)


# ---- whole numbers and truth ----


def whole(b: Builder) -> None:
    x = b.pick(lambda x: x.dtype in (torch.int64, torch.int32))
    number = b.size(4)
    kinds: Sequence[Callable[[Tensor], Tensor]] = [
        *(lambda x: x + number, lambda x: number - x, lambda x: x * 2, lambda x: x // number, lambda x: x % number, lambda x: x == number),
        *(lambda x: x.float() / number, lambda x: x / number, lambda x: x.clamp(0, number), lambda x: x.abs(), lambda x: x.sum(), lambda x: x > 1, torch.neg),
        lambda x: torch.where(x > number, x, number),
    ]
    b.add(b.random.choice(kinds), x)


def truth(b: Builder) -> None:
    x = b.pick(lambda x: x.dtype == torch.bool)
    y = b.pick(lambda y: y.dtype == torch.bool and _broadcast(y, b.values[x]))
    z = b.pick(lambda z: z.is_floating_point() and _broadcast(z, b.values[x]))
    kinds: Sequence[tuple[Callable[..., Tensor], tuple[int, ...]]] = [
        *((torch.logical_and, (x, y)), (torch.logical_or, (x, y)), (torch.logical_xor, (x, y)), (torch.logical_not, (x,)), (lambda x, y: x & ~y, (x, y))),
        *((lambda x: x.any(-1), (x,)), (lambda x: x.all(), (x,)), (lambda x: x.float(), (x,)), (lambda x: x.sum(), (x,)), (lambda x: x.to(torch.int64), (x,))),
        *((lambda x, z: torch.where(x, z, 0.5), (x, z)), (lambda x, z: z * x, (x, z)), (lambda x, z: torch.where(x, z, z * 2), (x, z))),
        (lambda x, z: z.masked_fill(x, -1.0), (x, z)),
    ]
    b.add(*(lambda chosen: (chosen[0], *chosen[1]))(b.random.choice(kinds)))


def compare(b: Builder) -> None:
    x = b.real()
    y = b.pick(lambda y: y.is_floating_point() and _broadcast(b.values[x], y))
    apart(b.values[x] - b.values[y])
    b.add(b.random.choice([torch.gt, torch.lt, torch.ge, torch.le]), x, y)


STEPS: Sequence[Step] = [
    *(conv2d, conv2d, conv2d, conv2d, conv1d, conv_transpose, linear, recurrent, pool2d, pool2d, pool1d, adaptive_pool, norm, norm, normalize, resize),
    *(sample_grid, product, product, attention, view, view, view, part, part, join, join, stack, pad, unfold, reduce, reduce, along, order, take, take),
    *(take_computed, unary, unary, unary, step_function, binary, binary, binary, residual, residual, gate, whole, whole, truth, truth, compare),
]
"""What is drawn from; what stands here twice is drawn twice as often."""


def draw(b: Builder, steps: Sequence[Step] = STEPS) -> nn.Module:
    """A network of one or two inputs and up to ten steps."""
    for _ in range(b.random.choice([1, 1, 2])):
        b.input(b.size(3), b.size(8), b.size(9), b.size(9)) if b.random.random() < 0.8 else b.input(*(b.size(7) for _ in range(b.size(3))))
    wanted, tried = b.size(10), 0
    while len(b.steps) < wanted and tried < 200:
        tried += 1
        step = b.random.choice(steps)
        try:
            step(b)
            b.names.append(step.__name__)
        except Unfit:
            continue
    return b.network() if b.steps else draw(b, [lambda b: b.add(torch.neg, 0)])

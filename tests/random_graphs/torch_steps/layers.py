"""Steps that are layers: convolutions, pools, norms, resampling, products."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.random_graphs.builder import Builder, Unfit

# ---- layers ----


def conv2d(b: Builder) -> None:
    x = b.real(4)
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
    b.add(
        nn.Conv1d(
            channels, groups * b.size(4), b.size(4), b.size(2), b.random.randint(0, 2), b.size(2), groups, b.flag()
        ),
        x,
    )


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
    layer = kind(
        b.values[x].shape[-1], b.size(4), b.size(2), bias=b.flag(), batch_first=b.flag(), bidirectional=b.flag()
    )
    b.add(_First(layer), x)


class _First(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


# ---- pools, norms, resampling ----


def pool2d(b: Builder) -> None:
    x = b.real(4)
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
    b.add(
        b.random.choice([nn.MaxPool1d, nn.AvgPool1d])(kernel, stride, min(padding, kernel // 2), ceil_mode=b.flag()), x
    )


def adaptive_pool(b: Builder) -> None:
    x = b.real(3, 4)
    count = b.values[x].dim() - 2
    size = [b.size(6) for _ in range(count)]
    kinds = [(nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d), (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)][count - 1]
    if b.random.random() < 0.2:
        if bool((b.values[x].flatten().sort().values.diff() < 1e-5).any()):
            raise Unfit
        pool = F.adaptive_max_pool2d if count == 2 else F.adaptive_max_pool1d
        b.add(lambda x: tuple(pool(x, size if count == 2 else size[0], return_indices=True)), x)  # type: ignore[arg-type]
    else:
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
        layers += [
            (nn.InstanceNorm2d if len(shape) == 4 else nn.InstanceNorm1d)(
                channels, 1e-2, affine=affine, track_running_stats=b.flag()
            )
        ]
    b.add(b.random.choice(layers), x)


def normalize(b: Builder) -> None:
    x = b.real()
    dim, p = b.dim(b.values[x]), b.random.choice([1.0, 2.0, 2.0, float("inf")])
    b.add(lambda x: F.normalize(x + 0.01, p, dim, 1e-2), x)


def resize(b: Builder) -> None:
    x = b.real(3, 4)
    count = b.values[x].dim() - 2
    mode = b.random.choice(
        ["nearest", "nearest-exact", *(["linear"] if count == 1 else ["bilinear", "bilinear", "bicubic"])]
    )
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
        b.add(
            lambda x: F.interpolate(
                x, scale_factor=factors, mode=mode, align_corners=corners, recompute_scale_factor=again
            ),
            x,
        )


def sample_grid(b: Builder) -> None:
    x = b.real(4)
    batch, sizes = b.values[x].shape[0], (b.size(5), b.size(5))
    mode, border, corners = (
        b.random.choice(["bilinear", "bicubic"]),
        b.random.choice(["zeros", "border", "reflection"]),
        b.flag(),
    )
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
            y = b.pick(
                lambda y: (
                    y.is_floating_point()
                    and y.dim() == value.dim()
                    and y.shape[-1] == value.shape[-1]
                    and y.shape[:-2] == value.shape[:-2]
                )
            )
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
    k = b.pick(
        lambda x: (
            x.is_floating_point() and x.dim() == len(shape) and x.shape[:-2] == shape[:-2] and x.shape[-1] == shape[-1]
        )
    )
    causal = b.flag()
    b.add(lambda q, k: F.scaled_dot_product_attention(q, k, k * 0.5, is_causal=causal), q, k)


STEPS = [
    *(
        conv2d,
        conv2d,
        conv2d,
        conv2d,
        conv1d,
        conv_transpose,
        linear,
        recurrent,
        pool2d,
        pool2d,
        pool1d,
        adaptive_pool,
        norm,
        norm,
        normalize,
    ),
    *(resize, sample_grid, product, product, attention),
]

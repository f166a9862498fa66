"""Activations with a parameter for each channel, in every family's epilogue, with and without a residual, against
float64 PyTorch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pcc.codegen.family import families, family_named
from pcc.codegen.isa import isa_named
from pcc.codegen.layers import Conv2d, ConvGeometry, Linear, PooledConv2d
from pcc.codegen.program import ProgramBuilder
from pcc.ir.activation import PARAMETRIC, Activation
from pcc.sparsity.formats import DENSE, format_named
from pcc.target import Target

from .support import LANES, X86_TARGETS, check, emit_by, rng

FILTERS, CHANNELS = 19, 6
GEOMETRY = ConvGeometry((3, 3), (1, 1), (1, 1, 1, 1))
SIZE = (13, 37)


def _stored(weight: np.ndarray, family: str):
    format = family_named(family).format
    packed = weight if format == DENSE else format_named(format).pack(weight, 1, np.arange(len(weight)))
    assert not isinstance(packed, str), packed
    return packed


def _sparse(shape: tuple[int, ...], family: str) -> np.ndarray:
    """Normal numbers; for sparse families, two of three kernels (or weights) zero."""
    random = rng()
    weight = random.standard_normal(shape).astype(np.float32)
    if family_named(family).format != DENSE:
        weight[random.random(shape[:2]) < 2 / 3] = 0
    return weight


def _targets(family: str) -> list[Target]:
    """Where the family computes anything: one of them needs AVX-512."""
    return [t for t in X86_TARGETS if family != "linear-sparse-expand" or isa_named(t.isa).expands]


def _parameters(count: int) -> np.ndarray:
    return rng(1).uniform(-0.5, 1.5, count).astype(np.float32)


CONVOLUTIONS, LINEAR_LAYERS = ([name for name in families() if name.startswith(word)] for word in ("conv", "linear"))
OTHERS = [kind for kind in PARAMETRIC if kind != "prelu"]
"""Of these, one family tells: all apply them by the same code."""


@pytest.mark.parametrize(
    ("family", "kind"), [*((name, "prelu") for name in CONVOLUTIONS), *(("conv-dense", kind) for kind in OTHERS)]
)
def test_convolutions(family: str, kind: str) -> None:
    pooled, depthwise = family_named(family).layer is PooledConv2d, "depthwise" in family
    geometry = ConvGeometry((1, 1)) if "pointwise" in family else GEOMETRY
    groups = CHANNELS if depthwise else 1
    filters, size = (2 * CHANNELS if depthwise else FILTERS), (12, 36) if pooled else SIZE
    weight = _sparse((filters, CHANNELS // groups, *geometry.window), family)
    x, bias = rng(2).standard_normal((1, CHANNELS, *size), np.float32), rng(3).standard_normal(filters, np.float32)
    added = rng(4).standard_normal((1, filters, *size), np.float32)
    parameter, activation = _parameters(filters), Activation(kind)
    residuals = (False,) if pooled else (False, True)

    def build(b: ProgramBuilder) -> None:
        inputs = b.input("x", x.shape), b.input("added", added.shape)
        for residual in residuals:
            shape = (1, filters, *(extent // 2 for extent in size)) if pooled else added.shape
            y = b.tensor(f"y{residual}", shape)
            layer = Conv2d(
                f"conv{residual}",
                inputs[0],
                y,
                _stored(weight, family),
                bias,
                geometry,
                groups,
                inputs[1] if residual else None,
                activation,
                parameter,
            )
            emit_by(family, PooledConv2d(**vars(layer)) if pooled else layer, b)
            b.output(y.buffer, y)

    padding = geometry.padding[0]
    x64, weight64, bias64 = (torch.from_numpy(a).double() for a in (x, weight, bias))
    sums = F.conv2d(x64, weight64, bias64, padding=padding, groups=groups)
    of_channels = torch.from_numpy(parameter).double()[:, None, None]
    wanted = [activation(sums + torch.from_numpy(added).double() * residual, of_channels) for residual in residuals]
    check(build, [x, added], [F.max_pool2d(want, 2) if pooled else want for want in wanted], parts=(1,))


@pytest.mark.parametrize(
    ("family", "kind"), [*((name, "prelu") for name in LINEAR_LAYERS), *(("linear", kind) for kind in OTHERS)]
)
@pytest.mark.parametrize("rows", [1, 5])
def test_linear_layers(rows: int, family: str, kind: str) -> None:
    weight, outputs = _sparse((2 * max(LANES.values()) + 3, 29), family), 2 * max(LANES.values()) + 3
    x, bias = rng(2).standard_normal((rows, 29), np.float32), rng(3).standard_normal(outputs, np.float32)
    added, parameter = rng(4).standard_normal((rows, outputs), np.float32), _parameters(outputs)
    activation = Activation(kind)

    def build(b: ProgramBuilder) -> None:
        inputs = b.input("x", x.shape), b.input("added", added.shape)
        for residual in (False, True):
            y = b.tensor(f"y{residual}", added.shape)
            layer = Linear(
                f"fc{residual}",
                inputs[0],
                y,
                _stored(weight, family),
                bias,
                inputs[1] if residual else None,
                activation,
                parameter=parameter,
            )
            emit_by(family, layer, b)
            b.output(y.buffer, y)

    sums = F.linear(*(torch.from_numpy(a).double() for a in (x, weight, bias)))
    of_outputs = torch.from_numpy(parameter).double()
    check(
        build,
        [x, added],
        [activation(sums + torch.from_numpy(added).double() * residual, of_outputs) for residual in (False, True)],
        targets=_targets(family),
        parts=(1,),
    )

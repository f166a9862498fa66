"""What a layer has to reproduce: second moments of its input and its wanted output, from a sample of output positions.

A convolution is a linear map from columns (the taps below one output position, in the order of the weight's axes) to
outputs. With columns as the rows of X and the wanted outputs as those of Y, least squares needs only X'X and X'Y. Both
are summed over batches, and in blocks, so memory is bounded by the layer's width and not by how many positions are
looked at.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional

from pcc.errors import PccError
from pcc.training.layers import groups_of

BLOCK_VALUES = 1 << 24
"""Entries of X that exist at a time (64 MB)."""


@dataclass
class Moments:
    """Sums over M columns, for each of the g groups of a convolution (1 for linear layers); divided by M."""

    xx: torch.Tensor
    """(g, n, n)."""
    xy: torch.Tensor
    """(g, n, O / g)."""
    yy: torch.Tensor
    """(O,) squares of the wanted outputs."""
    x_mean: torch.Tensor
    """(g, n); zero where no intercept is fitted."""
    y_mean: torch.Tensor
    """(O,); zero where no intercept is fitted."""

    def of_filters(self, filters: slice) -> "Moments":
        """Of some filters of each group."""

        def some(values: torch.Tensor) -> torch.Tensor:
            return values.unflatten(0, (len(self.xx), -1))[:, filters].flatten()

        return replace(self, xy=self.xy[:, :, filters], yy=some(self.yy), y_mean=some(self.y_mean))


def sample_positions(output: torch.Tensor, layer: nn.Module, columns: int, seed: int) -> torch.Tensor:
    """Which outputs of a layer are looked at: int64 (M,) of N * positions, at most about ``columns``, as many from each
    sample, ascending."""
    samples, positions = _extent(output, layer)
    each = min(positions, max(1, -(-columns // samples)))
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(samples, positions, generator=generator).argsort(dim=1)[:, :each].sort(dim=1).values
    return (chosen + positions * torch.arange(samples)[:, None]).flatten().to(output.device)


def outputs_at(output: torch.Tensor, layer: nn.Module, where: torch.Tensor) -> torch.Tensor:
    """The outputs (M, O) at sampled positions, as fp32."""
    if isinstance(layer, nn.Conv2d):
        positions = output.shape[2] * output.shape[3]
        return output.flatten(2)[where // positions, :, where % positions].float()
    return output.flatten(0, -2)[where].float()


def columns_at(x: torch.Tensor, layer: nn.Conv2d | nn.Linear, where: torch.Tensor) -> torch.Tensor:
    """The columns below sampled positions, fp32 (g, M, n); taps count in the order of the weight's axes (I/groups, kh,
    kw).

    ``x`` of a convolution is padded already (`padded`).
    """
    if isinstance(layer, nn.Linear):
        return x.flatten(0, -2)[where].float()[None]
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    height, width = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1, (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    samples, places = where // (height * width), where % (height * width)
    rows = (places // width * sh)[:, None, None] + dh * torch.arange(kh, device=x.device)[:, None]
    columns = (places % width * sw)[:, None, None] + dw * torch.arange(kw, device=x.device)
    taps = x[samples[:, None, None], :, rows, columns]  # (M, kh, kw, I)
    grouped = taps.float().reshape(len(where), kh, kw, layer.groups, -1)
    return grouped.permute(3, 0, 4, 1, 2).reshape(layer.groups, len(where), -1)


def padded(x: torch.Tensor, layer: nn.Conv2d | nn.Linear) -> torch.Tensor:
    """The input with the convolution's padding, of any mode, around it."""
    if isinstance(layer, nn.Linear):
        return x
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)


class MomentSums:
    """Moments of a layer's input and of what is wanted of it, summed over batches; about the means where an intercept
    is fitted."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, *, intercept: bool) -> None:
        self.layer, self.intercept, self.count = layer, intercept, 0
        self.groups = groups_of(layer)
        width, outputs = layer.weight[0].numel(), len(layer.weight)
        zeros = layer.weight.new_zeros
        self.xx = zeros(self.groups, width, width, dtype=torch.float32)
        self.xy = zeros(self.groups, width, outputs // self.groups, dtype=torch.float32)
        self.yy, self.y = zeros(outputs, dtype=torch.float32), zeros(outputs, dtype=torch.float32)
        self.x = zeros(self.groups, width, dtype=torch.float32)
        # Sums about a point near the mean lose no digits when the mean is taken off at the end.
        self.near_x, self.near_y = torch.zeros_like(self.x), torch.zeros_like(self.y)

    def add(self, x: torch.Tensor, where: torch.Tensor, wanted: torch.Tensor) -> None:
        """Input ``x`` of the layer, and the ``wanted`` outputs (M, O) at positions ``where``."""
        x = padded(x, self.layer)
        block = max(1, BLOCK_VALUES // self.x.numel())
        for start in range(0, len(where), block):
            rows = columns_at(x, self.layer, where[start : start + block])
            outputs = wanted[start : start + block]
            if not self.count and self.intercept:
                self.near_x, self.near_y = rows.mean(dim=1), wanted.mean(dim=0)
            self._add(rows - self.near_x[:, None], outputs - self.near_y)

    def _add(self, rows: torch.Tensor, outputs: torch.Tensor) -> None:
        by_group = outputs.reshape(len(outputs), self.groups, -1).transpose(0, 1)
        self.xx.baddbmm_(rows.transpose(1, 2), rows)
        self.xy.baddbmm_(rows.transpose(1, 2), by_group)
        self.yy += outputs.square().sum(dim=0)
        if self.intercept:
            self.x += rows.sum(dim=1)
            self.y += outputs.sum(dim=0)
        self.count += len(outputs)

    def moments(self) -> Moments:
        """Of all that was added."""
        xx, xy, yy = self.xx / self.count, self.xy / self.count, self.yy / self.count
        x, y = self.x / self.count, self.y / self.count
        by_group = y.reshape(self.groups, 1, -1)
        return Moments(
            xx - x[:, :, None] * x[:, None, :],
            xy - x[:, :, None] * by_group,
            yy - y.square(),
            self.near_x + x,
            self.near_y + y,
        )


def _extent(output: torch.Tensor, layer: nn.Module) -> tuple[int, int]:
    """(samples, positions of each)."""
    if isinstance(layer, nn.Conv2d):
        if output.dim() != 4:
            raise PccError(
                f"a convolution that gives {output.dim()} dimensions cannot be reconstructed: its samples need a batch "
                "axis"
            )
        return output.shape[0], output.shape[2] * output.shape[3]
    return output.shape[0], output[0].numel() // output.shape[-1]

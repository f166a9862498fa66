"""One-shot compression with layer-wise reconstruction: no labels, no training, a few hundred samples.

In order of execution each layer takes its structure, and the weights that stay are fitted again by least squares, so
that the layer makes of what the *compressed* network feeds it what it made in the *dense* network. A layer so makes up
for what earlier ones lost, as in ThiNet (Luo et al., ICCV 2017) and "Channel Pruning for Accelerating Very Deep Neural
Networks" (He et al., ICCV 2017), which do this for channels; here it is for every structure.

The dense network runs once, and leaves its outputs at a sample of positions in a file. Then the network runs once
more: all batches of samples wait in front of each layer until it is fitted, and then go on. So each batch is computed
twice in all, and memory holds the samples and the activations of one batch, however many there are. Any module will do.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from pcc.errors import PccError
from pcc.frontend.torch_module import evaluating
from pcc.training.layers import Structures, bind
from pcc.training.reconstruction_moments import Moments, MomentSums, outputs_at
from pcc.training.reconstruction_runs import Arrived, arrive_at, batch_runs
from pcc.training.reconstruction_solve import Quadratic, admm, refit
from pcc.training.reconstruction_watch import Norm, Part, Wanted, observe

COLUMNS = 65536
"""Output positions that a layer is fitted on, where the samples have so many."""


@dataclass(frozen=True)
class Reconstructed:
    """What became of a layer."""

    name: str
    columns: int
    """Output positions it was fitted on."""
    projected: float
    """Squared error of its output, given the compressed network's input, over the `passed_on` variance, had it been
    projected only..."""
    fitted: float
    """...and as it is now. Outputs count as a batch norm that follows scales them."""
    seconds: float


@torch.inference_mode(False)
@torch.no_grad()
def reconstruct(
    model: nn.Module, structures: Structures, samples: Iterable[torch.Tensor], columns: int = COLUMNS
) -> list[Reconstructed]:
    """Compresses the model in place and reports on its layers in order of execution.

    ``samples`` are batches of the model's input, (N, ...) each. They take the memory of a forward pass of one batch,
    and of what the others hold while they wait: up to `LIVE_BYTES`, and the rest in a temporary file. The same samples
    in the same batches give the same weights. Where a layer has a bias, or a batch norm follows it, the mean of its
    output is fitted too, in the bias or in the running mean. A layer that runs several times is fitted to its first
    run.

    Structures of zeros are chosen in units of effect and refitted; other structures (levels, centroids) are what ADMM
    finds. Raises `PccError` for a layer that the samples never reach, outputs that are not finite, and too few samples.
    """
    layers = bind(model, structures)
    batches = _on_device(samples, model)
    report: list[Reconstructed] = []
    with evaluating(model):
        wanted = observe(model, layers, batches, columns)
        with batch_runs(model, batches, wanted) as runs:
            for module, target in wanted.items():
                report.append(_fit(target, arrive_at(module, runs)))
    return report


def _on_device(samples: Iterable[torch.Tensor], model: nn.Module) -> list[torch.Tensor]:
    batches = list(samples)
    if not batches:
        raise PccError("reconstruction needs samples of the model's input: there are none; a few hundred are usual")
    device = next((parameter.device for parameter in model.parameters()), batches[0].device)
    return [batch.to(device) for batch in batches]


def _fit(wanted: Wanted, arrived: Iterable[Arrived]) -> Reconstructed:
    """Gives a layer the weight, and the mean, that come nearest to the wanted outputs, or with its shortcut as it is
    now to the wanted sum; from each batch as it arrives at the layer."""
    began = time.perf_counter()
    layer, norm, groups = wanted.layer, wanted.norm, wanted.layer.groups
    module = layer.module
    assert isinstance(module, nn.Conv2d | nn.Linear)
    gain = gain_of(norm, wanted.outputs)
    intercept = module.bias is not None or norm is not None
    sums = MomentSums(module, intercept=intercept)
    for part, batch in zip(wanted.parts, arrived, strict=True):
        sums.add(batch.x, part.where, _wanted_now(part, batch, module, gain))
    found = sums.moments()

    dense = to_columns(layer.weight.float(), groups)
    there = dense != 0

    def project(by_column: torch.Tensor) -> torch.Tensor:
        """Onto the structure, without what earlier pruning took away."""
        return to_columns(layer.project(to_weight(by_column * there, layer.weight.shape)), groups) * there

    scale = effect(gain, groups)
    if layer.structure.zeros_only:
        projected = project(dense * scale) / scale
        quadratic = Quadratic.of(found, dense, scale)
        start = dense * quadratic.unit
        if ((projected == 0) & (dense != 0)).any():  # else there is nothing to choose
            start = admm(quadratic, start, project)
        best = refit(quadratic, start) / quadratic.unit
    else:
        projected = project(dense)
        quadratic = Quadratic.of(found, dense, None)
        best = project(
            admm(quadratic, dense * quadratic.unit, lambda v: project(v / quadratic.unit) * quadratic.unit)
            / quadratic.unit
        )
    layer.weight.copy_(to_weight(best, layer.weight.shape))
    if intercept:
        shift(module, norm, found, best)
    passed = passed_on(wanted, gain)
    errors = error_of(found, projected, scale, passed), error_of(found, best, scale, passed)
    return Reconstructed(layer.name, sums.count, *errors, time.perf_counter() - began)


def _wanted_now(part: Part, batch: Arrived, module: nn.Conv2d | nn.Linear, gain: torch.Tensor) -> torch.Tensor:
    """What a layer should give, (M, O): what it gave, and what its shortcut has lost since."""
    if batch.addition is None or part.added is None:
        return part.outputs
    missing = part.added - outputs_at(batch.addition, module, part.where)
    return part.outputs + missing * _inverse(gain)


def gain_of(norm: Norm | None, outputs: torch.Tensor) -> torch.Tensor:
    """By what the batch norm behind a layer multiplies each output, (O,)."""
    if norm is None:
        return torch.ones_like(outputs[0])
    assert norm.running_var is not None
    return (norm.running_var + norm.eps).rsqrt() * (norm.weight if norm.affine else 1)


def _inverse(gain: torch.Tensor) -> torch.Tensor:
    """1 / gain, and 0 for outputs that next to nothing is made of."""
    return torch.where(gain.abs() > 1e-3 * gain.abs().max(), 1 / gain, 0)


def effect(gain: torch.Tensor, groups: int) -> torch.Tensor:
    """What a unit of each output counts, (g, 1, O / g), by its `gain_of`."""
    size = gain.abs()
    return size.clamp_min(max(1e-6 * float(size.max()), 1e-30)).reshape(groups, 1, -1)


def to_columns(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """(O, I / groups, kh, kw) to (g, n, O / g), the form that moments are in."""
    return weight.flatten(1).unflatten(0, (groups, -1)).transpose(1, 2)


def to_weight(by_column: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """`to_columns`, undone."""
    return by_column.transpose(1, 2).reshape(shape)


def shift(module: nn.Conv2d | nn.Linear, norm: Norm | None, found: Moments, weight: torch.Tensor) -> None:
    """Gives the output of a layer with ``weight``, (g, n, O / g), the wanted mean: in its own bias, or in front of the
    batch norm, whatever its own was."""
    bias = found.y_mean - (found.x_mean[:, None] @ weight).flatten()
    if module.bias is not None:
        module.bias.copy_(bias)
    else:
        assert norm is not None
        assert norm.running_mean is not None
        norm.running_mean.sub_(bias)


def passed_on(wanted: Wanted, gain: torch.Tensor) -> torch.Tensor:
    """The variance of what goes on from a layer in the dense network, (O,): of its output behind the batch norm, or of
    that and the shortcut that is added to it. What a branch has lost counts by what is left of the sum.
    """
    total, squares, count = torch.zeros_like(gain), torch.zeros_like(gain), 0
    for part in wanted.parts:
        added = part.added
        passed = (part.outputs * gain if added is None else part.outputs * gain + added).double()
        total, squares, count = total + passed.sum(dim=0), squares + passed.square().sum(dim=0), count + len(passed)
    return (squares / count - (total / count).square()).clamp_min(0).to(gain)


def error_of(found: Moments, weight: torch.Tensor, scale: torch.Tensor, variance: torch.Tensor) -> float:
    """Squared error of the outputs, over a ``variance`` (O,) of them as they are scaled."""
    of_filter = (weight * (found.xx @ weight - 2 * found.xy)).sum(dim=1).flatten() + found.yy
    counts = scale.flatten().square()
    share = (of_filter * counts).sum() / variance.sum().clamp_min(torch.finfo(counts.dtype).tiny)
    return max(0.0, float(share))  # rounding may leave a little less than nothing

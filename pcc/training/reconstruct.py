"""One-shot compression with layer-wise reconstruction: no labels, no training, a few hundred samples.

In order of execution each layer takes its structure, and the weights that stay are fitted again by least squares, so that the layer makes of what the
*compressed* network feeds it what it made in the *dense* network. A layer so makes up for what earlier ones lost, as in ThiNet (Luo et al., ICCV 2017) and
"Channel Pruning for Accelerating Very Deep Neural Networks" (He et al., ICCV 2017), which do this for channels; here it is for every structure.

The dense network runs once, and leaves its outputs at a sample of positions. Then the network runs once more with all samples as one batch, and each
layer is fitted when its input arrives: nothing is computed twice, and any module will do.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pcc.errors import PccError
from pcc.sparsity.zeros import Zeros
from pcc.training.layers import Layer, Structures, bind
from pcc.training.reconstruction_moments import Moments, moments, outputs_at, sample_positions
from pcc.training.reconstruction_solve import Quadratic, admm, refit

COLUMNS = 16384
"""Output positions that a layer is fitted on, where the samples have so many."""
FEWEST_COLUMNS = 32


@dataclass(frozen=True)
class Reconstructed:
    """What became of a layer."""

    name: str
    columns: int
    """Output positions it was fitted on."""
    projected: float
    """Squared error of its output, given the compressed network's input, over the variance of the wanted output, had it been projected only..."""
    fitted: float
    """...and as it is now. Outputs count as a batch norm that follows scales them."""
    seconds: float


@dataclass
class _Wanted:
    """What a layer gave in the dense network."""

    where: torch.Tensor
    """Positions (M,)."""
    outputs: torch.Tensor
    """(M, O)."""
    norm: nn.Module | None = None
    """The batch norm that follows it, and only it."""


@torch.no_grad()
def reconstruct(model: nn.Module, structures: Structures, samples: Iterable[torch.Tensor], columns: int = COLUMNS) -> list[Reconstructed]:
    """Compresses the model in place and reports on its layers in order of execution.

    ``samples`` are batches of the model's input, (N, ...) each; together they are one batch, which takes the memory of one forward pass: 256 photos of
    224 x 224 take about 4 GB in ResNet-50. The same samples give the same weights. Where a layer has a bias, or a batch norm follows it, the mean of its
    output is fitted too, in the bias or in the running mean. A layer that runs several times is fitted to its first run.

    Structures of zeros are chosen in units of effect and refitted; other structures (levels, centroids) are what ADMM finds. Raises `PccError` for a layer
    that the samples never reach, outputs that are not finite, and too few samples.
    """
    layers = {layer.name: layer for layer in bind(model, structures)}
    x = _one_batch(samples, model)
    report: dict[str, Reconstructed] = {}
    with _evaluating(model):
        wanted = _observe(model, layers, x, columns)

        def fit_when_reached(layer: Layer, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            if layer.name not in report:
                report[layer.name] = _fit(layer, wanted.pop(layer.name), arguments[0] if arguments else named["input"])

        with ExitStack() as hooks:
            for layer in layers.values():
                hook = lambda _, arguments, named, layer=layer: fit_when_reached(layer, arguments, named)  # noqa: E731
                hooks.callback(layer.module.register_forward_pre_hook(hook, with_kwargs=True).remove)
            model(x)
    return list(report.values())


def _one_batch(samples: Iterable[torch.Tensor], model: nn.Module) -> torch.Tensor:
    batches = list(samples)
    if not batches:
        raise PccError("reconstruction needs samples of the model's input: there are none; a few hundred are usual")
    x = torch.cat(batches)
    return x.to(next((parameter.device for parameter in model.parameters()), x.device))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _observe(model: nn.Module, layers: dict[str, Layer], x: torch.Tensor, columns: int) -> dict[str, _Wanted]:
    """Runs the dense network, and gives what each layer made of ``x``."""
    found: dict[str, _Wanted] = {}
    runs: Counter[nn.Module] = Counter()
    latest: list[Any] = [None, None]

    def after(layer: Layer, output: torch.Tensor) -> None:
        if layer.name in found:
            return
        where = sample_positions(output, layer.module, columns, seed=len(found))
        if len(where) < FEWEST_COLUMNS:
            raise PccError(f"layer {layer.name}: {len(where)} outputs are too few for a fit, which takes {FEWEST_COLUMNS}: give more samples")
        found[layer.name] = _Wanted(where, outputs_at(output, layer.module, where))
        if not found[layer.name].outputs.isfinite().all():
            raise PccError(f"layer {layer.name} gives numbers that are not finite: look at the samples and at the weights")
        latest[:] = output, layer.name

    def before_norm(norm: nn.Module, arguments: tuple[Any, ...]) -> None:
        runs[norm] += 1
        if arguments[0] is latest[0] and norm.running_mean is not None:
            found[latest[1]].norm = norm

    with ExitStack() as hooks:
        for layer in layers.values():
            hooks.callback(layer.module.register_forward_hook(lambda _, __, output, layer=layer: after(layer, output)).remove)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                hooks.callback(module.register_forward_pre_hook(before_norm).remove)
        model(x)
    for name in layers:
        if name not in found:
            raise PccError(f"layer {name} never runs when the model sees the samples: leave it out of the structures")
    for wanted in found.values():
        if wanted.norm is not None and runs[wanted.norm] > 1:
            wanted.norm = None  # its mean belongs to others too
    return found


def _fit(layer: Layer, wanted: _Wanted, x: torch.Tensor) -> Reconstructed:
    """Gives a layer the weight, and the mean, that come nearest to the wanted outputs."""
    began = time.perf_counter()
    module, norm, groups = layer.module, wanted.norm, layer.groups
    assert isinstance(module, nn.Conv2d | nn.Linear)
    intercept = module.bias is not None or norm is not None
    found = moments(x, module, wanted.where, wanted.outputs, intercept=intercept)

    def to_columns(weight: torch.Tensor) -> torch.Tensor:
        """(O, I / groups, kh, kw) to (g, n, O / g)."""
        return weight.flatten(1).unflatten(0, (groups, -1)).transpose(1, 2)

    def to_weight(by_column: torch.Tensor) -> torch.Tensor:
        return by_column.transpose(1, 2).reshape(layer.weight.shape)

    def project(by_column: torch.Tensor) -> torch.Tensor:
        return to_columns(layer.project(to_weight(by_column)))

    dense = to_columns(layer.weight.float())
    scale = _scale(norm, dense)
    if isinstance(layer.structure, Zeros):
        projected = project(dense * scale) / scale
        quadratic = Quadratic.of(found, dense, scale)
        best = refit(quadratic, admm(quadratic, dense * quadratic.unit, project)) / quadratic.unit
    else:
        projected = project(dense)
        quadratic = Quadratic.of(found, dense, None)
        best = project(admm(quadratic, dense * quadratic.unit, lambda v: project(v / quadratic.unit) * quadratic.unit) / quadratic.unit)
    layer.weight.copy_(to_weight(best))
    if intercept:
        _shift(module, norm, found.y_mean - (found.x_mean[:, None] @ best).flatten())
    errors = _error(found, projected, scale), _error(found, best, scale)
    return Reconstructed(layer.name, len(wanted.where), *errors, time.perf_counter() - began)


def _scale(norm: nn.Module | None, dense: torch.Tensor) -> torch.Tensor:
    """What a unit of each output counts for the layers behind, (g, 1, O / g)."""
    if norm is None:
        return torch.ones_like(dense[:, :1])
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt() * (norm.weight.abs() if norm.affine else 1)
    return scale.clamp_min(max(1e-6 * float(scale.max()), 1e-30)).reshape(len(dense), 1, -1)


def _shift(module: nn.Conv2d | nn.Linear, norm: nn.Module | None, bias: torch.Tensor) -> None:
    """Makes ``bias`` (O,) the layer's: its own, or in front of the batch norm, whatever its own was."""
    if module.bias is not None:
        module.bias.copy_(bias)
    else:
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        assert norm.running_mean is not None
        norm.running_mean.sub_(bias)


def _error(found: Moments, weight: torch.Tensor, scale: torch.Tensor) -> float:
    """Squared error of the outputs, over the variance of the wanted ones."""
    of_filter = (weight * (found.xx @ weight - 2 * found.xy)).sum(dim=1).flatten() + found.yy
    counts = scale.flatten().square()
    return float((of_filter * counts).sum() / (found.yy * counts).sum().clamp_min(torch.finfo(counts.dtype).tiny))

"""One-shot compression with layer-wise reconstruction: no labels, no training, a few hundred samples.

In order of execution, each layer takes its structure and the weights that stay are fitted again by least squares, so that the layer gives, from what the
*compressed* network feeds it, what the *dense* network gave (as in ThiNet, Luo et al. 2017, and "Channel pruning for accelerating very deep networks",
He et al. 2017): later layers make up for what earlier ones lost. Layers without a structure that come after are fitted too. Where the layer has a bias, or
a batch norm follows, the mean is fitted with it.
"""

import copy
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pcc.errors import PccError
from pcc.training.layers import Layer, Structures, bind
from pcc.training.reconstruction_moments import Moments, moments, outputs_at, sample_positions
from pcc.training.reconstruction_solve import Quadratic, admm, refit

COLUMNS = 16384
FEWEST = 32


@dataclass(frozen=True)
class Reconstructed:
    """One layer: squared error of its output over the variance of the dense network's, before (projected only) and after."""

    name: str
    structure: str
    columns: int
    before: float
    after: float
    seconds: float


@dataclass
class _Target:
    """A layer of the dense network, and what it gave."""

    name: str
    layer: nn.Conv2d | nn.Linear
    where: torch.Tensor
    outputs: torch.Tensor
    norm: str = ""
    """The batch norm that follows."""


@torch.no_grad()
def reconstruct(model: nn.Module, structures: Structures, samples: Iterable[torch.Tensor], *, columns: int = COLUMNS, refit_dense: bool = True) -> list[Reconstructed]:
    layers = {layer.name: layer for layer in bind(model, structures)}
    x = torch.cat(list(samples))
    training = model.training
    model.eval()
    targets = _observe(copy.deepcopy(model), x, columns)
    report = []
    names = {module: name for name, module in model.named_modules()}
    done = set()
    started = False

    def before(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        nonlocal started
        name = names[module]
        if name in done:
            return
        done.add(name)
        structured = name in layers
        started = started or structured
        if structured or (started and refit_dense):
            norm = model.get_submodule(targets[name].norm) if targets[name].norm else None
            report.append(_fit(targets[name], module, layers.get(name), norm, arguments[0]))
            print(report[-1], flush=True)

    with ExitStack() as hooks:
        for name in targets:
            hooks.callback(model.get_submodule(name).register_forward_pre_hook(before).remove)
        model(x)
    model.train(training)
    return report


def _observe(dense: nn.Module, x: torch.Tensor, columns: int) -> dict[str, _Target]:
    targets: dict[str, _Target] = {}
    names = {module: name for name, module in dense.named_modules()}
    last: list[Any] = [None, None]

    def after(module: nn.Module, arguments: tuple[Any, ...], output: torch.Tensor) -> None:
        name = names[module]
        if name in targets:
            return
        where = sample_positions(output, module, columns, len(targets))
        targets[name] = _Target(name, module, where, outputs_at(output, module, where))
        last[:] = output, name

    def norm(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if arguments[0] is last[0] and module.track_running_stats:
            targets[last[1]].norm = names[module]

    with ExitStack() as hooks:
        for module in dense.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                hooks.callback(module.register_forward_hook(after).remove)
            elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                hooks.callback(module.register_forward_pre_hook(norm).remove)
        dense(x)
    return targets


def _fit(target: _Target, layer: nn.Conv2d | nn.Linear, structured: Layer | None, norm: nn.Module | None, x: torch.Tensor) -> Reconstructed:
    began = time.perf_counter()
    intercept = layer.bias is not None or norm is not None
    found = moments(x, layer, target.where, target.outputs, intercept=intercept)
    groups = len(found.xx)
    scale = found.y_mean.new_ones(len(found.y_mean))
    if norm is not None:
        scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight.abs())
    scale = scale.clamp_min(1e-6)

    def to_columns(weight: torch.Tensor) -> torch.Tensor:
        return weight.flatten(1).reshape(groups, -1, weight[0].numel()).transpose(1, 2)

    def to_weight(columns: torch.Tensor) -> torch.Tensor:
        return columns.transpose(1, 2).reshape(layer.weight.shape).contiguous()

    dense = to_columns(target.layer.weight.float())
    quadratic = Quadratic.of(found, dense, scale)
    if structured is None:
        once = dense
        fitted = refit(quadratic, dense * quadratic.unit) / quadratic.unit
    else:
        once = to_columns(structured.project(to_weight(dense * scale.reshape(groups, 1, -1)))) / scale.reshape(groups, 1, -1)
        best = admm(quadratic, dense * quadratic.unit, lambda v: to_columns(structured.project(to_weight(v))))
        fitted = refit(quadratic, best) / quadratic.unit
    before, after = _error(found, once, scale), _error(found, fitted, scale)
    layer.weight.copy_(to_weight(fitted))
    if intercept:
        predicted = (found.x_mean[:, None, :] @ fitted).flatten()
        needed = found.y_mean - predicted
        if layer.bias is not None:
            layer.bias.copy_(needed)
        else:
            norm.running_mean.sub_(needed)
    return Reconstructed(target.name, "" if structured is None else structured.structure.name, len(target.where), before, after, time.perf_counter() - began)


def _error(found: Moments, w: torch.Tensor, scale: torch.Tensor) -> float:
    per = (w * (found.xx @ w - 2 * found.xy)).sum(dim=1).flatten() + found.yy
    return float((per * scale**2).sum() / (found.yy * scale**2).sum())

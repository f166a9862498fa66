"""Hybrid pruning, the coarse half: which filters go, from a quick sensitivity test (Xu, Park, Brick, "Hybrid Pruning:
Thinner Sparse Networks for Fast Inference on Edge Devices", 2018).

* For each layer alone the filters of smallest L1 norm are taken away, more and more of them, and the accuracy on a
  small labelled sample is measured, without
  retraining: a curve of accuracy drop over removed filters.
* Every layer is allowed the same drop; its curve, inverted, says how many filters that is worth.
* The drop is bisected until the network meets a target in multiply-accumulates (MACs), with the filters of each layer
  rounded up to a number that the
  hardware likes.

Fine-tuning (`Train`) and the fine half, gradual pruning of the weights of the thin network (`Gradual`), are stages of
their own. Where we depart from the paper: layers whose feature maps are added to others (shortcuts) keep all filters;
the sample is taken from the training set.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from pcc.errors import PccError
from pcc.sparsity.filters import Filter
from pcc.training.data import Data
from pcc.training.evaluate import positions
from pcc.training.layers import Layer, Structures, array
from pcc.training.method import Method, average
from pcc.training.methods.wiring import Source, Wiring

BATCH = 100

_LOG = logging.getLogger(__name__)


class Hybrid(Method):
    """Takes filters away until the network has ``macs_rate`` times fewer MACs. Needs no epochs.

    Layers take `Filter`: its rate is the most that the layer may lose (8 keeps at least one filter in 8), its multiple
    the number that the hardware likes. ``samples``: of the sensitivity test, at most; ``points``: of each curve. A
    filter that is taken away is gone wherever it is read (`Source.silence`).
    """

    name: ClassVar[str] = "hybrid"
    uses: ClassVar[tuple[str, ...]] = ("data",)

    def __init__(
        self,
        model: nn.Module,
        structures: Structures,
        *,
        data: Data,
        macs_rate: float,
        samples: int = 1000,
        points: int = 8,
    ) -> None:
        super().__init__(model, structures, epochs=0)
        if not macs_rate > 1:
            raise PccError(
                f"hybrid: a MACs rate of {macs_rate:g} asks for nothing: give the factor by which MACs become fewer, "
                "above 1"
            )
        if samples < 1:
            raise PccError(f"hybrid: a sensitivity test of {samples} samples: give 1 or more")
        if points < 1:
            raise PccError(f"hybrid: a curve of {points} points: give 1 or more")
        for layer in self.layers:
            if not isinstance(layer.structure, Filter):
                raise PccError(
                    f"hybrid: layer {layer.name} has the structure '{layer.structure.name}': whole filters are taken "
                    "away, give filter"
                )
        wiring = Wiring(model, data.input_shape)
        self.sources: dict[str, Source] = wiring.sources
        self.free = [layer for layer in self.layers if layer.name in wiring.sources]
        """The layers that may lose filters."""
        self.left_out = tuple(layer.name for layer in self.layers if layer.name not in wiring.sources)
        """Layers with a structure whose feature maps are added to others, concatenated or returned: they keep all
        filters."""
        if not self.free:
            raise PccError(
                "hybrid: no layer with a structure can lose a filter: their feature maps are added to others, "
                "concatenated or returned"
            )
        if self.left_out:
            _LOG.info(
                "these keep all filters, as their feature maps are added to others, concatenated or returned: %s",
                ", ".join(self.left_out),
            )
        self.macs_rate, self.samples, self.points = macs_rate, min(samples, data.train_size), points
        self.data = data
        self.kept: dict[str, torch.Tensor] = {}
        """Which filters stayed, bool (filters,), by layer."""
        self.drop = 0.0
        """The loss of accuracy that each layer alone was allowed."""

    @torch.no_grad()
    def finish(self) -> None:
        curves = {layer.name: self.sensitivity(layer) for layer in self.free}
        macs = Macs(self.model, self.free, self.sources, self.data)
        target = macs.left({}) / self.macs_rate

        def cut(drop: float) -> dict[str, torch.Tensor]:
            return {layer.name: keep(layer, inverted(*curves[layer.name], drop)) for layer in self.free}

        self.drop = _least(lambda drop: macs.left(cut(drop)) <= target)
        self.kept = cut(self.drop)
        if macs.left(self.kept) > target:
            most = macs.left({}) / macs.left(self.kept)
            raise PccError(
                f"hybrid: MACs cannot become {self.macs_rate:g} times fewer: {most:.2f} times is the most that the "
                "layers' rates and multiples allow"
            )
        for name, kept in self.kept.items():
            self.sources[name].silence(~kept)
            _LOG.info("%s keeps %d of %d filters", name, int(kept.sum()), len(kept))

    def sensitivity(self, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
        """The curve of one layer: parts of its filters that are removed, ascending from 0, and the accuracy drop at
        each, made to ascend too."""
        assert isinstance(layer.structure, Filter)
        removed = np.linspace(0, 1 - 1 / layer.structure.rate, self.points + 1)
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        accuracies = []
        for part in removed:
            self.sources[layer.name].silence(~keep(layer, part))
            accuracies.append(self._accuracy())
            self.model.load_state_dict(before)
        return removed, np.maximum.accumulate(np.maximum(0, accuracies[0] - np.array(accuracies)))

    def _accuracy(self) -> float:
        """On the sample, 0..1: the same in all processes."""
        device = next(self.model.parameters()).device
        training = self.model.training
        self.model.eval()
        right = count = 0
        for x, y in self.data.subset(train=self.samples).batches(0, min(BATCH, self.samples), seed=0):
            right += int((self.model(x.to(device)).argmax(dim=1) == y.to(device)).sum())
            count += len(y)
        self.model.train(training)
        return float(average(torch.tensor(right / count, dtype=torch.float64, device=device)))


class Macs:
    """Multiply-accumulates of a network for one input, when layers lose filters."""

    def __init__(self, model: nn.Module, layers: list[Layer], sources: Mapping[str, Source], data: Data) -> None:
        names = {module: name for name, module in model.named_modules()}
        self.dense = {
            name: count * model.get_submodule(name).get_parameter("weight").numel()
            for name, count in positions(model, data.input_shape).items()
        }
        self.touched = {
            layer.name: [
                layer.name,
                *(names[module] for module in sources[layer.name].between if isinstance(module, nn.Conv2d)),
                *(reader.name for reader in sources[layer.name].readers),
            ]
            for layer in layers
        }
        """The layers whose MACs become fewer in proportion: itself, depthwise convolutions that follow, and its
        readers."""

    def left(self, kept: Mapping[str, torch.Tensor]) -> float:
        left: dict[str, float] = {**self.dense}
        for name, stays in kept.items():
            for touched in self.touched[name]:
                left[touched] *= float(stays.double().mean())
        return sum(left.values())


def keep(layer: Layer, removed: float) -> torch.Tensor:
    """Which filters stay, bool (filters,), when a part of them, 0..1, is removed, those of smallest L1 norm; their
    number rounded up to the multiple."""
    assert isinstance(layer.structure, Filter)
    chosen = replace(layer.structure, rate=1 / (1 - removed)).choose(
        np.abs(array(layer.weight), dtype=np.float64), layer.groups
    )
    return torch.from_numpy(chosen).to(layer.weight.device)


def inverted(removed: np.ndarray, drops: np.ndarray, drop: float) -> float:
    """The largest part that may be removed for a drop, by a curve of ascending points joined by straight lines."""
    beyond = int(np.searchsorted(drops, drop, side="right"))
    if beyond == len(drops):
        return float(removed[-1])
    low, high = drops[beyond - 1], drops[beyond]
    return float(removed[beyond - 1] + (drop - low) / (high - low) * (removed[beyond] - removed[beyond - 1]))


def _least(holds: Callable[[float], bool]) -> float:
    """The least number in 0..1 for which something holds that holds above it too, to a millionth; 1 where it never
    does."""
    low, high = 0.0, 1.0
    if holds(low):
        return low
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high

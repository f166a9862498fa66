"""What each structure costs a layer in output error: its moments are gathered once, and solved for all of them.

Which weights go is decided by what they cost when the others make up for them, w^2 / diag(H^-1) (Hassibi and Stork,
"Second Order Derivatives for Network Pruning: Optimal Brain Surgeon", NIPS 1992; Frantar and Alistarh, "Optimal Brain
Compression", NeurIPS 2022, which takes one after the other and H anew for each; this is an estimate, and takes all at
once), by their size where that leaves less error; those that stay are fitted by least squares. The network itself is
fitted by `pcc.training.reconstruct`, whose ADMM finds its own zeros.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from pcc.sparsity.kernels import Kernels
from pcc.sparsity.zeros import Zeros
from pcc.training.layers import Layer, groups_of
from pcc.training.reconstruct import effect, error_of, gain_of, passed_on, shift, to_columns, to_weight
from pcc.training.reconstruction_moments import Moments, MomentSums
from pcc.training.reconstruction_solve import EXACT, Quadratic, refit
from pcc.training.reconstruction_watch import Norm, Place, Wanted, observe, places

FILTERS = 48
"""Of a layer, on which an error is estimated..."""
ESTIMATE = 1e-4
"""...with fits of this precision."""


@dataclass(frozen=True)
class LayerFit:
    """A layer's moments in the dense network, and its second-order cost of a weight."""

    module: nn.Conv2d | nn.Linear
    norm: Norm | None
    moments: Moments
    """What weights are fitted on..."""
    others: Moments
    """...and what errors are measured on: of other samples, for few samples are fitted too well."""
    scale: Tensor
    """(g, 1, O / g): what a unit of each output counts."""
    variance: Tensor
    """(O,), of what is passed on from the layer (`pcc.training.reconstruct.passed_on`)."""

    @property
    def groups(self) -> int:
        return groups_of(self.module)

    @cached_property
    def dense(self) -> Tensor:
        """(g, n, O / g)."""
        return to_columns(self.module.weight.detach().float(), self.groups)

    @cached_property
    def quadratic(self) -> Quadratic:
        return Quadratic.of(self.moments, self.dense, self.scale)

    @cached_property
    def scores(self) -> tuple[np.ndarray, np.ndarray]:
        """What each weight is worth, of the weight's shape: by second-order cost, and by size in units of effect."""
        size = (self.dense * self.quadratic.unit).square()
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(self.quadratic.a))
        cost = size / inverse.diagonal(dim1=1, dim2=2)[:, :, None]
        shape = self.module.weight.shape
        return to_weight(cost, shape).numpy(), to_weight(size, shape).numpy()

    def fitted(self, structure: Zeros) -> tuple[Tensor, float]:
        """The better of both scores' fits: weight by columns, (g, n, O / g), and its squared error over the variance of
        what is passed on; of some filters."""
        every = max(1, self.dense.shape[2] // FILTERS)
        fits = (self._fit(structure, scores, slice(None, None, every), ESTIMATE) for scores in self.scores)
        return min(fits, key=lambda fit: fit[1])

    def fully_fitted(self, structure: Zeros) -> tuple[Tensor, float]:
        """`fitted`, of all filters."""
        return min((self._fit(structure, scores, slice(None), EXACT) for scores in self.scores), key=lambda fit: fit[1])

    def _fit(self, structure: Zeros, scores: np.ndarray, filters: slice, precision: float) -> tuple[Tensor, float]:
        kept = to_columns(torch.from_numpy(structure.keep(scores, self.groups)), self.groups)[:, :, filters]
        whole = self.quadratic
        unit = whole.unit[:, :, filters]
        some = Quadratic(whole.a, whole.b[:, :, filters], unit)
        weight = refit(some, self.dense[:, :, filters] * unit * kept, precision) / unit
        variance = self.variance.unflatten(0, (self.groups, -1))[:, filters]
        return weight, error_of(self.others.of_filters(filters), weight, self.scale[:, :, filters], variance)


@torch.no_grad()
def layer_fits(
    model: nn.Module, modules: Mapping[str, nn.Conv2d | nn.Linear], batches: Sequence[Tensor], columns: int
) -> dict[str, LayerFit]:
    """The moments of layers in the dense network, at about ``columns`` output positions of all batches together: half
    of each batch is fitted on, half measured on. Raises `PccError` as `observe` does."""
    layers = [Layer(name, module, Kernels()) for name, module in modules.items()]
    wanted = observe(model, layers, batches, columns)
    halves = [
        {
            module: MomentSums(modules[found.layer.name], intercept=_has_mean(found.norm, module))
            for module, found in wanted.items()
        }
        for _ in range(2)
    ]
    for number, batch in enumerate(batches):

        def see(place: Place, tensor: Tensor, number: int = number, samples: int = len(batch)) -> None:
            if place.end == "in" and place.run == 1:
                part = wanted[place.module].parts[number]
                outputs, middle = part.outputs, len(part.where) // 2  # positions are in the order of the samples
                if samples == 1 and len(batches) > 1:  # a sample has no two halves
                    middle = 0 if number % 2 else len(part.where)
                for sums, some in zip(halves, (slice(middle), slice(middle, None)), strict=True):
                    if len(part.where[some]):
                        sums[place.module].add(tensor, part.where[some], outputs[some])

        with places(wanted, see):
            model(batch)
    return {
        found.layer.name: _fit_of(found, *(sums[module].moments() for sums in halves))
        for module, found in wanted.items()
    }


def _fit_of(found: Wanted, moments: Moments, others: Moments) -> LayerFit:
    module, gain = found.layer.module, gain_of(found.norm, found.outputs)
    assert isinstance(module, nn.Conv2d | nn.Linear)
    scale = effect(gain, found.layer.groups)
    return LayerFit(module, found.norm, moments, others, scale, passed_on(found, gain))


@torch.no_grad()
def shown(run: Callable[[], Tensor], dense: Tensor, fit: LayerFit, structure: Zeros) -> float:
    """How much the network's outputs show of a layer in a structure: the squared error of what ``run`` gives, over the
    squares of the ``dense`` outputs."""
    weight, _ = fit.fully_fitted(structure)
    with _replaced(fit, weight):
        found = run()
    return float((found - dense).square().sum() / dense.square().sum().clamp_min(torch.finfo(dense.dtype).tiny))


@contextmanager
def _replaced(fit: LayerFit, by_column: Tensor) -> Generator[None]:
    """Inside, the layer has another weight, and its output the mean it had."""
    module, norm = fit.module, fit.norm
    tensors = [module.weight, module.bias, None if norm is None else norm.running_mean]
    before = [None if tensor is None else tensor.clone() for tensor in tensors]
    module.weight.copy_(to_weight(by_column, module.weight.shape))
    if _has_mean(norm, module):
        shift(module, norm, fit.moments, by_column)
    try:
        yield
    finally:
        for tensor, value in zip(tensors, before, strict=True):
            if tensor is not None and value is not None:
                tensor.copy_(value)


def _has_mean(norm: Norm | None, module: nn.Module) -> bool:
    """Whether the mean of a layer's output can be fitted, too."""
    return norm is not None or getattr(module, "bias", None) is not None

"""Which layers of a module take which structure.

A choice is a mapping from selectors to structures. A selector is a layer's module path, a glob over paths
(``layer2.*.conv1``), or a kind: ``@first`` (the first layer), ``@conv``, ``@conv3x3`` (any KxK), ``@linear``, ``@all``.
The first selector that fits a layer decides; None leaves the layer dense. So ``{"@first": None, "@conv3x3":
Kernels("designed", 3.6)}`` spares the first convolution.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import nn

from pcc.errors import PccError
from pcc.sparsity.structure import Count, Structure

Structures = Mapping[str, Structure | None]


def groups_of(module: nn.Module) -> int:
    """A convolution's groups; a linear layer is one."""
    return module.groups if isinstance(module, nn.Conv2d) else 1


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer, and the structure it shall have."""

    name: str
    """Module path."""
    module: nn.Module
    structure: Structure

    @property
    def weight(self) -> torch.Tensor:
        """(O, I/groups, kh, kw) or (O, I)."""
        weight = self.module.weight
        assert isinstance(weight, torch.Tensor)
        return weight

    @property
    def groups(self) -> int:
        return groups_of(self.module)

    def project(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest weight that has the layer's structure, as a new tensor on the same device."""
        try:
            projected = self.structure.project(array(weight), self.groups)
        except PccError as error:
            raise PccError(f"layer {self.name}: {error}") from None
        return torch.from_numpy(np.ascontiguousarray(projected)).to(weight)

    def count(self) -> Count:
        """What the weight costs in the structure it has."""
        return self.structure.count(array(self.weight), self.groups)


def array(weight: torch.Tensor) -> np.ndarray:
    """A weight as a fp32 array in row-major order."""
    return np.ascontiguousarray(weight.detach().float().cpu().numpy())


def prunable(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Convolutions and linear layers by module path, in the order of definition; depthwise convolutions have one
    connection a filter and are left out."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        or (isinstance(module, nn.Conv2d) and not (module.groups > 1 and module.groups == module.in_channels))
    }


def check_weights(model: nn.Module) -> None:
    """`PccError` for a layer whose weight is computed from other tensors: what is written to it is lost."""
    for name, module in prunable(model).items():
        if "weight" not in module._parameters:
            raise PccError(
                f"layer {name}: its weight is computed from other tensors (weight norm, a pruning mask, another "
                "parametrization): make it a plain one first, as torch.nn.utils.parametrize.remove_parametrizations, "
                "remove_weight_norm or prune.remove do"
            )


def bind(model: nn.Module, structures: Structures) -> list[Layer]:
    """The layers that take a structure, in order of definition; structures that share something between layers (mined
    patterns) are settled.

    Raises `PccError` for a selector that fits no layer, and as `check_weights` does.
    """
    check_weights(model)
    modules = prunable(model)
    first = next(iter(modules), "")
    chosen: dict[str, list[str]] = {selector: [] for selector in structures}
    for name, module in modules.items():
        selector = next((known for known in structures if _fits(known, name, module, first)), None)
        if selector is not None:
            chosen[selector].append(name)
    for selector, names in chosen.items():
        if not names and not any(_fits(selector, name, module, first) for name, module in modules.items()):
            raise PccError(_nothing(selector, model, list(modules)))
    found = {}
    for selector, names in chosen.items():
        structure = structures[selector]
        if structure is None or not names:
            continue
        settled = structure.settle([array(modules[name].weight) for name in names])
        for name in names:
            module = modules[name]
            try:
                found[name] = Layer(name, module, settled.arranged(array(module.weight), groups_of(module)))
            except PccError as error:
                raise PccError(f"layer {name}: {error}") from None
    return [found[name] for name in modules if name in found]


def _fits(selector: str, name: str, module: nn.Module, first: str) -> bool:
    """Whether a selector means this layer of a model whose first layer is ``first``."""
    if not selector.startswith("@"):
        return fnmatchcase(name, selector)
    if selector == "@first":
        return name == first
    size = re.fullmatch(r"@conv(\d+)x(\d+)", selector)
    if size:
        return isinstance(module, nn.Conv2d) and module.kernel_size == (int(size[1]), int(size[2]))
    kinds: dict[str, type[nn.Module]] = {"@conv": nn.Conv2d, "@linear": nn.Linear, "@all": nn.Module}
    if selector not in kinds:
        raise PccError(f"'{selector}' is no kind of layer: choose @first, @conv, @conv3x3 (any size), @linear or @all")
    return isinstance(module, kinds[selector])


def _nothing(selector: str, model: nn.Module, names: list[str]) -> str:
    """Why a selector fits no layer, and what would."""
    if selector.startswith("@"):
        return f"the model has no {selector} layer: it has {_some(names)}"
    others = {
        name: type(module).__name__
        for name, module in model.named_modules()
        if name and fnmatchcase(name, selector) and name not in names
    }
    if others:
        name, kind = next(iter(others.items()))
        return (
            f"'{selector}' is no layer that can be pruned: {name} is a "
            f"{'depthwise convolution' if kind == 'Conv2d' else kind}"
        )
    near = get_close_matches(selector, names, n=3)
    return f"no convolution or linear layer is called '{selector}': " + (
        f"did you mean {' or '.join(near)}?" if near else f"it has {_some(names)}"
    )


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"

"""What the layers of a network made when it was dense, and what their outputs went into: found by watching it run.

What a residual network passes on is a sum, so errors of one branch stay in it. The layer that ends a branch can take
back what has gone wrong in the shortcut so far, if it aims at the dense network's *sum* (He et al., "Channel Pruning
for Accelerating Very Deep Neural Networks", ICCV 2017). So that it can, the shortcut has to be there before the layer
runs, as the input or the output of some module.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from threading import get_ident
from typing import Any, Literal

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from pcc.errors import PccError
from pcc.training.layers import Layer
from pcc.training.reconstruction_moments import outputs_at, sample_positions
from pcc.training.swap_file import SwapFile, Swapped

FEWEST_COLUMNS = 32
Norm = nn.BatchNorm1d | nn.BatchNorm2d
_ADDITIONS = {"add", "add_", "__add__", "__radd__", "__iadd__"}


@dataclass(frozen=True)
class Place:
    """A tensor of a run: what goes in or comes out of a module when it runs for the n-th time."""

    module: nn.Module
    end: Literal["in", "out"]
    run: int = 1


@dataclass(frozen=True)
class Part:
    """What a layer gave in the dense network for one batch, at the positions that are looked at."""

    where: torch.Tensor
    """(M,)."""
    swapped: Swapped
    swapped_addition: Swapped | None

    @property
    def outputs(self) -> torch.Tensor:
        """(M, O)."""
        return self.swapped.read()

    @property
    def added(self) -> torch.Tensor | None:
        """(M, O), what was then added to it."""
        return self.swapped_addition.read() if self.swapped_addition is not None else None


@dataclass
class Wanted:
    """What a layer gave in the dense network."""

    layer: Layer
    where: torch.Tensor
    """Positions of the last batch that are looked at, (M,)."""
    outputs: torch.Tensor
    """(M, O)."""
    norm: Norm | None = None
    """The batch norm that follows it, and only it."""
    added: torch.Tensor | None = None
    """What was then added to it, (M, O)..."""
    shortcut: Place | None = None
    """...and the place of that, where it is there before the layer runs."""
    parts: list[Part] = field(default_factory=list)
    """Of all batches."""


@contextmanager
def places(modules: Iterable[nn.Module], see: Callable[[Place, torch.Tensor], None]) -> Generator[None]:
    """Inside, every tensor that goes in or comes out of ``modules`` in this thread is shown to ``see``."""
    runs: Counter[nn.Module] = Counter()
    thread = get_ident()

    def before(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if get_ident() != thread:
            return None
        runs[module] += 1
        for value in (*arguments, *named.values()):
            if isinstance(value, torch.Tensor):
                return see(Place(module, "in", runs[module]), value)

    def after(module: nn.Module, _: object, output: Any) -> None:
        if get_ident() == thread and isinstance(output, torch.Tensor):
            see(Place(module, "out", runs[module]), output)

    with ExitStack() as hooks:
        for module in set(modules):
            hooks.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(after).remove)
        yield


class _Operations(TorchFunctionMode):
    """Inside, the operands of every sum of two tensors of one shape are shown to ``see_addition``, and every tensor
    that another is made of to ``see_reading``."""

    def __init__(
        self, see_addition: Callable[[torch.Tensor, torch.Tensor], None], see_reading: Callable[[torch.Tensor], None]
    ) -> None:
        super().__init__()
        self.see_addition, self.see_reading = see_addition, see_reading

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "").partition(".")[0]  # models from files call ``add.Tensor``
        if name in _ADDITIONS and not kwargs and len(args) == 2:
            left, right = args
            if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor) and left.shape == right.shape:
                self.see_addition(left, right)
        read = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, torch.Tensor)]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            for value in read:
                self.see_reading(value)
        return result


def observe(
    model: nn.Module, layers: Iterable[Layer], batches: Sequence[torch.Tensor], columns: int
) -> dict[nn.Module, Wanted]:
    """Runs the dense network on ``batches``, and gives what each layer made of them, in order of execution, at about
    ``columns`` positions of all batches together."""
    layers, samples = list(layers), sum(len(batch) for batch in batches)
    parts: dict[nn.Module, list[Part]] = {}
    watch, file = _Watch(layers, columns), SwapFile()
    for number, batch in enumerate(batches):
        watch = _Watch(layers, -(-columns * len(batch) // samples), number)
        with places(model.modules(), watch.see), _Operations(watch.see_addition, watch.see_reading):
            model(batch)
        for module, found in watch.found.items():
            added = file.write(found.added) if found.added is not None else None
            parts.setdefault(module, []).append(Part(found.where, file.write(found.outputs), added))
    for module, wanted in watch.found.items():
        wanted.parts = parts[module]
        if (count := sum(len(part.where) for part in wanted.parts)) < FEWEST_COLUMNS:
            raise PccError(
                f"layer {wanted.layer.name}: {count} outputs are too few for a fit, which takes {FEWEST_COLUMNS}: give "
                "more samples"
            )
    for layer in layers:
        if layer.module not in watch.found:
            raise PccError(
                f"layer {layer.name} never runs when the model sees the samples: leave it out of the structures"
            )
    for wanted in watch.found.values():
        if wanted.norm is not None and (watch.norms[wanted.norm] > 1 or watch.readings[wanted.layer.module] > 1):
            wanted.norm = wanted.shortcut = wanted.added = None  # a mean that belongs to others too
            wanted.parts = [replace(part, swapped_addition=None) for part in wanted.parts]
    return watch.found


class _Watch:
    def __init__(self, layers: Iterable[Layer], columns: int, batch: int = 0) -> None:
        self.layers = {layer.module: layer for layer in layers}
        self.columns, self.batch = columns, batch
        self.found: dict[nn.Module, Wanted] = {}
        self.norms: Counter[nn.Module] = Counter()
        """How often each batch norm runs."""
        self.origins = WeakIdKeyDictionary()
        """Tensor -> (its version, the place where that was first seen, when). An operation in place makes a new
        version."""
        self.ends = WeakIdKeyDictionary()
        """Tensor -> (its version, the layer whose output that is, perhaps through a batch norm)."""
        self.raw = WeakIdKeyDictionary()
        """Tensor -> (its version, the layer whose output that is)."""
        self.readings: Counter[nn.Module] = Counter()
        """How often something is made of the output of each layer."""
        self.begun: dict[nn.Module, int] = {}
        """When each layer was first reached."""
        self.time = 0

    def see(self, place: Place, tensor: torch.Tensor) -> None:
        self.time += 1
        if self._known(self.origins, tensor) is None:
            self.origins[tensor] = tensor._version, place, self.time
        module = place.module
        if module in self.layers and place.run == 1:
            if place.end == "in":
                self.begun[module] = self.time
            else:
                self.found[module] = self._wanted(self.layers[module], tensor)
                self.ends[tensor] = self.raw[tensor] = tensor._version, module
        elif isinstance(module, Norm) and module.running_mean is not None:
            if place.end == "in":
                self.norms[module] += 1
                end = self._known(self.ends, tensor)
                if end is not None and self.found[end[0]].norm is None:
                    self.found[end[0]].norm = module
            else:
                self._pass_on(module, tensor)

    def _pass_on(self, norm: Norm, output: torch.Tensor) -> None:
        """What comes out of a batch norm is still the output of the layer in front of it."""
        for layer, wanted in self.found.items():
            if wanted.norm is norm and self.norms[norm] == 1:
                self.ends[output] = output._version, layer

    def see_reading(self, tensor: torch.Tensor) -> None:
        if (layer := self._known(self.raw, tensor)) is not None:
            self.readings[layer[0]] += 1

    def see_addition(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """Of two layers that end in a sum the later one takes the other for its shortcut."""
        if left is right:
            return
        for branch, other in ((left, right), (right, left)):
            end, origin = self._known(self.ends, branch), self._known(self.origins, other)
            if end is None or (wanted := self.found[end[0]]).added is not None:
                continue
            wanted.added = outputs_at(other, end[0], wanted.where)
            if origin is not None and origin[1] <= self.begun[end[0]]:
                wanted.shortcut = origin[0]

    @staticmethod
    def _known(tensors: WeakIdKeyDictionary, tensor: torch.Tensor) -> tuple[Any, ...] | None:
        """What is known of a tensor, if it has not been changed since."""
        known = tensors.get(tensor)
        return known[1:] if known is not None and known[0] == tensor._version else None

    def _wanted(self, layer: Layer, output: torch.Tensor) -> Wanted:
        seed = len(self.found) + len(self.layers) * self.batch
        where = sample_positions(output, layer.module, self.columns, seed)
        outputs = outputs_at(output, layer.module, where)
        if not outputs.isfinite().all():
            raise PccError(
                f"layer {layer.name} gives numbers that are not finite: look at the samples and at the weights"
            )
        return Wanted(layer, where, outputs)

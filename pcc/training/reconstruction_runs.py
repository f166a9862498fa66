"""The runs of all batches through a network whose layers change: each waits at a layer until that is as it stays.

So every batch is computed once. While it waits, what it holds (the input of the layer, and the shortcuts around it)
waits in memory, or where that is too much, in a file.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any
from weakref import ref

import torch
from torch import nn

from pcc.errors import PccError
from pcc.training.paused_run import PausedRun
from pcc.training.reconstruction_watch import Place, Wanted, places
from pcc.training.swap_file import SwapFile, Swapped

LIVE_BYTES = 1 << 30
"""Of activations that wait in memory."""


@dataclass(frozen=True)
class Arrived:
    """What a batch is when it reaches a layer: the layer's input, and what will be added to its output."""

    x: torch.Tensor
    addition: torch.Tensor | None


@dataclass(frozen=True)
class _View:
    """How a tensor lies in its storage."""

    offset: int
    shape: torch.Size
    stride: tuple[int, ...]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "_View":
        return cls(int(tensor.storage_offset()), tensor.shape, tensor.stride())


class BatchRun:
    """The run of one batch, which waits in front of each layer in ``wanted`` when that is about to run for the first
    time."""

    def __init__(self, model: nn.Module, batch: torch.Tensor, wanted: Mapping[nn.Module, Wanted]) -> None:
        self._model, self._batch, self._wanted = model, batch, wanted
        self._seen: list[ref[torch.Tensor]] = []
        self._swapped: list[tuple[Swapped, list[torch.Tensor], list[_View]]] = []
        self._file: SwapFile | None = None
        self._run: PausedRun[tuple[nn.Module, Arrived]] = PausedRun(self._compute)

    @torch.no_grad()
    def _compute(self, pause: Callable[[tuple[nn.Module, Arrived]], None]) -> None:
        shortcuts = {target.shortcut: target for target in self._wanted.values() if target.shortcut is not None}
        additions: dict[nn.Module, torch.Tensor] = {}

        def see(place: Place, tensor: torch.Tensor) -> None:
            self._seen.append(ref(tensor))
            if (end := shortcuts.get(place)) is not None:
                additions[end.layer.module] = tensor
            if place.module in self._wanted and place.end == "in" and place.run == 1:
                pause((place.module, Arrived(tensor, additions.pop(place.module, None))))

        with places(self._model.modules(), see):
            self._model(self._batch)

    def arrive(self, module: nn.Module) -> Arrived:
        """The batch in front of a layer, the next of those that are wanted; `PccError` if it gets to another one."""
        self._swap_in()
        reached = self._run.resume()
        if reached is None or reached[0] is not module:
            raise PccError(
                f"layer {self._wanted[module].layer.name} does not run in the same place for all samples: leave it out "
                "of the structures"
            )
        return reached[1]

    def swap_out(self, room: int) -> int:
        """Leaves the memory to others, if this run holds more than ``room`` bytes; what it holds then."""
        live = list(self._live().values())
        size = sum(tensors[0].untyped_storage().nbytes() for tensors in live)
        if size <= room:
            return size
        self._file = self._file or SwapFile()
        self._file.clear()
        for tensors in live:
            storage = tensors[0].untyped_storage()
            whole = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)  # type: ignore[call-overload]
            self._swapped.append((self._file.write(whole), tensors, [_View.of(tensor) for tensor in tensors]))
            for tensor in tensors:
                tensor.set_(tensor.new_empty(0).untyped_storage(), 0, (0,), (1,))  # whoever should not look at it fails
        return 0

    def _swap_in(self) -> None:
        for kept, tensors, views in self._swapped:
            storage = kept.read().untyped_storage()
            for tensor, view in zip(tensors, views, strict=True):
                tensor.set_(storage, view.offset, view.shape, view.stride)
        self._swapped = []

    def _live(self) -> dict[int, list[torch.Tensor]]:
        """The tensors of this run that still exist, by where their storage is; without what belongs to the network."""
        self._seen = [each for each in self._seen if each() is not None]
        live: dict[int, dict[int, torch.Tensor]] = {}
        others = {tensor.untyped_storage().data_ptr() for tensor in (self._batch, *_of_network(self._model))}
        for each in self._seen:
            tensor = each()
            if tensor is not None and tensor.untyped_storage().data_ptr() not in {*others, 0}:
                live.setdefault(tensor.untyped_storage().data_ptr(), {})[id(tensor)] = tensor
        return {place: list(tensors.values()) for place, tensors in live.items()}

    def close(self) -> None:
        self._run.close()


def _of_network(model: nn.Module) -> Iterator[torch.Tensor]:
    """Parameters, buffers, and what modules keep from one run to the next."""
    yield from chain(model.parameters(), model.buffers())
    for module in model.modules():
        for value in vars(module).values():
            yield from _tensors(value)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


@contextmanager
def batch_runs(
    model: nn.Module, batches: Sequence[torch.Tensor], wanted: Mapping[nn.Module, Wanted]
) -> Generator[list[BatchRun]]:
    """A run for each batch, none of them begun; they end with the block."""
    runs = [BatchRun(model, batch, wanted) for batch in batches]
    try:
        yield runs
    finally:
        for run in runs:
            run.close()


def arrive_at(module: nn.Module, runs: Iterable[BatchRun]) -> Iterator[Arrived]:
    """Each batch in front of a layer, one after the other."""
    waiting = 0
    for run in runs:
        yield run.arrive(module)
        waiting += run.swap_out(LIVE_BYTES - waiting)

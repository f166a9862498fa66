"""Which tensors of a checkpoint are the weights of a model: training loops keep state dicts under many names, with
prefixes, beside optimisers and averages.

What fits is taken: of all dicts of tensors that a file holds, and of all prefixes that their names have, the one with
the most weights of the model. Of several that fit equally: averages (EMA, SWA), which are what authors evaluate, before
others, teachers after others, what an optimiser keeps last; of equals the first in the file.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from torch import nn

from pcc.errors import PccError, suggestion
from pcc.frontend.reparametrised import whole_name
from pcc.frontend.state_dicts import MOST_DEPTH, Found, State

Value = TypeVar("Value")

_SHOWN = 3
"""How many of those that would fit too a note names."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_AVERAGE = re.compile(r"(model|net|params|weights)?(ema|swa|avg|averages?|averaged|polyak|shadow)(model|net|params)?")
_COPIES = {"backup", "collected", "original"}
"""What lies beside an average: the weights as they were, kept while the average is evaluated."""
_TEACHERS = {"teacher", "target", "momentum"}
_OPTIMISER = re.compile(r"optim.*|adam.*|sgd")


@dataclass(frozen=True)
class Chosen:
    """The state dict that was taken."""

    found: Found
    state: State
    """With the model's names."""
    note: str
    """What the user should know: what else fits, which tensors were left."""
    modules: frozenset[str]
    """As `Found.modules`, with the model's names."""


@dataclass(frozen=True, eq=False)
class _Part:
    """The tensors of a state dict whose names have a prefix."""

    found: Found
    prefix: str
    fits: tuple[int, int]
    """How many of the model's tensors it has with their shapes, and how many at all."""

    @cached_property
    def name(self) -> str:
        """As ``FILE:KEY`` has it."""
        return ".".join(filter(None, (self.found.place, self.prefix.removesuffix("."))))

    @cached_property
    def state(self) -> State:
        return _under(self.prefix, self.found.state)

    @cached_property
    def rank(self) -> tuple[bool, bool, bool]:
        """Smaller is taken before greater."""
        words = [word.lower() for word in _WORD.findall(self.name)]
        optimiser = "exp_avg" in self.name or any(_OPTIMISER.fullmatch(word) for word in words)
        average = any(_AVERAGE.fullmatch(word) for word in words) and _COPIES.isdisjoint(words)
        return optimiser, not average or self.found.swapped, not _TEACHERS.isdisjoint(words)

    @property
    def is_average(self) -> bool:
        return self.rank[:2] == (False, False)

    @property
    def is_list(self) -> bool:
        """Whether its tensors have no names: `state_dicts` counts those of a list."""
        return not self.prefix and all(name == str(index) for index, name in enumerate(self.found.state))


def choose(found: list[Found], wanted: str | None, model: nn.Module) -> Chosen:
    """The state dict that fits the model best, of equals in the order that is told above.

    An average of the parameters alone is completed from what it is an average of. ``wanted`` is the place of a state
    dict, or its place and a prefix of names in it. Raises `PccError` where there is none.
    """
    if not found:
        raise PccError("it holds no tensors with names")
    # Without the counters of batch norm, which old checkpoints and averages lack.
    shapes = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    everything = [part for option in found for part in _parts(option, shapes)]
    parts = everything if wanted is None else _parts(_at(wanted, found, everything), shapes)
    best = _best(parts)
    if wanted is not None:
        best.sort(key=lambda part: part.name != wanted)
    took, base, averages = best[0], best[0], []
    if took.fits[0] < len(shapes):
        if wanted is not None and took.is_average:
            base, averages = _best(everything)[0], [took]
    elif not took.is_average and took.name != wanted:
        averages = _averages(parts, best)
    notes = []
    for average in averages if base.fits[0] == len(shapes) else ():
        if completed := _completed(average, base, model):
            others = f", with the other tensors of '{_shown(base)}'" if len(average.state) < len(base.state) else ""
            notes = [f"took '{average.name}'{' (a list without names: in order)' if average.is_list else ''}{others}"]
            if wanted is None:
                notes.append(_would_fit(best))
            return Chosen(average.found, completed, "; ".join(notes), frozenset())
        if 2 * len(average.state) >= len(list(model.parameters())) and (average.is_list or average.fits[0]):
            notes.append(f"left '{average.name}', an average that does not fit")
    return _chosen(took, best, wanted, notes, set(shapes))


def _chosen(took: _Part, best: list[_Part], wanted: str | None, notes: list[str], names: set[str]) -> Chosen:
    others = [part for part in best if part is not took] if took.fits[0] else []
    if others and took.name != wanted:
        notes.insert(0, f"took '{_shown(took)}'; {_would_fit(others)}")
        if any(part.found.swapped for part in others):
            notes.append("mmengine saves the average as 'state_dict' and the last weights as 'ema_state_dict'")
    beside = tuple(part.prefix for part in others if part.found is took.found)
    inner = tuple(prefix for prefix in beside if prefix.startswith(took.prefix))
    state = {
        name: value for name, value in took.state.items() if name in names or not (took.prefix + name).startswith(inner)
    }
    left = sum(not name.startswith((took.prefix, *beside)) for name in took.found.state)
    if left:
        notes.append(f"took the {len(state)} tensors under '{took.prefix}', left {left} others")
    modules = frozenset(_under(took.prefix, dict.fromkeys(took.found.modules, None)))
    return Chosen(took.found, state, "; ".join(notes), modules)


def _parts(found: Found, shapes: Mapping[str, tuple[int, ...]]) -> list[_Part]:
    """What a state dict has for a model by the prefix of its names, short prefixes first."""
    fitting: dict[str, set[str]] = defaultdict(set, {"": set()})
    named: dict[str, set[str]] = defaultdict(set)
    for name, value in found.state.items():
        for spelled in {name: None, whole_name(name): None}:
            parts = spelled.split(".", MOST_DEPTH)
            for count in range(len(parts)):
                if (rest := ".".join(parts[count:])) in shapes:
                    prefix = "".join(f"{part}." for part in parts[:count])
                    named[prefix].add(rest)
                    if getattr(value, "shape", None) == shapes[rest]:
                        fitting[prefix].add(rest)
    prefixes = sorted({**fitting, **named}, key=lambda prefix: prefix.count("."))
    return [_Part(found, prefix, (len(fitting[prefix]), len(named[prefix]))) for prefix in prefixes]


def _best(parts: list[_Part]) -> list[_Part]:
    """Those that fit as well as any, in the order in which they are preferred."""
    most = max(part.fits for part in parts)
    return sorted((part for part in parts if part.fits == most), key=lambda part: part.rank)


def _averages(parts: list[_Part], best: list[_Part]) -> list[_Part]:
    """Averages that fit less well, of each state dict the best."""
    found: dict[int, _Part] = {}
    fitting = set(best)
    for part in parts:
        known = found.get(id(part.found))
        if part.is_average and part not in fitting and (known is None or part.fits > known.fits):
            found[id(part.found)] = part
    return list(found.values())


def _completed(average: _Part, base: _Part, model: nn.Module) -> State | None:
    """An average of all parameters with the buffers of what it is an average of; None where it is something else."""
    first: dict[int, str] = {}
    firsts = {
        name: first.setdefault(id(value), name)  # a parameter at several places is averaged once
        for name, value in model.named_parameters(remove_duplicate=False)
    }
    state = average.state
    if average.is_list:
        parameters = [name for name in base.state if firsts.get(name) == name]
        names = next((names for names in (parameters, list(base.state)) if len(names) == len(state)), [])
        state = dict(zip(names, state.values(), strict=False))
    if any(getattr(state.get(name), "shape", None) != tuple(value.shape) for name, value in model.named_parameters()):
        return None
    buffers = {name: value for name, value in base.state.items() if name in model.state_dict() and name not in firsts}
    return {**buffers, **state, **{name: state[same] for name, same in firsts.items()}}


def _at(wanted: str, found: list[Found], parts: list[_Part]) -> Found:
    """The state dict at a place, or what it has under a prefix."""
    places = {option.place: option for option in found}
    if wanted in places:
        return places[wanted]
    for option in sorted(found, key=lambda option: -len(option.place)):
        start = f"{option.place}." if option.place else ""
        prefix = wanted.removeprefix(start) + "."
        if wanted.startswith(start) and (state := _under(prefix, option.state)):
            return Found(wanted, state, frozenset(_under(prefix, dict.fromkeys(option.modules, None))))
    known = dict.fromkeys([*places, *(part.name for part in _best(parts))])
    raise PccError(f"it has no state dict '{wanted}': {suggestion(wanted, filter(None, known))}")


def _under(prefix: str, state: Mapping[str, Value]) -> dict[str, Value]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _would_fit(parts: list[_Part]) -> str:
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    names = ", ".join(f"'{_shown(part)}'" for part in parts[:_SHOWN])
    return f"{names}{more} would fit too: averages come first, teachers last; FILE:KEY chooses"


def _shown(part: _Part) -> str:
    return part.name or "the file itself"

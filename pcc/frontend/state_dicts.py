"""Which tensors of a checkpoint are the weights of a model: training loops keep state dicts under many names, with
prefixes, beside optimisers and averages.

What fits is taken: of all dicts of tensors that a file holds, and of all prefixes that their names have, the one with
the most names of the model.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pcc.errors import PccError, PccWarning, suggestion
from pcc.frontend.pickled import Inert
from pcc.frontend.stored import Stored

MOST_DEPTH = 30
"""Of what lies in one another in a file."""
MOST_MODULES = 100_000
"""Of a pickled module, those that lie at several places counted at each."""

State = Mapping[str, Stored | Tensor | Inert]
"""Tensors by name: in the file, read, or of a kind that cannot be read (sparse, quantised, without numbers)."""


@dataclass(frozen=True)
class Found:
    """Tensors of a file by name, and where they lie."""

    place: str
    """Keys from the outside in, ``state_dict`` or ``generator.params_ema``; nothing for the file itself."""
    state: State


@dataclass(frozen=True)
class Chosen:
    """The state dict that was taken."""

    found: Found
    state: State
    """With the model's names."""
    note: str
    """What the user should know: what else fits, which tensors were left."""


def state_dicts(loaded: Any) -> list[Found]:
    """All dicts of tensors in what a file holds, outer ones first. The state of a pickled module is the state dict that
    it would have."""
    return [Found(".".join(place), state) for place, state in _walk(loaded, (), set())]


def choose(found: list[Found], wanted: str | None, model: nn.Module) -> Chosen:
    """The state dict that fits the model best; averages (EMA), which are what authors evaluate, before what they are
    averages of.

    ``wanted`` is the place of one. Raises `PccError` where there is none.
    """
    if not found:
        raise PccError("it holds no tensors with names")
    if wanted is not None:
        places = {option.place: option for option in found}
        if wanted not in places:
            raise PccError(
                f"it has no state dict '{wanted}': "
                f"{suggestion(wanted, [option.place for option in found if option.place])}"
            )
        found = [places[wanted]]
    names = set(model.state_dict())
    fitting = [(option, *_best_prefix(option.state, names)) for option in found]
    most = max(matches for _, _, matches in fitting)
    best = [(option, prefix) for option, prefix, matches in fitting if matches == most]
    option, prefix = next((pair for pair in best if "ema" in pair[0].place.lower()), best[0])
    state = {name.removeprefix(prefix): value for name, value in option.state.items() if name.startswith(prefix)}
    notes = []
    if most and len(best) > 1:
        others = ", ".join(f"'{other.place or 'the file itself'}'" for other, _ in best if other is not option)
        notes.append(f"took '{option.place}'; {others} would fit too: FILE:KEY chooses")
    if left := len(option.state) - len(state):
        notes.append(f"took the {len(state)} tensors under '{prefix}', left {left} others")
    return Chosen(option, state, "; ".join(notes))


def _walk(value: Any, place: tuple[str, ...], seen: set[int]) -> Iterator[tuple[tuple[str, ...], State]]:
    if id(value) in seen or len(place) > MOST_DEPTH:
        return
    seen.add(id(value))
    if isinstance(value, Inert) and (state := dict(_module_state(value, "", 0, iter(range(MOST_MODULES))))):
        yield place, state
        return
    if isinstance(value, Inert):
        inner = {**_named(value.entries), **_named(value.state)}
    elif isinstance(value, Mapping):
        inner = _named(value)
    else:
        inner = {str(index): item for index, item in enumerate(value)} if isinstance(value, list | tuple) else {}
    if state := {name: item for name, item in inner.items() if _is_tensor(item)}:
        yield place, state
    for name, item in inner.items():
        if isinstance(item, Inert | Mapping | list | tuple):
            yield from _walk(item, (*place, name), seen)


def _named(value: Any) -> dict[str, Any]:
    return {key: item for key, item in value.items() if isinstance(key, str)} if isinstance(value, Mapping) else {}


def _is_tensor(value: Any) -> bool:
    if isinstance(value, Inert) and value.name:
        return value.name.module == "torch._utils" and value.name.name.startswith("_rebuild_")
    return isinstance(value, Stored | Tensor)


def _module_state(module: Inert, prefix: str, depth: int, counter: Iterator[int]) -> Iterator[tuple[str, Any]]:
    """The state dict of an ``nn.Module`` that was pickled whole, or of a TorchScript module, whose attributes are
    tensors and modules."""
    if next(counter, None) is None:
        raise PccError(f"it has a module of more than {MOST_MODULES:,} modules")
    attributes = _named(module.state)
    eager = "_modules" in attributes
    scripted = module.name is not None and module.name.module.startswith("__torch__")
    if depth > MOST_DEPTH or not (eager or scripted):
        return
    parts = (
        [_named(attributes.get(kind)) for kind in ("_parameters", "_buffers", "_modules")] if eager else [attributes]
    )
    absent = attributes.get("_non_persistent_buffers_set")
    absent = absent.items if isinstance(absent, Inert) else ()
    for part in parts:
        for name, value in part.items():
            if _is_tensor(value) and name not in absent:
                yield prefix + name, value
            elif isinstance(value, Inert):
                yield from _module_state(value, f"{prefix}{name}.", depth + 1, counter)


def _best_prefix(state: State, names: set[str]) -> tuple[str, int]:
    """What to take from the front of names, so that the most of them are the model's; of as good ones the shortest.
    With how many are."""
    matches = Counter({"": 0})
    for name in state:
        parts = name.split(".", MOST_DEPTH)
        for count in range(len(parts)):
            matches["".join(f"{part}." for part in parts[:count])] += ".".join(parts[count:]) in names
    return max(matches.items(), key=lambda found: (found[1], -len(found[0])))


def plain_weights(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights for their reparametrisations, where the model has none: masks of ``torch.nn.utils.prune``, weight norm,
    spectral norm, ``parametrize``'s.

    Weight norm (Salimans and Kingma, 2016): g v / |v|; spectral norm (Miyato et al., 2018): the weight over its largest
    singular value u^T W v.
    """
    names, plain = set(model.state_dict()), dict(state)

    def take(*keys: str) -> list[Tensor] | None:
        return [plain.pop(key) for key in keys] if all(key in plain and key not in names for key in keys) else None

    for key in list(state):
        if key.endswith("_mask") and (pair := take(f"{(weight := key.removesuffix('_mask'))}_orig", key)):
            plain[weight] = pair[0] * pair[1]
        elif key.endswith("_v") and (norm := take(f"{(weight := key.removesuffix('_v'))}_g", key)):
            plain[weight] = _weight_norm(*norm)
        elif key.endswith("_v") and (
            spectral := take(f"{(weight := key.removesuffix('_v'))}_orig", f"{weight}_u", key)
        ):
            plain[weight] = _spectral_norm(spectral, _is_transposed(model, weight))
        elif key.endswith(".original1") and (norm := take(key.removesuffix("1") + "0", key)):
            plain[_parametrised(key)] = _weight_norm(*norm)
        elif key.endswith(".0._v") and (
            spectral := take(f"{(base := key.removesuffix('.0._v'))}.original", f"{base}.0._u", key)
        ):
            plain[_parametrised(f"{base}.original")] = _spectral_norm(
                spectral, _is_transposed(model, _parametrised(f"{base}.original"))
            )
    for key in list(plain):
        if (
            key.endswith(".original")
            and not any(other.startswith(key.removesuffix("original")) and other != key for other in plain)
            and (alone := take(key))
        ):
            plain[_parametrised(key)] = alone[0]
            warnings.warn(
                f"'{_parametrised(key)}' is taken as it is: what the parametrization that it had makes of it is not in "
                "the file",
                PccWarning,
                stacklevel=2,
            )
    return plain


def _parametrised(key: str) -> str:
    """``conv.parametrizations.weight.original0`` -> ``conv.weight``."""
    return key.rpartition(".")[0].replace("parametrizations.", "")


def _weight_norm(g: Tensor, v: Tensor) -> Tensor:
    g, v = g.float(), v.float()
    if not g.dim():
        return g * v / torch.linalg.vector_norm(v)
    return g * v / torch.linalg.vector_norm(v, dim=[dim for dim, size in enumerate(g.shape) if size == 1], keepdim=True)


def _spectral_norm(parts: list[Tensor], transposed: bool) -> Tensor:
    weight, u, v = (part.float() for part in parts)
    matrix = (weight.transpose(0, 1) if transposed else weight).flatten(1)
    return weight / torch.dot(u, matrix @ v)


def _is_transposed(model: nn.Module, weight: str) -> bool:
    modules = dict(model.named_modules())
    return isinstance(modules.get(weight.rpartition(".")[0]), nn.ConvTranspose1d | nn.ConvTranspose2d)

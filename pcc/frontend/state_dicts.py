"""The dicts of tensors in what a checkpoint holds, wherever they lie in it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from pcc.errors import PccError
from pcc.frontend.pickled import Inert, SavedDict
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
    modules: frozenset[str] = frozenset()
    """The names of the modules that it is the state of, where the file tells them."""
    swapped: bool = False
    """Whether it is called an average and is what it is one of: mmengine saves the average as the ``state_dict``."""


def state_dicts(loaded: Any) -> list[Found]:
    """All dicts of tensors in what a file holds, outer ones first. The state of a pickled module is the state dict that
    it would have."""
    return list(_walk(loaded, (), set()))


def _walk(value: Any, place: tuple[str, ...], seen: set[int]) -> Iterator[Found]:
    if id(value) in seen or len(place) > MOST_DEPTH:
        return
    seen.add(id(value))
    modules: set[str] = set()
    if isinstance(value, Inert) and (state := dict(_module_state(value, "", 0, modules, iter(range(MOST_MODULES))))):
        yield Found(".".join(place), state, frozenset(modules))
        return
    if isinstance(value, Inert):
        inner = {**_named(value.entries), **_named(value.state)}
    elif isinstance(value, Mapping):
        inner = _named(value)
    else:
        inner = {str(index): item for index, item in enumerate(value)} if isinstance(value, list | tuple) else {}
    if state := {name: item for name, item in inner.items() if _is_tensor(item)}:
        yield Found(".".join(place), state, _modules(value))
    swaps = "mmengine_version" in _named(inner.get("meta"))
    for name, item in inner.items():
        if isinstance(item, Inert | Mapping | list | tuple):
            found = _walk(item, (*place, name), seen)
            yield from (replace(one, swapped=True) for one in found) if swaps and name == "ema_state_dict" else found


def _modules(state: Any) -> frozenset[str]:
    """The modules that ``Module.state_dict`` mentions, each with a version of its format."""
    attributes = _named(state.attributes) if isinstance(state, SavedDict) else {}
    return frozenset(_named(attributes.get("_metadata")))


def _named(value: Any) -> dict[str, Any]:
    return {key: item for key, item in value.items() if isinstance(key, str)} if isinstance(value, Mapping) else {}


def _is_tensor(value: Any) -> bool:
    if isinstance(value, Inert) and value.name:
        return value.name.module == "torch._utils" and value.name.name.startswith("_rebuild_")
    return isinstance(value, Stored | Tensor)


def _module_state(
    module: Inert, prefix: str, depth: int, modules: set[str], counter: Iterator[int]
) -> Iterator[tuple[str, Any]]:
    """The state dict of an ``nn.Module`` that was pickled whole, or of a TorchScript module, whose attributes are
    tensors and modules. Adds the names of its modules to a set."""
    if next(counter, None) is None:
        raise PccError(f"it has a module of more than {MOST_MODULES:,} modules")
    attributes = _named(module.state)
    eager = "_modules" in attributes
    scripted = module.name is not None and module.name.module.startswith("__torch__")
    if depth > MOST_DEPTH or not (eager or scripted):
        return
    modules.add(prefix.removesuffix("."))
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
                yield from _module_state(value, f"{prefix}{name}.", depth + 1, modules, counter)

"""Which passes there are: pcc's own, and those other packages add by an entry point of the group ``pcc.passes``; nothing is imported until used."""

import importlib
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from pcc.errors import PccError

ENTRY_POINT_GROUP = "pcc.passes"

_OWN = (
    "decompose",
    "canonicalize",
    "fold-constants",
    "fold-batchnorm",
    "prune-pattern",
    "prune-connectivity",
    "drop-filters",
    "fuse-epilogues",
    "reorder-kernels",
    "select-kernels",
    "plan-memory",
)
"""In the order a pipeline usually has them. Pass ``fold-batchnorm`` is class ``FoldBatchnorm`` of module ``pcc.passes.fold_batchnorm``."""

_IN_CODEGEN = ("select-kernels", "plan-memory")
"""Passes that know kernels or kernel programs live in ``pcc.codegen``, a storey above this one."""


@cache
def _foreign() -> dict[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name)}


def pass_names() -> tuple[str, ...]:
    """All passes: pcc's own in pipeline order, then those of other packages by name."""
    return (*_OWN, *(name for name in _foreign() if name not in _OWN))


def pass_class(name: str) -> type:
    """The class of a pass, imported now. `PccError` for a name nobody has, with the nearest one."""
    if name in _OWN:
        package = "pcc.codegen" if name in _IN_CODEGEN else "pcc.passes"
        module = importlib.import_module(f"{package}.{name.replace('-', '_')}")
        return getattr(module, "".join(word.capitalize() for word in name.split("-")))
    if name not in _foreign():
        raise PccError(f"unknown pass '{name}': {suggestion(name, pass_names())}")
    point = _foreign()[name]
    try:
        return point.load()
    except Exception as error:
        raise PccError(f"pass {name} of {point.value} cannot be loaded: {error}") from error


def pass_summary(name: str) -> str:
    """The first line of a pass's documentation."""
    return (pass_class(name).__doc__ or "").strip().split("\n", 1)[0]


def suggestion(name: str, known: tuple[str, ...]) -> str:
    """``did you mean X?`` where a known name is near, else all of them."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}" if known else "there are none"

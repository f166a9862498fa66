"""Which passes there are: those of this folder, those that the storeys above contribute, and those other packages add
by an entry point of the group ``pcc.passes``. Nothing is imported until used.
"""

import importlib
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from pcc.errors import PccError, suggestion

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "pcc.passes"

_PASSES = {
    "decompose": "pcc.passes.decompose:Decompose",
    "canonicalize": "pcc.passes.canonicalize:Canonicalize",
    "fold-constants": "pcc.passes.fold_constants:FoldConstants",
    "fold-batchnorm": "pcc.passes.fold_batchnorm:FoldBatchnorm",
    "prune-pattern": "pcc.passes.prune_pattern:PrunePattern",
    "prune-connectivity": "pcc.passes.prune_connectivity:PruneConnectivity",
    "prune-unstructured": "pcc.passes.prune_unstructured:PruneUnstructured",
    "prune-filters": "pcc.passes.prune_filters:PruneFilters",
    "prune-channels": "pcc.passes.prune_channels:PruneChannels",
    "prune-columns": "pcc.passes.prune_columns:PruneColumns",
    "prune-blocks": "pcc.passes.prune_blocks:PruneBlocks",
    "drop-filters": "pcc.passes.drop_filters:DropFilters",
    "detect-structure": "pcc.passes.detect_structure:DetectStructure",
    "fuse-epilogues": "pcc.passes.fuse_epilogues:FuseEpilogues",
    "reorder-kernels": "pcc.passes.reorder_kernels:ReorderKernels",
    "reduce-precision": "pcc.passes.reduce_precision:ReducePrecision",
    "store-weights": "pcc.passes.store_weights:StoreWeights",
}
"""Names of passes and where their classes are, in the order a pipeline usually has them."""


def contribute(passes: Mapping[str, str]) -> None:
    """Adds passes of a storey above this one, which knows what this one must not: names and places, ``module:Class``,
    in pipeline order."""
    _PASSES.update(passes)


@cache
def _foreign() -> "dict[str, EntryPoint]":
    from importlib.metadata import entry_points  # 30 ms that most commands can do without

    return {point.name: point for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name)}


def pass_names() -> tuple[str, ...]:
    """All passes: pcc's own in pipeline order, then those of other packages by name."""
    return (*_PASSES, *(name for name in _foreign() if name not in _PASSES))


def pass_class(name: str) -> type:
    """The class of a pass, imported now. `PccError` for a name nobody has, with the nearest one."""
    if name in _PASSES:
        module, _, cls = _PASSES[name].partition(":")
        return getattr(importlib.import_module(module), cls)
    if name not in _foreign():
        raise PccError(f"unknown pass '{name}': {suggestion(name, pass_names())}")
    point = _foreign()[name]
    try:
        return point.load()
    except Exception as error:
        raise PccError(f"pass {name} of {point.value} cannot be loaded: {error}") from error


def pass_summary(name: str) -> str:
    """The first sentence of a pass's documentation."""
    text = " ".join((pass_class(name).__doc__ or "").replace("`", "").split())
    return text.split(". ", 1)[0].removesuffix(".") + "." if text else ""

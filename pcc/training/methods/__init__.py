"""The methods, one a file; each is imported when it is named."""

from importlib import import_module

from pcc.errors import PccError, suggestion
from pcc.training.method import Method

_CLASSES = {
    "train": "train:Train",
    "one-shot": "one_shot:OneShot",
    "reconstruct": "reconstruct:Reconstruct",
    "admm": "admm:Admm",
    "pruning-network": "pruning_network:PruningNetwork",
    "dcp": "dcp:Dcp",
    "synaptic-strength": "synaptic_strength:SynapticStrength",
    "gradual": "gradual:Gradual",
    "drop-pruning": "drop_pruning:DropPruning",
    "hybrid": "hybrid:Hybrid",
    "unused-paths": "unused_paths:UnusedPaths",
    "quantize": "quantize:Quantize",
    "cluster": "cluster:Cluster",
    "vrpge": "vrpge:Vrpge",
    "probmask": "probmask:ProbMask",
}
"""Name in recipes -> module and class in this package."""


def method_class(name: str) -> type[Method]:
    """The class of a method; `PccError` with the nearest names if there is none."""
    if name not in _CLASSES:
        raise PccError(f"no method '{name}': {suggestion(str(name), _CLASSES)}")
    module, cls = _CLASSES[name].split(":")
    return getattr(import_module(f"pcc.training.methods.{module}"), cls)


def method_names() -> tuple[str, ...]:
    return tuple(_CLASSES)


def class_names() -> dict[str, str]:
    """Name in recipes by the name of the class."""
    return {place.split(":")[1]: name for name, place in _CLASSES.items()}

"""Compression that trains: structures, methods and recipes around one loop.

Every method is here under its class's name, and imported when it is asked for: ``pcc.training.Admm(model, structures,
epochs=12)``. How a method fits a loop of your own: `pcc.training.method`.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    from pcc.training.methods import class_names, method_class

    if name not in class_names():
        raise AttributeError(f"module 'pcc.training' has no attribute '{name}'")
    return method_class(class_names()[name])


def __dir__() -> list[str]:
    from pcc.training.methods import class_names

    return sorted([*globals(), *class_names()])

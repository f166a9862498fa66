"""Models come in here: torch modules, Python files that make them, checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcc.errors import PccError

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

_LOADED: set[str] = set()
"""Names of the modules that factories' files are."""


def load_factory(spec: str) -> nn.Module:
    """The module that ``FILE.py:factory`` makes: a function of the file, called without arguments, or a module (or
    exported program) it already holds.

    Raises `PccError` as `run_factory` does, and when the factory makes something else or a module whose parameters have
    no values.
    """
    from torch import nn
    from torch.export import ExportedProgram

    from pcc.frontend.inputs import as_module

    model = run_factory(spec, "model", (nn.Module, ExportedProgram))
    if not isinstance(model, nn.Module | ExportedProgram):
        raise PccError(f"model '{spec}': {spec.rpartition(':')[2]} gives '{type(model).__name__}', not an nn.Module")
    try:
        return as_module(model)
    except PccError as error:
        raise PccError(f"model '{spec}': {error}") from None


def run_factory(spec: str, what: str, ready: type | tuple[type, ...]) -> object:
    """What ``FILE.py:factory`` makes: a function of the file, called without arguments, or a value of type ``ready``
    that the file already holds.

    The file is run, with its folder importable meanwhile; what it prints goes to standard error. Raises
    `PccError`, which begins with ``what`` and ``spec``, when there is no such file or name, or when it fails.
    """
    import importlib.util
    import sys
    from contextlib import redirect_stdout
    from pathlib import Path

    file, _, name = spec.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise PccError(f"{what} '{spec}': expected FILE.py:factory")
    path = Path(file)
    if not path.is_file():
        raise PccError(f"{what} '{spec}': there is no file '{file}'")
    known = path.stem in sys.modules and path.stem not in _LOADED
    module_spec = importlib.util.spec_from_file_location(f"_{path.stem}" if known else path.stem, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    namespace = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = namespace  # where dataclasses look for it
    _LOADED.add(module_spec.name)
    sys.path.insert(0, str(path.parent))
    try:
        try:
            with redirect_stdout(sys.stderr):
                module_spec.loader.exec_module(namespace)
        except (Exception, SystemExit) as error:
            raise PccError(f"{what} '{spec}': running the file failed: {type(error).__name__}: {error}") from error
        return _result(namespace, name, f"{what} '{spec}'", ready)
    finally:
        sys.path.remove(str(path.parent))


def _result(namespace: ModuleType, name: str, what: str, ready: type | tuple[type, ...]) -> object:
    """What a function of a module makes, or the value of that name."""
    import sys
    from contextlib import redirect_stdout

    if not hasattr(namespace, name):
        found = sorted(
            key
            for key, value in vars(namespace).items()
            if callable(value) and getattr(value, "__module__", None) == namespace.__name__
        )
        raise PccError(f"{what}: the file has no '{name}'" + (f"; it defines {', '.join(found)}" if found else ""))
    factory = getattr(namespace, name)
    if isinstance(factory, ready):
        return factory
    try:
        with redirect_stdout(sys.stderr):
            return factory()
    except (Exception, SystemExit) as error:
        raise PccError(f"{what}: {name}() failed: {type(error).__name__}: {error}") from error

"""Models come in here: torch modules, Python files that make them, checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcc.errors import PccError

if TYPE_CHECKING:
    from torch import nn


def load_factory(spec: str) -> nn.Module:
    """The module that ``FILE.py:factory`` makes: a function of the file, called without arguments, or a module it already holds.

    The file is run, with its folder importable while it loads. Raises `PccError` when there is no such file or name, when it fails, or when it
    makes something else.
    """
    import importlib.util
    import sys
    from pathlib import Path

    from torch import nn

    file, _, name = spec.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise PccError(f"model '{spec}': expected FILE.py:factory")
    path = Path(file)
    if not path.is_file():
        raise PccError(f"model '{spec}': there is no file '{file}'")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    namespace = importlib.util.module_from_spec(module_spec)
    sys.path.insert(0, str(path.parent))
    try:
        module_spec.loader.exec_module(namespace)
    except (Exception, SystemExit) as error:
        raise PccError(f"model '{spec}': running the file failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    if not hasattr(namespace, name):
        found = sorted(key for key, value in vars(namespace).items() if callable(value) and getattr(value, "__module__", None) == path.stem)
        raise PccError(f"model '{spec}': the file has no '{name}'" + (f"; it defines {', '.join(found)}" if found else ""))
    made = getattr(namespace, name)
    if not isinstance(made, nn.Module):
        try:
            made = made()
        except (Exception, SystemExit) as error:
            raise PccError(f"model '{spec}': {name}() failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise PccError(f"model '{spec}': {name} gives '{type(made).__name__}', not an nn.Module")
    return made

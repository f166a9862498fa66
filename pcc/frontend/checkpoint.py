"""Weights from files into a module: ``.pt``/``.pth`` (never running code) and ``.safetensors``, plain or packed, checked key by key and number by number."""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pcc.errors import PccError
from pcc.frontend.zipped import check_amount

_SHOWN = 3
"""How many keys of a kind an error names."""


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Loads a checkpoint into a module, which must have exactly its keys and shapes.

    A ``.pt`` or ``.pth`` file holds a state dict, or a dict with one under ``state_dict`` or ``model``; a ``module.`` in front of every key
    (DataParallel's) is dropped. Floats are converted to the module's type. Raises `PccError` if the file cannot be read, would run code, does
    not fit, or holds NaN or Inf.
    """
    path = Path(path)
    state = read_state(path)
    _check_fit(module, state, path.name)
    module.load_state_dict(state, strict=False)
    check_finite(module)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name."""
    if not path.is_file():
        raise PccError(f"weights: there is no file '{path}'")
    match path.suffix.lower():
        case ".safetensors":
            return _read_safetensors(path)
        case ".pt" | ".pth":
            return _state_dict(_read_torch(path), path.name)
    raise PccError(f"weights '{path.name}': choose a .pt, .pth or .safetensors file")


def check_finite(module: nn.Module) -> None:
    """`PccError` naming the layers whose parameters or buffers are not all finite."""
    bad = [
        f"{name} ({int(values.isnan().sum())} NaN, {int(values.isinf().sum())} Inf of {values.numel()})"
        for name, values in (*module.named_parameters(), *module.named_buffers())
        if values.is_floating_point() and not values.isfinite().all()
    ]
    if bad:
        raise PccError(f"weights are not finite: {_some(bad)}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError

    from pcc.frontend.packed import PackedState, open_safetensors

    try:
        opened = open_safetensors(path)
        return opened.unpack() if isinstance(opened, PackedState) else opened
    except (PccError, SafetensorError, OSError, ValueError) as error:
        raise PccError(f"weights '{path.name}' cannot be read: {_first_line(error)}") from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that are refused or damaged: the error says it
            if zipfile.is_zipfile(path):  # not so before PyTorch 1.6
                with zipfile.ZipFile(path) as zipped:
                    check_amount(zipped, path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except PccError as error:
        raise PccError(f"weights {error}") from None
    except Exception as error:
        if re.search(r"GLOBAL|global|reduce|instantiate", str(error).split("Please file an issue", 1)[0]):
            raise PccError(f"weights '{path.name}': refused, reading it would run code stored in it; save model.state_dict() instead") from error
        raise PccError(f"weights '{path.name}' cannot be read: it is not a file that torch.save wrote, or it is damaged") from error


def _state_dict(loaded: Any, name: str) -> dict[str, Tensor]:
    if isinstance(loaded, Mapping):
        for key in ("state_dict", "model"):
            if isinstance(loaded.get(key), Mapping):
                loaded = loaded[key]
        state = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
        if state and len(state) == len(loaded):
            stripped = all(key.startswith("module.") for key in state)
            return {key.removeprefix("module."): value for key, value in state.items()} if stripped else state
    raise PccError(f"weights '{name}': not a state dict, nor a dict with one under 'state_dict' or 'model'")


def _check_fit(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    odd = [f"{key} ({reason})" for key, value in state.items() if (reason := _not_plain(value))]
    if odd:
        raise PccError(f"weights '{name}' hold tensors that are not plain real numbers: {_some(odd)}")
    own = module.state_dict()
    # Counters of batch norm that old checkpoints lack; no inference reads them.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    wrong = [f"{key} ({_shape(state[key])}, model has {_shape(own[key])})" for key in own if key in state and state[key].shape != own[key].shape]
    problems = [f"{len(keys)} {word}: {_some(keys)}" for keys, word in ((missing, "missing"), (unexpected, "unexpected"), (wrong, "of another shape")) if keys]
    if problems:
        raise PccError(f"weights '{name}' do not fit {type(module).__name__}: {'; '.join(problems)}")


def _not_plain(x: Tensor) -> str | None:
    """What keeps a tensor from being copied into a parameter as it is."""
    if x.is_meta:
        return "meta, without values"
    if x.layout != torch.strided:
        return str(x.layout).removeprefix("torch.")
    return str(x.dtype).removeprefix("torch.") if x.is_complex() or x.is_quantized else None


def _some(items: list[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape)) or "scalar"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]

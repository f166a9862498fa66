"""Weights from files into a module: PyTorch's (never running code) and safetensors, plain or packed, checked key by key
and number by number."""

import warnings
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from torch import Tensor, nn

from pcc.dtype import full_name
from pcc.errors import PccError, PccWarning
from pcc.frontend.choose_state import choose
from pcc.frontend.pickled import Inert
from pcc.frontend.reparametrised import plain_weights
from pcc.frontend.state_dicts import Found, State, state_dicts
from pcc.frontend.stored import Stored
from pcc.frontend.torch_file import open_torch_file

_SHOWN = 3
"""How many keys of a kind an error names."""
_COUNTED = ("running_mean", "running_var")


def load_weights(module: nn.Module, source: str | Path) -> None:
    """Loads a checkpoint into a module, which must have exactly its keys and shapes. A `PccWarning` says what else
    would have fitted.

    ``source`` is a file, or ``FILE:KEY`` for the state dict at a place in it (``last.ckpt:ema.state_dict``), or for
    those of its names that have a prefix (``last.ckpt:state_dict.teacher``). What a file is, its content says:
    safetensors, or what ``torch.save`` or ``torch.jit.save`` wrote. The state dict may lie anywhere in it and its names
    may have a prefix (`pcc.frontend.choose_state`); weights in parts become plain (`pcc.frontend.reparametrised`).
    Floats are converted to the module's type. Raises `PccError` if the file cannot be read, does not fit, or its
    weights are not finite (`check_finite`).
    """
    path, place = _path_and_place(str(source))
    try:
        with _state_dicts(path) as found:
            chosen = choose(found, place, module)
            unsaved = _unsaved(module)
            state = {key: value for key, value in _read(chosen.state).items() if key not in unsaved}
            state = plain_weights(state, module, chosen.modules)
    except (PccError, ValueError) as error:
        raise PccError(f"weights '{path.name}': {error}") from error
    except RuntimeError as error:
        raise PccError(
            f"weights '{path.name}': a weight's parts do not fit one another ({_first_line(error)})"
        ) from error
    try:
        _check_fit(module, state, f"{path.name}{f':{chosen.found.place}' if chosen.found.place else ''}")
    except PccError as error:
        others = [other.place for other in found if other.place != chosen.found.place]
        raise PccError(f"{error}; the file also holds {_some(others)}" if others else str(error)) from None
    module.load_state_dict(state, strict=False)
    check_finite(module)
    if chosen.note:
        warnings.warn(f"weights '{path.name}': {chosen.note}", PccWarning, stacklevel=2)


def _path_and_place(source: str) -> tuple[Path, str | None]:
    """A file and what follows its colon."""
    path, colon, place = source.rpartition(":")
    if Path(source).is_file():
        return Path(source), None
    if colon and Path(path).is_file():
        return Path(path), place
    raise PccError(
        f"weights: there is no file '{source}': give a checkpoint (FILE or FILE:KEY), 'none', or for a zoo model "
        "'trained'"
    )


@contextmanager
def _state_dicts(path: Path) -> Generator[list[Found]]:
    """The state dicts of a file, whatever it is called; their tensors can be read inside the block."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # after the length of the header
        yield [Found("", read_safetensors(path))]
        return
    with open_torch_file(path) as loaded:
        yield state_dicts(loaded)


def check_finite(module: nn.Module, weights: Collection[str] | None = None) -> None:
    """`PccError` naming the weights that are not all finite (None: parameters, and what norms counted), and whatever
    else holds a NaN. Infinities are what attention masks are made of."""
    if weights is None:
        parameters = {name for name, _ in module.named_parameters()}
        weights = parameters | {name for name, _ in module.named_buffers() if name.endswith(_COUNTED)}
    bad = [
        f"{name} ({int(values.isnan().sum())} NaN, {int(values.isinf().sum())} Inf of {values.numel()})"
        for name, values in (*module.named_parameters(), *module.named_buffers())
        if values.is_floating_point() and bool((~values.isfinite() if name in weights else values.isnan()).any())
    ]
    if bad:
        raise PccError(f"weights are not finite: {_some(bad)}")


def _read(state: State) -> dict[str, Tensor]:
    odd = [
        f"{name} ({value.name.name.removeprefix('_rebuild_')})"
        for name, value in state.items()
        if isinstance(value, Inert) and value.name
    ]
    if odd:
        raise PccError(f"tensors are not plain real numbers: {_some(odd)}")
    return {
        name: value.tensor() if isinstance(value, Stored) else value
        for name, value in state.items()
        if not isinstance(value, Inert)
    }


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, plain or packed by pcc, by name. `PccError` in one line where it cannot be read."""
    from safetensors import SafetensorError

    from pcc.frontend.packed import PackedState, open_safetensors

    try:
        opened = open_safetensors(path)
        return opened.unpack() if isinstance(opened, PackedState) else opened
    except (PccError, SafetensorError, OSError, ValueError) as error:
        raise PccError(f"it cannot be read: {_first_line(error)}") from error


def _unsaved(module: nn.Module) -> set[str]:
    """The buffers that are not in a module's state dict. TorchScript's files have them all the same."""
    return {name for name, _ in module.named_buffers()} - set(module.state_dict())


def _check_fit(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    odd = [f"{key} ({full_name(value.dtype)})" for key, value in state.items() if value.is_complex()]
    if odd:
        raise PccError(f"weights '{name}': tensors are not plain real numbers: {_some(odd)}")
    expected = module.state_dict()
    # Counters of batch norm that old checkpoints lack; no inference reads them.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    wrong = [
        f"{key} ({_shape(state[key])}, model has {_shape(expected[key])})"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    whole = [
        f"{key} ({full_name(state[key].dtype)}, the model has {full_name(expected[key].dtype)})"
        for key in expected
        if key in state and expected[key].is_floating_point() and not state[key].is_floating_point()
    ]
    problems = [
        f"{len(keys)} {word}: {_some(keys)}"
        for keys, word in (
            (missing, "missing"),
            (unexpected, "unexpected"),
            (wrong, "of another shape"),
            (whole, "of another type"),
        )
        if keys
    ]
    if near := get_close_matches(missing[0], unexpected, n=1) if missing else []:
        problems.append(f"{near[0]} is the nearest to {missing[0]}")
    if problems:
        raise PccError(f"weights '{name}' do not fit {type(module).__name__}: {'; '.join(problems)}")


def _some(items: list[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape)) or "scalar"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]

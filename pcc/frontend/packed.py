"""Packed checkpoints: a safetensors file in which pruned weights lie as their structures pack them, and all else as it
is.

The arrays of ``features.3.weight`` are tensors of their own: ``features.3.weight:data.weight``,
``features.3.weight:index.offset`` and so on. The file's metadata says of each packed weight its structure, its shape
and the types of its arrays, because these are stored narrower than they are used: integers in the narrowest type that
holds them, values in half precision where that was asked for. Reading gives plain fp32 weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError, field_validator
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pcc.errors import PccError, first_problem
from pcc.sparsity.structure import Packed, Structure
from pcc.sparsity.structures import kind
from pcc.tensor_file import save_tensors

KEY = "pcc.packed"
"""The entry of a safetensors file's metadata that makes it a packed checkpoint."""

MOST_NUMBERS = 2**28
"""Of all weights of a file, unpacked: 1 GiB, twice what VGG-16 has. A file of some bytes could ask for any number."""

_NARROW = (np.uint8, np.int16)
"""Types that integers of 32 bits may be stored in."""

_Types = dict[str, Literal["float32", "int32", "int64", "uint8", "uint16", "bool"]]
_Notes = dict[str, str | int | float]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Weight(_Record):
    """How to read one weight."""

    structure: str
    shape: tuple[PositiveInt, ...]
    data: _Types
    index: _Types


class _Contents(_Record):
    """What the metadata says."""

    version: Literal[1] = 1
    weights: dict[str, _Weight]
    notes: _Notes = {}

    @field_validator("weights")
    @classmethod
    def _fit_memory(cls, weights: dict[str, _Weight]) -> dict[str, _Weight]:
        if (numbers := sum(prod(weight.shape) for weight in weights.values())) > MOST_NUMBERS:
            raise ValueError(f"they would have {numbers:,} numbers, more than {MOST_NUMBERS:,}")
        return weights


@dataclass(frozen=True)
class PackedState:
    """A state dict with some of its weights packed."""

    tensors: dict[str, Tensor]
    """As they are stored."""
    contents: _Contents

    @property
    def notes(self) -> _Notes:
        """Whatever whoever packed it wanted to keep with it."""
        return self.contents.notes

    def with_notes(self, notes: _Notes) -> "PackedState":
        return PackedState(self.tensors, self.contents.model_copy(update={"notes": notes}))

    def save(self, path: Path) -> None:
        """Writes the file; the same state always gives the same bytes."""
        save_tensors(self.tensors, path, {KEY: self.contents.model_dump_json()})

    def unpack(self) -> dict[str, Tensor]:
        """The plain state dict. `PccError` naming a weight whose arrays are damaged."""
        state = dict(self.tensors)
        for name, weight in self.contents.weights.items():
            try:
                packed = Packed(
                    weight.shape, _taken(state, name, "data", weight.data), _taken(state, name, "index", weight.index)
                )
                plain = kind(weight.structure).unpack(packed)
            except (PccError, LookupError, ValueError, ArithmeticError, TypeError, MemoryError) as error:
                raise PccError(f"the packed weight '{name}' is damaged: {error}") from error
            state[name] = torch.from_numpy(plain)
        return state


def pack_state(
    state: Mapping[str, Tensor],
    structures: Mapping[str, Structure],
    groups: Mapping[str, int] | None = None,
    *,
    half: bool = False,
) -> PackedState:
    """Packs the weights that ``structures`` names, (O, I/groups, kh, kw) or (O, I); ``groups`` are those of grouped
    convolutions.

    What comes back is the same bit for bit, but that zeros come back as +0. With ``half``, values that are packed are
    rounded to fp16: relative errors of up to 2^-11. Raises `PccError` for a weight that does not exist, does not have
    its structure, or is too large for fp16.
    """
    if unknown := [name for name in structures if name not in state]:
        raise PccError(f"there is no weight '{unknown[0]}' to pack")
    tensors, weights = {}, {}
    for name, value in state.items():
        if name not in structures:
            tensors[name] = value.detach().cpu().contiguous().clone()
            continue
        packed = structures[name].pack(value.detach().float().cpu().numpy(), (groups or {}).get(name, 1))
        types = {}
        for part, arrays in (("data", packed.data), ("index", packed.index)):
            types[part] = {key: array.dtype.name for key, array in arrays.items()}
            for key, array in arrays.items():
                tensors[_key(name, part, key)] = torch.from_numpy(_narrowed(array, name, half=half and part == "data"))
        weights[name] = _Weight(structure=structures[name].name, shape=packed.shape, **types)
    return PackedState(tensors, _Contents(weights=weights))


def open_safetensors(path: Path) -> dict[str, Tensor] | PackedState:
    """A safetensors file: its tensors, or what is packed in it.

    Raises `PccError` for metadata that is damaged or of another version, and safetensors' errors for files that are
    none.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    if KEY not in metadata:
        return tensors
    try:
        return PackedState(tensors, _Contents.model_validate_json(metadata[KEY]))
    except ValidationError as error:
        raise PccError(f"its metadata '{KEY}' are damaged or of another pcc: {first_problem(error)}") from None


def packed_notes(path: Path) -> _Notes:
    """What was noted when a checkpoint was packed. `PccError` if it cannot be read or is not packed."""
    try:
        opened = open_safetensors(path)
    except (SafetensorError, OSError) as error:
        raise PccError(f"'{path}' cannot be read: {error}") from None
    if not isinstance(opened, PackedState):
        raise PccError(f"'{path}' is no packed checkpoint")
    return opened.notes


def _taken(state: dict[str, Tensor], name: str, part: str, types: _Types) -> dict[str, np.ndarray]:
    """The arrays of one part of a weight, out of the state, in the types they are used in."""
    keys = {key: _key(name, part, key) for key in types}
    if missing := [stored for stored in keys.values() if stored not in state]:
        raise PccError(f"there is no tensor '{missing[0]}'")
    return {key: state.pop(stored).numpy().astype(types[key]) for key, stored in keys.items()}


def _key(name: str, part: str, key: str) -> str:
    return f"{name}:{part}.{key}"


def _narrowed(array: np.ndarray, name: str, *, half: bool) -> np.ndarray:
    """An array in the type it is stored in."""
    if half and array.dtype == np.float32:
        if np.abs(array).max(initial=0) > np.finfo(np.float16).max:
            raise PccError(f"'{name}' has values beyond {np.finfo(np.float16).max:g}: half precision cannot hold them")
        return array.astype(np.float16)
    if array.dtype == np.int32 and array.min(initial=0) >= 0:
        most = int(array.max(initial=0))
        array = array.astype(next((narrow for narrow in _NARROW if most <= np.iinfo(narrow).max), np.int32))
    return np.ascontiguousarray(array)

"""Packed checkpoints: what was packed comes back, from files of the same bytes, and damaged ones say so in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pcc.errors import PccError
from pcc.frontend.checkpoint import load_weights, read_safetensors
from pcc.frontend.packed import KEY, PackedState, open_safetensors, pack_state, packed_notes
from pcc.sparsity.centroids import Centroids
from pcc.sparsity.columns import Column
from pcc.sparsity.compose import Composition
from pcc.sparsity.filters import Filter
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.levels import Ternary, UniformLevels
from pcc.sparsity.structure import Structure
from pcc.sparsity.unstructured import Unstructured

STRUCTURES: dict[str, Structure] = {
    "plain patterns": Kernels("designed"),
    "connectivity, shared": Kernels("designed", 2.0, share=2),
    "unstructured": Unstructured(6.0),
    "filters": Filter(2.0),
    "columns": Column(3.0),
    "levels": UniformLevels(3),
    "ternary": Ternary(),
    "centroids": Centroids(2),
    "both": Composition((Kernels("designed", 2.0), Centroids(2))),
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3)
        self.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(72, 10)


GROUPS = {"grouped.weight": 2}


def pruned(structure: Structure, seed: int = 0) -> tuple[Net, dict[str, Structure]]:
    """A net whose convolutions have a structure."""
    torch.manual_seed(seed)
    net = Net()
    structures = {}
    for name in ("first.weight", "grouped.weight"):
        weight = net.get_parameter(name).data
        settled = structure.settle([weight.numpy()])
        weight.copy_(torch.from_numpy(settled.project(weight.numpy(), GROUPS.get(name, 1))))
        structures[name] = settled
    return net, structures


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
def test_every_structure_comes_back(structure: Structure, tmp_path: Path) -> None:
    net, structures = pruned(structure)
    packed = pack_state(net.state_dict(), structures, GROUPS)
    packed.save(tmp_path / "packed.safetensors")
    assert equal(read_safetensors(tmp_path / "packed.safetensors"), net.state_dict())
    assert set(structures).isdisjoint(load_file(tmp_path / "packed.safetensors"))
    loaded = Net()
    load_weights(loaded, tmp_path / "packed.safetensors")
    assert equal(dict(loaded.state_dict()), dict(net.state_dict()))


@settings(max_examples=15)
@given(seed=st.integers(0, 2**16), rate=st.floats(1, 8))
def test_half_precision_rounds_values_and_nothing_else(seed: int, rate: float) -> None:
    net, structures = pruned(Kernels("designed", rate), seed)
    plain = net.state_dict()
    found = pack_state(plain, structures, GROUPS, half=True).unpack()
    for name, value in plain.items():
        expected = value.half().float() if name in structures else value
        assert torch.equal(found[name], expected), name


def test_a_file_is_smaller_and_always_the_same(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 64, 3, 3)).astype(np.float32)
    structure = Kernels("designed", 4.0)
    state = {"weight": torch.from_numpy(structure.project(weight))}
    for name in ("a", "b"):
        packed = pack_state(state, {"weight": structure}, half=True).with_notes(
            {"accuracy": 0.9, "data": "cifar10", "photos": 181}
        )
        packed.save(tmp_path / f"{name}.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    assert content == (tmp_path / "b.safetensors").read_bytes()
    assert packed_notes(tmp_path / "a.safetensors") == {"accuracy": 0.9, "data": "cifar10", "photos": 181}
    connections = 64 * 64 // 4
    tables = 64 * 5 + 64 + 65 * 2 + 4 * 4 + 1  # stride, order, offsets, patterns, groups
    assert (
        sum(tensor.nbytes for tensor in load_file(tmp_path / "a.safetensors").values())
        == connections * (4 * 2 + 1) + tables
    )


def test_what_cannot_be_packed() -> None:
    state = {"weight": torch.ones(4, 4, 3, 3)}
    with pytest.raises(PccError, match="there is no weight 'wait' to pack"):
        pack_state(state, {"wait": Kernels("designed")})
    with pytest.raises(PccError, match="does not have these patterns"):
        pack_state(state, {"weight": Kernels("designed")})
    with pytest.raises(PccError, match="'weight' has values beyond 65504"):
        pack_state({"weight": torch.full((4, 4, 3, 3), 1e5)}, {"weight": Kernels()}, half=True)


def damaged(tmp_path: Path, change: str) -> Path:
    """A packed file with something wrong."""
    net, structures = pruned(Kernels("designed", 2.0))
    packed = pack_state(net.state_dict(), structures, GROUPS)
    tensors, contents = packed.tensors, json.loads(packed.contents.model_dump_json())
    match change:
        case "version":
            contents["version"] = 2
        case "structure":
            contents["weights"]["first.weight"]["structure"] = "kernel"
        case "missing":
            del tensors["first.weight:index.stride"]
        case "range":
            tensors["first.weight:index.patterns"] += 7
        case "shape":
            contents["weights"]["first.weight"]["shape"] = [8, 0, 3, 3]
        case "memory":
            contents["weights"]["first.weight"]["shape"] = [8, 2**40, 3, 3]
        case "swapped":
            tensors["first.weight:index.index"] = tensors["first.weight:index.index"].flip(0)
        case _:
            assert change == "text"
    text = "{" if change == "text" else json.dumps(contents)
    save_file(tensors, tmp_path / "w.safetensors", metadata={KEY: text})
    return tmp_path / "w.safetensors"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("version", "'pcc.packed' are damaged or of another pcc: version: Input should be 1"),
        ("text", "'pcc.packed' are damaged or of another pcc: Invalid JSON"),
        ("shape", "damaged or of another pcc: weights.first.weight.shape.1: Input should be greater than 0"),
        (
            "memory",
            "damaged or of another pcc: weights: Value error, they would have 79,164,837,200,160 numbers, more than",
        ),
        ("structure", "'first.weight' is damaged: unknown structure 'kernel': did you mean kernels?"),
        ("missing", "'first.weight' is damaged: there is no tensor 'first.weight:index.stride'"),
        ("range", "'first.weight' is damaged: damaged FKW weight: a pattern has a tap outside 0..8"),
        ("swapped", "'first.weight' is damaged: damaged FKW weight: "),
    ],
)
def test_damaged_files_say_what_is_wrong(change: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(PccError) as caught:
        read_safetensors(damaged(tmp_path, change))
    assert says in str(caught.value)
    assert str(caught.value).startswith("it cannot be read: ")
    assert "\n" not in str(caught.value)


def test_notes_of_files_that_have_none(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    assert not isinstance(open_safetensors(tmp_path / "w.safetensors"), PackedState)
    with pytest.raises(PccError, match="is no packed checkpoint"):
        packed_notes(tmp_path / "w.safetensors")
    with pytest.raises(PccError, match="cannot be read"):
        packed_notes(tmp_path / "none.safetensors")

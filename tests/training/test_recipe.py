"""Recipes: what they mean, and one clear line for each that means nothing."""

from pathlib import Path

import pytest

from pcc.errors import PccError
from pcc.sparsity.compose import Composition
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.unstructured import Unstructured
from pcc.training.recipe import load_recipe, parse_recipe, parse_structures, shipped_recipes

RECIPE = """
seed: 3
augment: shift
train: {batch: 64, lr: 0.1, weight_decay: 1e-3}
structures:
  "@first": dense
  "@conv3x3": {kernels: {patterns: designed, rate: 3.6}}
  fc: [{unstructured: {rate: 8}}, {levels: {bits: 4}}]
stages:
  - admm: {epochs: 2, rhos: [1e-2, 1e-1], train: {lr: 0.02}}
  - train: {epochs: 1, structures: {fc: {unstructured: {rate: 4}}}}
  - one-shot:
"""


def test_a_recipe_in_full() -> None:
    recipe = parse_recipe(RECIPE)
    assert (recipe.seed, recipe.augment) == (3, "shift")
    admm, train, once = recipe.stages
    assert admm.options == {"epochs": 2, "rhos": [0.01, 0.1]}
    assert (admm.train.lr, admm.train.batch, admm.train.weight_decay) == (0.02, 64, 1e-3)
    assert (train.train.lr, once.options) == (0.1, {})
    structures = parse_structures(admm.structures)
    assert list(structures) == ["@first", "@conv3x3", "fc"]
    assert structures["@first"] is None
    assert structures["@conv3x3"] == Kernels("designed", 3.6)
    assert isinstance(structures["fc"], Composition)
    assert parse_structures(train.structures) == {"fc": Unstructured(4)}


def test_recipes_that_ship_are_known_by_name() -> None:
    assert "cifar10-dense" in shipped_recipes()
    for name in shipped_recipes():
        assert load_recipe(name).stages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is no YAML"),
        ("- train", "a recipe is a mapping with a list of stages"),
        ("stages: []", "a list of stages"),
        ("stages: [{train: {epochs: 1}}]\nsead: 1", "unknown key 'sead'"),
        ("stages: [{train: {epochs: 1}}]\nseed: often", "seed: input should be a valid integer"),
        ("stages: [{train: {epochs: 1}}]\naugment: mirror", "augment: input should be 'none', 'crop-flip' or 'shift'"),
        ("stages: [{train: {epochs: 1}, admm: {}}]", "stage 1: write it as 'method: {options}'"),
        ("stages: [{train: [1]}]", "stage 1, train: write it as a mapping"),
        ("train: 5\nstages: [{train: {epochs: 1}}]", "train: write it as a mapping"),
        ("structures: {1: dense}\nstages: [{train: {epochs: 1}}]", "structures: write it as a mapping"),
        ("stages: [{adnm: {epochs: 1}}]", "no method 'adnm': did you mean admm?"),
        ("stages: [{train: {}}]", "stage 1, train: epochs: field required"),
        ("stages: [{train: {epochs: 1, rhos: [1]}}]", "rhos: extra inputs are not permitted"),
        ("stages: [{admm: {epochs: 1, rhos: high}}]", "rhos: "),
        ("stages: [{train: {epochs: 1, train: {lr: -1}}}]", "lr: input should be greater than 0"),
        ("stages: [{train: {epochs: 1, train: {optimiser: sgd}}}]", "optimiser: extra inputs"),
        (
            "structures: {fc: {unstructred: {rate: 2}}}\nstages: [{one-shot: }]",
            "structure of 'fc': unknown structure 'unstructred': did you mean unstructured?",
        ),
        ("structures: {fc: {unstructured: {speed: 2}}}\nstages: [{one-shot: }]", "unknown field 'speed'"),
        ("structures: {fc: {unstructured: 2}}\nstages: [{one-shot: }]", "unstructured: write it as a mapping"),
        ("structures: {fc: sparse}\nstages: [{one-shot: }]", "structure of 'fc': write {name: {field: value}}"),
        ("structures: {fc: {unstructured: {rate: 0.5}}}\nstages: [{one-shot: }]", "rate"),
    ],
)
def test_wrong_recipes_are_one_line(text: str, message: str) -> None:
    with pytest.raises(PccError) as error:
        parse_recipe(text, "my.yaml")
    assert message in str(error.value)
    assert str(error.value).startswith("my.yaml")
    assert "\n" not in str(error.value)


def test_recipes_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PccError, match="none.yaml: no such file"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(PccError, match="no recipe is called 'cifar10-densest'"):
        load_recipe("cifar10-densest")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PccError, match="cannot be read"):
        load_recipe(tmp_path / "bytes.yaml")

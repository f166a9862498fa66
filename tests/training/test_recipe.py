"""Recipes: what they mean, and one clear line for each that means nothing."""

import inspect
import re
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
import torch

from pcc.errors import PccError
from pcc.sparsity.compose import Composition
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.unstructured import Unstructured
from pcc.training.methods import method_class, method_names
from pcc.training.processes import Processes
from pcc.training.recipe import load_recipe, parse_recipe, parse_structures, shipped_recipes
from pcc.training.trainer import check
from tests.training.every_method import STAGES
from tests.training.methods.loop import data, net

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


def test_a_stage_changes_a_part_of_what_is_distilled() -> None:
    text = """
        train: {distill: {weight: 0.7, temperature: 3}}
        stages: [train: {epochs: 1, train: {distill: {hints: 0.3}}}, train: {epochs: 1, train: {distill: null}}]
    """
    first, last = (stage.train.distill for stage in parse_recipe(text).stages)
    assert first is not None
    assert (first.weight, first.temperature, first.hints) == (0.7, 3, 0.3)
    assert last is None


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
        ("stages: [{train: {epochs: 1}}]\nseed: often", "seed: Input should be a valid integer"),
        ("stages: [{train: {epochs: 1}}]\naugment: mirror", "augment: Input should be 'none', 'crop-flip' or 'shift'"),
        ("stages: [{train: {epochs: 1}, admm: {}}]", "stage 1: write it as 'method: {options}'"),
        ("stages: [{train: [1]}]", "stage 1, train: write it as a mapping"),
        ("train: 5\nstages: [{train: {epochs: 1}}]", "train: write it as a mapping"),
        ("structures: {1: dense}\nstages: [{train: {epochs: 1}}]", "structures: write it as a mapping"),
        ("stages: [{adnm: {epochs: 1}}]", "no method 'adnm': did you mean admm?"),
        ("stages: [{train: {}}]", "stage 1, train: method train needs the option 'epochs'"),
        ("stages: [{train: {epochs: 1, rhos: [1]}}]", "method train has no option 'rhos': choose one of epochs"),
        ("stages: [{admm: {epochs: 1, rhos: high}}]", "method admm: rhos cannot be 'high': give a list, each a number"),
        ("stages: [{train: {epochs: 1, train: {lr: -1}}}]", "lr: Input should be greater than 0"),
        ("stages: [{train: {epochs: 1, train: {optimiser: sgd}}}]", "optimiser: Extra inputs"),
        (
            "structures: {fc: {unstructred: {rate: 2}}}\nstages: [{one-shot: }]",
            "structure of 'fc': unknown structure 'unstructred': did you mean unstructured?",
        ),
        (
            "structures: {fc: {unstructured: {speed: 2}}}\nstages: [{one-shot: }]",
            "structure unstructured has no option 'speed'",
        ),
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
    with pytest.raises(PccError, match=r"none.yaml: no such file"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(PccError, match="no recipe is called 'cifar10-densest'"):
        load_recipe("cifar10-densest")
    (tmp_path / "bytes.yaml").write_bytes(b"seed: \xff\xfe\x00")
    with pytest.raises(PccError, match=r"bytes.yaml is no text in UTF-8: byte 6 is 0xff"):
        load_recipe(tmp_path / "bytes.yaml")
    (tmp_path / "large.yaml").write_text("#" * (2**20 + 1))
    with pytest.raises(PccError, match=r"large.yaml is larger than 1,048,576 bytes"):
        load_recipe(tmp_path / "large.yaml")
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    with pytest.raises(PccError, match=r"endless.yaml is a device"):
        load_recipe(tmp_path / "endless.yaml")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n" for before, after in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 2020-01-01", ", line 1, column 7 is no YAML of a recipe: a value of kind 'timestamp'"),
        ("2020-01-01: 1", ", line 1, column 1 is no YAML of a recipe: a value of kind 'timestamp'"),
        ("seed: 2020-13-45", "a value of kind 'timestamp'"),
        ("seed: !!binary aGVsbG8=", "a value of kind 'binary'"),
        ("seed: !!python/object/apply:os.getcwd []", "a value of kind 'python/object/apply:os.getcwd'"),
        (
            f"seed: {10**400}",
            f", line 1, column 7 is no YAML of a recipe: '{10**19}' is no number that a recipe can hold",
        ),
        (f"seed: {'9' * 5000}", "'99999999999999999999' is no number"),
        ("seed: 0b_", "'0b_' is no number"),
        ("seed: .inf", "'.inf' is no number"),
        ("seed: .nan", "'.nan' is no number"),
        ("seed: 1.0e+400", "'1.0e+400' is no number"),
        ("seed: -1", "seed: Input should be greater than or equal to 0"),
        (f"seed: {2**32}", "seed: Input should be less than or equal to 4294967295"),
        (f"seed: {2**63}", "'9223372036854775808' is no number"),
        ("train: {weight_decay: 1e400}", "weight_decay: Input should be a finite number"),
        ("train: {distill: {temperature: 1e999}}", "distill.temperature: Input should be a finite number"),
        ("7: 1\nno: 2", "unknown key '7'"),
        ("a: " + "[" * 5000, "lists and mappings lie more than 20 deep"),
        ("a: " + "{a: " * 5000, "lists and mappings lie more than 20 deep"),
        ("- " * 5000, "lists and mappings lie more than 20 deep"),
        (BOMB, "it has more than 10,000 values, those that aliases repeat counted"),
        ("a: &a [*a]", ", line 1, column 8 is no YAML of a recipe: alias 'a' stands for nothing"),
        ("a: *b", "alias 'b' stands for nothing"),
        (
            "train:\n\tlr: 1",
            ", line 2, column 1 is no YAML of a recipe: found character '\\t' that cannot start any token",
        ),
        ("seed: \0", ", character 6: 0x00 is no text"),
        ("seed: 'a", ", line 2, column 31 is no YAML of a recipe: found unexpected end of stream"),
        ("? [a]\n: b", "found unhashable key"),
    ],
)
def test_values_that_no_recipe_has(text: str, message: str) -> None:
    with pytest.raises(PccError) as error:
        parse_recipe(f"{text}\nstages: [{{train: {{epochs: 1}}}}]", "my.yaml")
    assert message in str(error.value)
    assert str(error.value).startswith("my.yaml")
    assert "\n" not in str(error.value)


def test_an_alias_repeats_what_it_stands_for() -> None:
    recipe = parse_recipe(
        "structures: &all {fc: &fc {unstructured: {rate: 2}}}\nstages: [{one-shot: {structures: {a: *fc}}}, {one-shot: "
        "{structures: *all}}]"
    )
    assert [parse_structures(stage.structures) for stage in recipe.stages] == [
        {"a": Unstructured(2)},
        {"fc": Unstructured(2)},
    ]


NUMBERS = ("0", "-1", "3", "0.5", "1.0e+300", "1.0e-300", str(2**53), "null", "true", "[]", "[1]", "word")


@pytest.mark.parametrize("method", method_names())
def test_numbers_of_a_method_that_are_wrong(method: str) -> None:
    """Another value in the place of an option or of a number in its structures: the recipe passes what is checked
    before training, or one line says why not."""
    random, stage = Random(method), STAGES[method]
    cls = method_class(method)
    options = [
        name
        for name in inspect.signature(cls.__init__).parameters
        if name not in ("self", "model", "structures", *cls.uses)
    ]
    for _ in range(12):
        if options and random.random() < 0.5:
            wrong = re.sub(r"^\{?", f"{{{random.choice(options)}: {random.choice(NUMBERS)}, ", stage or "}", count=1)
        else:
            wrong = re.sub(r"(?<=: )\d[\d.]*", lambda old: random.choice((old[0], *NUMBERS)), stage)
        try:
            check(
                net(),
                data(),
                parse_recipe(f"train: {{batch: 60}}\nstages: [{{{method}: {wrong}}}]", "my.yaml"),
                Processes(0, 1, torch.device("cpu")),
            )
        except PccError as error:
            line = str(error)
        else:
            continue
        assert line
        assert "\n" not in line

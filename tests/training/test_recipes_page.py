"""docs/recipes.md names every option of recipes, with the value that holds where nothing is written."""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from pcc.sparsity import structures
from pcc.training.methods import method_class, method_names
from pcc.training.recipe import Distillation, Training
from pcc.training.recipe_text import read_yaml

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
REQUIRED = "required"


def rows(heading: str) -> dict[str, str]:
    """The cell of options by the name in the first column."""
    lines = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {cell[0].strip("`"): cell[1] for cell in cells}


def written(cell: str) -> dict[str, Any]:
    """The options of a cell: "`epochs`, `every: 1`"."""
    return dict(option(text) for text in re.findall("`([^`]*)`", cell))


def option(text: str) -> tuple[str, Any]:
    name, colon, _ = text.partition(":")
    return name, as_number(read_yaml(f"{{{text}}}", "page")[name]) if colon else REQUIRED


def as_number(value: Any) -> Any:
    """YAML reads ``1e-4`` as text; a recipe's options have types."""
    if isinstance(value, list):
        return [as_number(each) for each in value]
    return float(value) if isinstance(value, str) and value[0].isdigit() else value


def as_yaml(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_every_method() -> None:
    table = rows("Methods")
    assert set(table) == set(method_names())
    for name, cell in table.items():
        method = method_class(name)
        parameters = list(inspect.signature(method).parameters.values())[2:]
        assert written(cell) == {
            parameter.name: REQUIRED if parameter.default is parameter.empty else as_yaml(parameter.default)
            for parameter in parameters
            if parameter.name not in method.uses
        }, name


def test_every_structure() -> None:
    table = rows("Structures")
    assert set(table) == set(structures.names())
    for name, cell in table.items():
        assert written(cell) == {
            field.name: REQUIRED if field.default is dataclasses.MISSING else as_yaml(field.default)
            for field in dataclasses.fields(structures.kind(name))  # pyright: ignore[reportArgumentType]
        }, name


def test_everything_of_training() -> None:
    table = rows("`train`")
    values = dict(option(name) for name in table)
    assert values == {name: field.default for name, field in Training.model_fields.items()}
    distill = re.search(r"`(\{.*?\})`", table["distill: null"])
    assert distill
    assert read_yaml(distill[1], "page") == {name: field.default for name, field in Distillation.model_fields.items()}


@pytest.mark.parametrize("text", re.findall("```yaml\n(.*?)```", PAGE, re.S))
def test_the_example_is_a_recipe(text: str) -> None:
    from pcc.training.recipe import parse_recipe

    assert [stage.method for stage in parse_recipe(text).stages] == ["admm", "train"]

"""Structures as a recipe writes them, and the recipe of what was chosen."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import yaml

from pcc.sparsity.structure import Structure
from pcc.training.recipe import parse_structures


def written(structure: Structure) -> dict[str, Any]:
    """``{name: {field: value}}``, fields with their default left out; `structure_of` reads it."""
    values = {
        field.name: _plain(value)
        for field in fields(structure)  # pyright: ignore[reportArgumentType]  # structures are dataclasses
        if field.repr and (value := getattr(structure, field.name)) != field.default
    }
    return {structure.name: values}


def structure_of(raw: Mapping[str, Any]) -> Structure:
    """The structure that `written` gave."""
    (found,) = parse_structures({"layer": dict(raw)}).values()
    assert found is not None
    return found


def recipe_text(chosen: Mapping[str, Mapping[str, Any]], source: str) -> str:
    """A recipe for ``pcc prune``: training with labels that keeps the zeros of the compressed network, whose structures
    are ``chosen``, by layer. ``source`` says in a comment where they are from."""
    recipe = {
        "train": {"batch": 32, "lr": 1e-3, "weight_decay": 0.0},
        "structures": {name: dict(raw) for name, raw in chosen.items()},
        "stages": [{"train": {"epochs": 2}}],
    }
    return f"# {source}\n{yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=120)}"


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, tuple) else value

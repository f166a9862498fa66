"""Recipes: what to prune, and the stages that do it, as a YAML file.

::

    seed: 0
    train: {batch: 128, optimizer: sgd, lr: 0.05, schedule: cosine, weight_decay: 5e-4}
    structures:                      # the first selector that fits a layer decides (pcc.training.layers)
      features.0: dense
      "@conv3x3": {kernels: {patterns: 8, rate: 3.6}}
    stages:
      - admm: {epochs: 12, rhos: [1e-3, 1e-2, 1e-1]}
      - train: {epochs: 8}           # keeps the zeros: masked retraining

A stage names a method; its options are the method's, and ``structures`` and ``train`` may be given again for this stage
alone. A structure is written ``{name: {field: value}}``; a list of them is a composition. Recipes that ship are known
by name.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from pcc.errors import PccError, first_problem, shortened
from pcc.fields import typed_fields
from pcc.files import read_limited
from pcc.sparsity.structure import Structure
from pcc.training.data import Augment
from pcc.training.layers import Structures
from pcc.training.method import Method
from pcc.training.methods import method_class
from pcc.training.recipe_text import read_yaml

SHIPPED = resources.files("pcc.training") / "recipes"
MOST_BYTES = 2**20
MOST_SEED = 2**32 - 1


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Distillation(_Strict):
    """Learning from the model as it came in (Hinton et al., 2015): loss = (1 - weight) * loss + weight * T^2 *
    KL(teacher || student)."""

    weight: float = Field(default=0.5, gt=0, le=1)
    temperature: float = Field(default=4.0, gt=0)
    hints: float = Field(default=0.0, ge=0)
    """What the inputs of layers count (`pcc.training.hints`), added to that."""


class Training(_Strict):
    """How an epoch trains; a stage may change any of it."""

    batch: int = Field(default=128, ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(default=0.05, gt=0, le=1000)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of Adam the first beta."""
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: Literal["constant", "cosine", "one-cycle"] = "cosine"
    """Over the stage, by step: ``one-cycle`` warms up over its first fifth, then falls to zero in a straight line."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """``bf16``: autocast, where the device multiplies in bf16, else fp32; weights and their updates stay fp32."""
    distill: Distillation | None = None


class Stage(_Strict):
    """One method with its options."""

    method: str
    options: dict[str, Any] = {}
    train: Training
    structures: dict[str, Any] = {}

    def make(self, model: nn.Module, **context: Any) -> Method:
        """The method on a model; ``context`` has what methods may use (`Method.uses`)."""
        cls = method_class(self.method)
        return cls(
            model, parse_structures(self.structures), **self.options, **{name: context[name] for name in cls.uses}
        )


class Recipe(_Strict):
    """Stages in their order, and the seed of everything random."""

    seed: int = Field(default=0, ge=0, le=MOST_SEED)
    augment: Augment | None = None
    """How training samples are varied: the data's own way unless given (`pcc.training.data`)."""
    stages: tuple[Stage, ...]

    @property
    def has_bf16(self) -> bool:
        return any(stage.train.precision == "bf16" for stage in self.stages)

    def in_fp32(self) -> Self:
        """The same training without bf16."""
        stages = tuple(
            stage.model_copy(update={"train": stage.train.model_copy(update={"precision": "fp32"})})
            for stage in self.stages
        )
        return self.model_copy(update={"stages": stages})


def load_recipe(text: str | Path) -> Recipe:
    """A recipe file, or a shipped recipe by name. `PccError` in one line for whatever does not exist or does not
    fit."""
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        content = read_limited(path, "recipe", MOST_BYTES)
        try:
            return parse_recipe(content.decode(), str(path))
        except UnicodeDecodeError as error:
            raise PccError(
                f"recipe {path} is no text in UTF-8: byte {error.start} is {content[error.start]:#04x}"
            ) from None
    if str(text) not in shipped_recipes():
        raise PccError(f"no recipe is called '{text}': give a .yaml file or one of {', '.join(shipped_recipes())}")
    return parse_recipe((SHIPPED / f"{text}.yaml").read_text(encoding="utf-8"), str(text))


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with pcc."""
    return tuple(sorted(Path(entry.name).stem for entry in SHIPPED.iterdir() if entry.name.endswith(".yaml")))


def parse_recipe(text: str, source: str = "recipe") -> Recipe:
    """A recipe from its YAML text; ``source`` is named in errors."""
    raw = read_yaml(text, source)
    if not isinstance(raw, dict) or not isinstance(raw.get("stages"), list) or not raw["stages"]:
        raise PccError(f"{source}: a recipe is a mapping with a list of stages")
    unknown = {str(key) for key in raw} - {"seed", "augment", "train", "structures", "stages"}
    if unknown:
        raise PccError(
            f"{source}: unknown key '{min(unknown)}': a recipe has seed, augment, train, structures and stages"
        )
    train, structures = (_mapping(raw.get(key), f"{source}: {key}") for key in ("train", "structures"))
    try:
        stages = tuple(
            _stage(entry, train, structures, f"{source}: stage {number}")
            for number, entry in enumerate(raw["stages"], start=1)
        )
        return Recipe(**{key: raw[key] for key in ("seed", "augment") if key in raw}, stages=stages)
    except ValidationError as error:
        raise PccError(f"{source}: {first_problem(error)}") from None


def _stage(entry: Any, train: Mapping[str, Any], structures: Mapping[str, Any], where: str) -> Stage:
    if not isinstance(entry, dict) or len(entry) != 1:
        raise PccError(f"{where}: write it as 'method: {{options}}'")
    ((name, settings),) = entry.items()
    where = f"{where}, {name}"
    options = _mapping(settings, where)
    own_train = _mapping(options.pop("train", None), f"{where}: train")
    own_structures = _mapping(options.pop("structures", structures), f"{where}: structures")
    try:
        stage = Stage(
            method=name,
            options=_checked(method_class(name), options),
            train=Training(**_changed(train, own_train)),
            structures=own_structures,
        )
        parse_structures(stage.structures)
    except ValidationError as error:
        raise PccError(f"{where}: {first_problem(error)}") from None
    except PccError as error:
        raise PccError(f"{where}: {error}") from None
    return stage


def _changed(train: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's training as a stage changes it; of ``distill`` what the stage does not write stays, too."""
    before, after = train.get("distill"), own.get("distill")
    if isinstance(before, dict) and isinstance(after, dict):
        own = {**own, "distill": {**before, **after}}
    return {**train, **own}


def _mapping(value: Any, where: str) -> dict[str, Any]:
    """A copy of what YAML gave, which is a mapping with names as keys, or nothing."""
    if value is not None and not (isinstance(value, dict) and all(isinstance(key, str) for key in value)):
        raise PccError(f"{where}: write it as a mapping, 'name: value', not {shortened(repr(value), 80)}")
    return dict(value or {})


def _checked(method: type[Method], options: dict[str, Any]) -> dict[str, Any]:
    """The options with the types that the method's constructor declares."""
    return typed_fields(
        method, options, source=f"method {method.name}", strict=False, without={"model", "structures", *method.uses}
    )


def parse_structures(raw: Mapping[str, Any]) -> Structures:
    """Structures as a recipe writes them, by selector; ``dense`` is None."""
    return {selector: None if value == "dense" else _structure(selector, value) for selector, value in raw.items()}


def _structure(selector: str, value: Any) -> Structure:
    from pcc.sparsity import structures

    parts: Sequence[Any] = value if isinstance(value, list) else [value]
    found = []
    for part in parts:
        if not isinstance(part, dict) or len(part) != 1:
            raise PccError(f"structure of '{selector}': write {{name: {{field: value}}}}, a list of those, or dense")
        ((name, fields),) = part.items()
        try:
            found.append(structures.structure(str(name), **_mapping(fields, str(name))))
        except PccError as error:
            raise PccError(f"structure of '{selector}': {error}") from None
    return found[0] if len(found) == 1 else structures.compose(found)

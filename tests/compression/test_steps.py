"""What a compression decides between its steps, which cost nothing here."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch import nn

from pcc.compression.compress import Fitted, _identity, _Run
from pcc.compression.network import Subject
from pcc.compression.options import LayerOptions, Option
from pcc.compression.photos import Photos
from pcc.compression.wish import Wish, WishOutOfReach
from pcc.errors import PccError
from pcc.evaluate.samples import Samples
from pcc.progress import quiet
from pcc.sparsity.kernels import Kernels
from pcc.target import target_named


def run_of(**parts: Any) -> Any:
    """A run that has these parts and no others."""
    run = object.__new__(_Run)
    vars(run).update(parts)
    return run


def fastest(share: Callable[[float], float | None]) -> Any:
    """What keeps 90 %, of networks that keep a share by how fast they are; None: out of reach."""

    def fitted(name: str, value: float) -> Any:
        kept = share(value)
        if kept is None:
            raise WishOutOfReach("so fast there is none")
        return SimpleNamespace(value=value, comparison=SimpleNamespace(agreement=SimpleNamespace(share=kept)))

    return run_of(wish=Wish("keep", 0.9), subject=SimpleNamespace(called="net"), _fitted=fitted)._fastest_that_keeps()


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (lambda value: 0.95, 16),
        (lambda value: 0.9 if value < 2.5 else 0.89, 4 ** (5 / 8)),
        (lambda value: 0.95 if value < 3 else None, 4 ** (3 / 4)),
        (lambda value: 1.0 if value < 1.2 else None, 4 ** (1 / 8)),
    ],
)
def test_the_fastest_that_keeps_enough(share: Callable[[float], float | None], expected: float) -> None:
    assert fastest(share).value == pytest.approx(expected)


def test_where_none_keeps_enough_the_error_says_what_each_keeps() -> None:
    with pytest.raises(PccError, match=r"keeps as much \(50.0% at 2x, 50.0% at 1.41x, 50.0% at 1.19x, 50.0% at 1.09x"):
        fastest(lambda value: 0.5)
    with pytest.raises(PccError, match=r"\(2x is out of reach, 1.41x is out of reach"):
        fastest(lambda value: None)


class Report(BaseModel):
    note: str = "as it was"
    stages: dict[str, float] = {}


@pytest.mark.parametrize(("after", "is_kept"), [(0.5, True), (2.0, False), (float("nan"), False)])
def test_distillation_is_kept_where_it_comes_nearer(
    after: float, is_kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcc.compression.compress.distill", lambda *_: 7)
    monkeypatch.setattr("pcc.compression.compress.distances", lambda *_: [1.0, after])
    published = list[Any]()
    module: Any = nn.Linear(2, 2)
    run = run_of(
        stages={},
        watch=quiet,
        out=tmp_path,
        batch=1,
        subject=SimpleNamespace(module=module, network=lambda module: module),
        photos=SimpleNamespace(fitted=None, held_out_batches=lambda size: []),
        _compared=lambda network: "compared",
        _publish=lambda fitted, what: published.append(fitted) or Report(note=what),
    )
    before: Any = Fitted(None, module, {}, None)  # type: ignore[arg-type]
    report = run._distilled(before, Report(), 1.0)
    assert "7 steps of distillation: 1 from the dense network's outputs before" in report.note
    assert report.note.endswith(": not kept") != is_kept
    assert [each.comparison for each in published] == ["compared"] * is_kept
    assert all(each.module is not module for each in published)
    assert (tmp_path / "report.json").exists() != is_kept


def test_layers_that_stay_dense_are_fitted_too() -> None:
    option = Option(cost=1, family="f", macs=1, bytes=1)
    halved = option.model_copy(update={"structure": {"kernels": {"rate": 2.0}}})
    database = {name: LayerOptions(name=name, options=(option,)) for name in ("a", "b", "other")}
    run = run_of(subject=SimpleNamespace(layers=lambda: {"a": None, "b": None, "unpriced": None}), database=database)
    assert run._structures({"a": halved, "b": option}) == {"a": Kernels(None, 2.0), "b": Kernels()}


def test_a_run_is_of_its_network_photos_and_target() -> None:
    def identity(weight: float = 1.0, pixel: float = 1.0, cpu: str = "cortex-a76") -> tuple[str, ...]:
        module = nn.Linear(1, 1)
        nn.init.constant_(module.weight, weight)
        nn.init.zeros_(module.bias)
        subject: Any = SimpleNamespace(module=module)
        samples = Samples("held out", 0, lambda begin, end: (torch.zeros(0).numpy(), None))
        photos = Photos(torch.full((1, 3, 2, 2), pixel), 1, samples)
        return tuple(_identity(subject, photos, target_named("aarch64-linux", cpu)).values())

    assert identity() == identity()
    changed = [identity(weight=2.0), identity(pixel=2.0), identity(cpu="cortex-a53")]
    for place, other in enumerate(changed):
        assert [a == b for a, b in zip(identity(), other, strict=True)][:3] == [at != place for at in range(3)]


@pytest.mark.parametrize(
    ("wish", "measured", "said"),
    [
        (Wish("faster", 2.0), 1.7, "the wish is missed: 1.7 of 2 times as fast"),
        (Wish("faster", 2.0), 1.97, ""),
        (Wish("faster", 2.0), None, ""),
        (Wish("macs", 0.5), 1.1, ""),
    ],
)
def test_a_wish_that_is_missed_is_said_to_be(wish: Wish, measured: float | None, said: str) -> None:
    assert run_of(wish=wish)._missed(measured) == said


def test_layers_that_share_a_weight_stay_as_they_are() -> None:
    module = nn.Sequential(*(nn.Conv2d(4, 4, 3) for _ in range(4)))
    module[1].weight = module[0].weight  # type: ignore[assignment]
    module.add_module("again", module[2])
    assert list(Subject("net", "net", module, (4, 9, 9)).layers()) == ["3"]

"""A run that is stopped anywhere and goes on gives the weights of one that was not, bit for bit."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pcc.errors import PccError
from pcc.training.methods.admm import Admm
from pcc.training.processes import Processes
from pcc.training.recipe import parse_recipe
from pcc.training.resume import load_progress, sha256_of
from pcc.training.trainer import Outcome, train
from tests.training.methods.loop import Interrupted, Net, data, net, run, same

CPU = torch.device("cpu")
RECIPE = """
seed: 5
augment: shift
train: {batch: 80, lr: 0.05, clip: 1, distill: {weight: 0.3}}
structures: {conv2: {kernels: {patterns: 4, rate: 2}}, fc1: {unstructured: {rate: 4}}}
stages:
  - train: {epochs: 2, structures: {}, train: {optimizer: adam, lr: 0.003}}
  - admm: {epochs: 3, rhos: [0.01, 0.1], every: 2}
  - train: {epochs: 2}
"""
STEPS = 3
"""Of an epoch."""


class Shaky(Net):
    """With what draws random numbers in training."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = torch.nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.drop(x))


def shaky() -> Shaky:
    torch.manual_seed(0)
    return Shaky()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shaky, Outcome, Path]:
    model, folder = shaky(), tmp_path_factory.mktemp("uninterrupted")
    return model, run(model, RECIPE, folder), folder


def plain(folder: Path) -> list[dict[str, str]]:
    """The log without times."""
    with (folder / "log.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "steps", [[0], [2], [STEPS], [2 * STEPS + 1], [3 * STEPS], [4 * STEPS + 2, 4 * STEPS + 4], [6 * STEPS + 2]], ids=str
)
def test_stopped_after_some_steps(uninterrupted: tuple[Shaky, Outcome, Path], tmp_path: Path, steps: list[int]) -> None:
    reference, expected, log = uninterrupted
    left = 0

    def watch(what: str, part: float) -> None:
        nonlocal left
        if left == 0:
            raise Interrupted
        left -= 1

    done = 0
    for place, stop in enumerate(steps):
        left = stop - done
        with pytest.raises(Interrupted):
            train(shaky(), data(), parse_recipe(RECIPE), tmp_path, Processes(0, 1, CPU), watch=watch, resume=place > 0)
        done = stop // STEPS * STEPS  # steps of an epoch that is not over are lost
    model = shaky()
    torch.manual_seed(1234)  # what ran before leaves other random numbers behind
    outcome = run(model, RECIPE, tmp_path, resume=True)
    assert same(model, reference)
    assert (outcome.accuracy, outcome.dense_accuracy, outcome.epochs) == (
        expected.accuracy,
        expected.dense_accuracy,
        expected.epochs,
    )
    assert plain(tmp_path) == plain(log)


def test_stopped_between_the_last_epoch_and_the_end_of_a_stage(
    uninterrupted: tuple[Shaky, Outcome, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Admm) -> None:
        raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(Admm, "finish", fail)
        with pytest.raises(Interrupted):
            run(shaky(), RECIPE, tmp_path)
    model = shaky()
    run(model, RECIPE, tmp_path, resume=True)
    assert same(model, uninterrupted[0])


def test_a_finished_run_has_nothing_left_to_do(uninterrupted: tuple[Shaky, Outcome, Path]) -> None:
    reference, expected, folder = uninterrupted
    model = shaky()
    assert run(model, RECIPE, folder, resume=True) == expected
    assert same(model, reference)


def test_scalars_of_a_resumed_run_appear_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = "train: {batch: 240}\nstages: [{train: {epochs: 3}}]"
    calls = 0

    def watch(what: str, part: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(net(), data(), parse_recipe(recipe), tmp_path, Processes(0, 1, CPU), watch=watch)
    run(net(), recipe, tmp_path, resume=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("accuracy")] == [0, 1, 2, 3]
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]


def test_a_teacher_belongs_to_the_run(tmp_path: Path) -> None:
    def go(teacher: torch.nn.Module, *, resume: bool) -> Outcome:
        recipe = parse_recipe("train: {batch: 240, distill: {weight: 1}}\nstages: [{train: {epochs: 1}}]")
        return train(net(), data(), recipe, tmp_path, Processes(0, 1, CPU), teachers=[teacher], resume=resume)

    teacher, other = shaky(), shaky()
    other.fc2.weight.data.neg_()
    outcome = go(teacher, resume=False)
    assert go(teacher, resume=True) == outcome
    with pytest.raises(PccError, match="is of another teacher"):
        go(other, resume=True)


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    recipe = "train: {batch: 240}\nstages: [{train: {epochs: 1}}]"
    with pytest.raises(PccError, match=r"nothing to resume: .*resume.pt does not exist; run without --resume"):
        run(net(), recipe, tmp_path, resume=True)
    run(net(), recipe, tmp_path)
    with pytest.raises(PccError, match="is of another recipe"):
        run(net(), recipe.replace("epochs: 1", "epochs: 2"), tmp_path, resume=True)
    with pytest.raises(PccError, match="is of another model or other weights"):
        run(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)), recipe, tmp_path, resume=True)
    with pytest.raises(PccError, match="is of another data set"):
        train(net(), data(train=244), parse_recipe(recipe), tmp_path, Processes(0, 1, CPU), resume=True)
    (tmp_path / "resume.pt").write_bytes(b"PK")
    with pytest.raises(PccError, match=r"resume.pt cannot be read \(\w+\): remove it, and run without --resume"):
        run(net(), recipe, tmp_path, resume=True)


def test_a_file_that_does_not_fit(tmp_path: Path) -> None:
    """Whatever is other in it than what a run wrote: cut off, bytes, keys, kinds, shapes, numbers."""
    structures = "{fc1: {unstructured: {rate: 2}}}"
    recipe = (
        "train: {batch: 240, optimizer: adam}\n"
        f"stages: [{{admm: {{epochs: 2, rhos: [0.1], structures: {structures}}}}}]"
    )
    with pytest.raises(Interrupted):
        train(net(), data(), parse_recipe(recipe), tmp_path, Processes(0, 1, CPU), watch=_stop_after(2))
    file = tmp_path / "resume.pt"
    whole, saved = file.read_bytes(), torch.load(file, weights_only=True)

    def refused() -> str:
        with pytest.raises(PccError) as error:
            load_progress(tmp_path, saved["run"], CPU)
        assert str(error.value).startswith(str(file))
        assert "\n" not in str(error.value)
        return str(error.value)

    for length in range(0, len(whole), len(whole) // 10):
        file.write_bytes(whole[:length])
        refused()
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(len(whole), (100,), generator=generator).tolist():
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
        try:
            assert load_progress(tmp_path, saved["run"], CPU).epoch == 1  # zip archives have bytes that nobody reads
        except PccError as error:
            assert str(error).startswith(str(file))  # noqa: PT017
    file.write_bytes(whole)
    other = torch.nn.Linear(3, 2).state_dict()
    changes = {
        "stage": (1, -1, 7, "0", None, 10**30),
        "epoch": (0, 2, 10**9, 1.5, "x"),
        "model": (
            {},
            other,
            [],
            None,
            {name: value[..., :1] if value.dim() else value for name, value in saved["model"].items()},
        ),
        "start": (other, {"x": 1}, 3),
        "method": ({}, {"duals": 1}, [1, 2]),
        "optimizer": ({}, {"state": {}, "param_groups": []}, "adam"),
        "rows": ((), ({},), 5, saved["rows"][:1]),
        "run": ({}, None, {**saved["run"], "recipe": "x"}),
        "seal": ("", 5),
    }
    for key, values in changes.items():
        for value in values:
            torch.save({**saved, key: value}, file)
            refused()
        if saved[key]:  # else leaving it out says the same
            torch.save({name: value for name, value in saved.items() if name != key}, file)
            refused()
    for nothing in ([], None, 3, "text", other):
        torch.save(nothing, file)
        refused()


def test_a_digest_tells_kinds_and_sizes_apart() -> None:
    zeros = torch.zeros(2)
    values = [
        *(zeros, zeros.int(), zeros.half(), zeros[None], zeros + 1, torch.zeros(4).half()),
        *([0, 0], (0, 0), [[0], 0], [[0, 0]], {0: 0}, {"0": 0}, [], {}, 0, "0", 0.0, False, None),
    ]
    assert len({sha256_of(value) for value in values}) == len(values)
    assert sha256_of({"a": zeros.clone()}) == sha256_of({"a": zeros})
    assert sha256_of(torch.eye(3)[:, 0]) == sha256_of(torch.tensor([1.0, 0, 0]))


def _stop_after(steps: int) -> Callable[[str, float], None]:
    left = steps

    def watch(what: str, part: float) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Interrupted

    return watch

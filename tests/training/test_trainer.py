"""The loop: steps, schedules, losses, what the log says, and what stops a run."""

import copy
import csv
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.prune import identity as with_mask

from pcc.errors import PccError
from pcc.training.hints import Hints
from pcc.training.method import Method
from pcc.training.methods.train import Train
from pcc.training.processes import Processes
from pcc.training.recipe import Distillation, Training, parse_recipe
from pcc.training.resume import identity, load_progress
from pcc.training.steps import learning_rate, loss_of, make_optimizer
from pcc.training.teacher import teacher_of
from pcc.training.trainer import train
from tests.training.methods.loop import data, net, run

CPU = torch.device("cpu")
RECIPE = """
train: {batch: 48, lr: 0.1, weight_decay: 0}
structures: {conv2: {kernels: {patterns: designed, rate: 2}}, fc1: {unstructured: {rate: 4}}}
stages:
  - train: {epochs: 4, structures: {}}
  - admm: {epochs: 3, rhos: [0.1, 1]}
  - train: {epochs: 2, train: {lr: 0.02}}
"""


def at(schedule: str, *parts: float) -> list[float]:
    return [learning_rate(Training(lr=2.0, schedule=schedule), part) for part in parts]  # type: ignore[arg-type]


def test_schedules() -> None:
    assert at("constant", 0, 0.5, 0.99) == [2, 2, 2]
    assert at("cosine", 0, 0.25, 0.5, 1) == pytest.approx([2, 1 + math.sqrt(0.5), 1, 0])
    assert at("one-cycle", 0, 0.1, 0.2, 0.6, 1) == pytest.approx([0, 1, 2, 1, 0])


@pytest.mark.parametrize(
    ("name", "cls"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_weight_decay_is_for_weights(name: str, cls: type[torch.optim.Optimizer]) -> None:
    model = net()
    optimizer = make_optimizer(Train(model, {}, 1), Training(optimizer=name, weight_decay=0.1))  # type: ignore[arg-type]
    assert type(optimizer) is cls
    decayed, rest = optimizer.param_groups
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    assert [len(group["params"]) for group in (decayed, rest)] == [4, 6]


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_momentum_is_nesterovs(momentum: float) -> None:
    optimizer = make_optimizer(Train(net(), {}, 1), Training(momentum=momentum))
    assert {(group["momentum"], group["nesterov"]) for group in optimizer.param_groups} == {(momentum, momentum > 0)}


def test_the_teachers_opinion_is_in_the_loss() -> None:
    torch.manual_seed(0)
    scores, opinion, labels = torch.randn(5, 4), torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    settings = Training(label_smoothing=0.1, distill=Distillation(weight=0.25, temperature=3.0))
    targets = 0.9 * F.one_hot(labels, 4) + 0.1 / 4
    labelled = -(targets * scores.log_softmax(1)).sum(1).mean()
    teacher = (opinion / 3).softmax(1)
    divergence = (teacher * (teacher.log() - (scores / 3).log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(loss_of(settings, scores, labels, opinion), 0.75 * labelled + 0.25 * 9 * divergence)
    torch.testing.assert_close(loss_of(settings, scores, labels, None), labelled)
    alone = Training(distill=Distillation(weight=1.0))
    assert float(loss_of(alone, opinion, labels, opinion)) == pytest.approx(0, abs=1e-6)


DISTILLED = """
train: {batch: 48, lr: 0.1, weight_decay: 0, distill: {weight: 1}}
structures: {fc1: {unstructured: {rate: 8}}, conv2: {unstructured: {rate: 4}}}
stages: [{one-shot: }, {train: {epochs: 8}}]
"""


@pytest.mark.parametrize("others", [False, True], ids=["the model as it came in", "another"])
def test_a_student_learns_from(tmp_path: Path, *, others: bool) -> None:
    """Labels say nothing here, the weight of the teacher is 1: what the pruned student learns to agree with is the
    teacher."""
    teacher, student = net(), net()
    run(teacher, RECIPE.split("  - admm")[0], tmp_path / "teacher")
    if not others:
        student.load_state_dict(teacher.state_dict())
    outcome = train(
        student, data(), parse_recipe(DISTILLED), tmp_path, Processes(0, 1, CPU), teachers=[teacher] if others else []
    )
    losses = [row["loss"] for row in outcome.rows if "loss" in row]
    assert losses[-1] < losses[0] / 2
    x, _ = data().test_samples(torch.arange(80))
    with torch.no_grad():
        agreed = student.eval()(x).argmax(1) == teacher.eval()(x).argmax(1)
    assert float(agreed.float().mean()) > 0.9


def test_hints_bring_a_student_nearer_to_its_dense_self(tmp_path: Path) -> None:
    teacher = net()
    run(teacher, RECIPE.split("  - admm")[0], tmp_path / "teacher")
    apart = []
    for hints in (0, 1):
        student = copy.deepcopy(teacher)
        recipe = parse_recipe(DISTILLED.replace("weight: 1}", f"weight: 1, hints: {hints}}}"))
        train(student, data(), recipe, tmp_path / str(hints), Processes(0, 1, CPU))
        x, _ = data().test_samples(torch.arange(80))
        with Hints(student.eval(), teacher.eval()) as seen:
            for model in (student, teacher):
                model(x)
            apart.append(float(seen.loss().detach()))
    assert 0 < apart[1] < 0.7 * apart[0]


def test_other_teachers_give_no_hints() -> None:
    recipe = parse_recipe(DISTILLED.replace("weight: 1}", "weight: 1, hints: 0.5}"))
    assert teacher_of(net(), recipe, []) is not None
    with pytest.raises(PccError, match="hints come from the network's own dense self: leave them or --teacher out"):
        teacher_of(net(), recipe, [net()])


def test_several_teachers_are_one() -> None:
    members = [net(), net()]
    teacher = teacher_of(net(), parse_recipe(DISTILLED), members)
    assert teacher
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    x, _ = data().test_samples(torch.arange(8))
    torch.testing.assert_close(teacher(x), (members[0].eval()(x) + members[1].eval()(x)) / 2)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    model = net()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    recipe = (
        "train: {batch: 240, lr: 0.5, momentum: 0, weight_decay: 0, schedule: constant, clip: 1e-3}\nstages: [{train: "
        "{epochs: 1}}]"
    )
    run(model, recipe, tmp_path)
    step = torch.cat([(value.detach() - before[name]).flatten() for name, value in model.named_parameters()]).norm()
    assert float(step) == pytest.approx(0.5e-3, rel=1e-3)


def test_a_run_and_its_log(tmp_path: Path) -> None:
    model, seen = net(), list[float]()
    outcome = train(
        model, data(), parse_recipe(RECIPE), tmp_path, Processes(0, 1, CPU), watch=lambda _, part: seen.append(part)
    )
    assert outcome.accuracy > 0.9
    assert [row["stage"] for row in outcome.rows] == [
        "as it came in",
        *["train"] * 4,
        *["admm"] * 3,
        "admm, done",
        *["train"] * 2,
    ]
    assert outcome.dense_accuracy == outcome.rows[4]["accuracy"] > 0.9
    assert outcome.epochs == 9
    assert outcome.rows[-1]["sparsity"] == pytest.approx(1 - (72 + 48 * 4 + 192 + 64) / (72 + 864 + 768 + 64))
    assert outcome.rows[6]["rho"] == 0.1
    assert seen == pytest.approx([step / 45 for step in range(1, 46)])
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["stage"] for row in rows] == [row["stage"] for row in outcome.rows]
    assert [float(row["accuracy"]) for row in rows] == [row["accuracy"] for row in outcome.rows]
    assert rows[0]["loss"] == ""
    assert len(list((tmp_path / "tensorboard").glob("events*"))) == 1


def test_a_run_starts_fresh_over_an_old_one(tmp_path: Path) -> None:
    run(net(), "train: {batch: 240}\nstages: [{train: {epochs: 2}}]", tmp_path)
    (tmp_path / "model.safetensors").write_text("the last good one")
    (tmp_path / "notes.txt").write_text("mine")
    run(net(), "train: {batch: 240}\nstages: [{train: {epochs: 1}}]", tmp_path)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3
    assert len(list((tmp_path / "tensorboard").glob("events*"))) == 1
    assert (tmp_path / "model.safetensors").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("batch", "message"),
    [(48, "the loss is nan in stage 2 (train, epoch 1 of 2, step 2)"), (240, "weights are not finite in stage 2")],
)
def test_a_loss_that_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, message: str) -> None:
    """In the middle of an epoch the next step's loss shows it, after the last step only the weights do."""

    def spoil(method: Train) -> None:
        if method.epochs == 2:
            method.model.get_parameter("fc2.weight").data.fill_(math.nan)

    monkeypatch.setattr(Train, "after_step", spoil)
    recipe = f"train: {{batch: {batch}}}\nstages: [{{train: {{epochs: 1}}}}, {{train: {{epochs: 2}}}}]"
    with pytest.raises(PccError) as error:
        run(net(), recipe, tmp_path)
    assert str(error.value).startswith(message)
    assert str(error.value).endswith("try a lower lr; what was saved after the epoch before is kept")
    progress = load_progress(tmp_path, identity(parse_recipe(recipe), data(), net(), None), CPU)
    assert (progress.stage, progress.epoch) == (1, 0)
    assert all(bool(value.isfinite().all()) for value in progress.start.values())
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            "structures: {conv3: {unstructured: {rate: 2}}}\nstages: [{one-shot: }]",
            "stage 1, one-shot: no convolution or linear layer is called 'conv3'",
        ),
        (RECIPE.replace("conv2: {kernels", "fc2: {kernels"), "stage 2, admm: layer fc2: "),
        (RECIPE + "  - train: {epochs: 1, train: {batch: 500}}", "stage 4, train: toy: a batch of 500"),
        (RECIPE.replace("rhos: [0.1, 1]", "rhos: [-1]"), "stage 2, admm: admm: rhos"),
        (
            RECIPE.replace("rate: 4", "rate: 1000"),
            "stage 2, admm: layer fc1: a rate of 1000 leaves less than one of its 768 weights",
        ),
    ],
)
def test_what_cannot_work_is_found_before_the_first_epoch(tmp_path: Path, recipe: str, message: str) -> None:
    folder = tmp_path / "out"
    with pytest.raises(PccError) as error:
        train(net(), data(), parse_recipe(recipe), folder, Processes(0, 1, CPU))
    assert message in str(error.value)
    assert not folder.exists()


def test_a_model_without_layers(tmp_path: Path) -> None:
    with pytest.raises(PccError, match="no convolution or linear layer"):
        run(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)), "stages: [{one-shot: }]", tmp_path)


def test_a_frozen_model_and_stages_without_epochs(tmp_path: Path) -> None:
    model = net().requires_grad_(False)
    outcome = run(
        model, "structures: {fc1: {unstructured: {rate: 4}}}\nstages: [{one-shot: }, {train: {epochs: 0}}]", tmp_path
    )
    assert int(model.fc1.weight.count_nonzero()) == 192
    assert outcome.epochs == 0
    assert outcome.dense_accuracy == outcome.rows[0]["accuracy"]


def test_methods_get_each_batch_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = list[tuple[int, ...]]()
    monkeypatch.setattr(Method, "take", lambda _, x, y: shapes.append((*x.shape, len(y))))
    run(net(), "train: {batch: 80}\nstages: [{train: {epochs: 1}}]", tmp_path)
    assert shapes == [(80, 1, 8, 8, 80)] * 3


class Heads(nn.Module):
    """Gives a second head's scores in training, as Inception does."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        scores = self.net(x)
        return (scores, scores) if self.training else scores


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.utils.parametrizations.weight_norm(nn.Linear(64, 4)), "its weight is computed from other tensors"),
        (with_mask(nn.Linear(64, 4), "weight"), "its weight is computed from other tensors"),
        (nn.Linear(64, 4).requires_grad_(False), "stage 1, train: every parameter is frozen"),
        (Heads(), "the network gives tuple for 2 inputs in training: training needs a row of class scores for each"),
    ],
)
def test_networks_that_cannot_be_trained(tmp_path: Path, model: nn.Module, message: str) -> None:
    module = model if isinstance(model, Heads) else nn.Sequential(nn.Flatten(), model)
    with pytest.raises(PccError) as error:
        train(
            module,
            data(),
            parse_recipe("train: {batch: 60}\nstages: [{train: {epochs: 1}}]"),
            tmp_path / "out",
            Processes(0, 1, CPU),
        )
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


class Unusual(nn.Module):
    """Depthwise and transposed convolutions, and a mask of infinities."""

    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(1, 4, 3, groups=1)
        self.last = nn.Conv2d(4, 4, 3, groups=4)
        self.up = nn.ConvTranspose2d(4, 4, 2)
        self.head = nn.Linear(4, 4)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf, 0.0, 0.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(self.last(self.depthwise(x).relu()).relu()).mean((2, 3))
        return self.head(x * self.mask.softmax(dim=0))


def test_zeros_of_every_convolution_stay_and_masks_may_be_infinite(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Unusual()
    with torch.no_grad():
        for layer in (model.last, model.up):
            layer.weight[:2] = 0
    run(model, "train: {batch: 60}\nstages: [{train: {epochs: 1}}]", tmp_path)
    for layer in (model.last, model.up):
        assert int(layer.weight.count_nonzero()) == layer.weight.numel() // 2


def test_classifiers_of_a_method_are_no_hints(tmp_path: Path) -> None:
    recipe = "train: {batch: 60, distill: {hints: 0.3}}\nstages: [{dcp: {epochs: 2, losses: 1, batches: 1, batch: 60}}]"
    assert run(net(), recipe, tmp_path).epochs == 2
    model = net()
    model.conv2.requires_grad_(False)
    with pytest.raises(PccError, match="dcp: layer conv2 is frozen"):
        run(model, recipe, tmp_path)


def test_every_epoch_of_every_stage_has_an_order_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = list[tuple[int, ...]]()
    monkeypatch.setattr(Method, "take", lambda _, x, y: orders.append(tuple(y.tolist())))
    for seed in (0, 1):
        stages = f"seed: {seed}\ntrain: {{batch: 240}}\nstages: [{{train: {{epochs: 2}}}}, {{train: {{epochs: 2}}}}]"
        run(net(), stages, tmp_path / str(seed))
    assert len(set(orders)) == len(orders) == 8


@pytest.mark.parametrize("failing", ["pcc.training.log.Board", "pcc.training.trainer.save_progress"])
def test_what_fails_before_the_first_epoch_leaves_nothing(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise PccError("cannot write it: No space left on device")

    monkeypatch.setattr(failing, full)
    recipe = parse_recipe("train: {batch: 240}\nstages: [{train: {epochs: 1}}]")
    with pytest.raises(PccError, match="No space left"):
        train(net(), data(), recipe, tmp_path / "a" / "b", Processes(0, 1, torch.device("cpu")))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float, tmp_path: Path) -> None:
    recipe = parse_recipe("train: {batch: 240, distill: {weight: 1}}\nstages: [{train: {epochs: 1}}]")
    bad = net()
    bad.fc1.weight.data[0, 0] = value
    with pytest.raises(PccError, match=r"^weights are not finite: fc1.weight"):
        train(bad, data(), recipe, tmp_path / "out", Processes(0, 1, torch.device("cpu")))
    with pytest.raises(PccError, match=r"^teacher: weights are not finite: members.0.fc1.weight"):
        train(net(), data(), recipe, tmp_path / "out", Processes(0, 1, torch.device("cpu")), teachers=[bad])
    assert not (tmp_path / "out").exists()

"""From names to a checkpoint: what is opened, what is checked, what a model costs."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pcc.errors import PccError
from pcc.frontend.checkpoint import load_weights
from pcc.models.cifar import vgg8
from pcc.sparsity.unstructured import Unstructured
from pcc.training.methods.one_shot import OneShot
from pcc.training.methods.unused_paths import UnusedPaths
from pcc.training.prune import check_folder, check_outputs, open_model, save_checkpoint
from pcc.training.recipe import Stage, parse_recipe, parse_structures
from pcc.training.report import layer_costs, total
from tests.training.methods.loop import data, net


def compressed(recipe: str) -> tuple[nn.Module, tuple[Stage, ...]]:
    model, stages = net(), parse_recipe(recipe).stages
    for stage in stages:
        list(OneShot(model, parse_structures(stage.structures)))
    return model, stages


def test_costs_by_layer() -> None:
    model, stages = compressed(
        "structures: {conv2: {kernels: {patterns: 4, rate: 2}}, fc1: {unstructured: {rate: 4}}}\nstages: [{one-shot: }]"
    )
    conv1, conv2, fc1, fc2 = layers = layer_costs(model, stages, (1, 8, 8))
    assert [(layer.name, layer.shape) for layer in layers] == [
        ("conv1", (8, 1, 3, 3)),
        ("conv2", (12, 8, 3, 3)),
        ("fc1", (16, 48)),
        ("fc2", (4, 16)),
    ]
    assert (conv1.structure, conv1.kept, conv1.data_bytes, conv1.index_bytes, conv1.data_and_index_rate) == (
        "dense",
        72,
        288,
        0,
        1,
    )
    assert (conv1.macs, conv1.kept_macs) == (72 * 64, 72 * 64)
    assert (conv2.structure, conv2.kept, conv2.data_bytes) == ("kernels{patterns=4x4, rate=2}", 48 * 4, 48 * 4 * 4)
    assert (conv2.macs, conv2.kept_macs, conv2.mac_rate) == (864 * 16, 192 * 16, 4.5)
    assert (fc1.structure, fc1.weight_rate, fc1.data_rate) == ("unstructured{rate=4}", 4, 4)
    assert 1 < fc1.data_and_index_rate < 4
    assert (fc2.macs, fc2.kept_macs) == (64, 64)
    everything = total(layers)
    assert (everything.weights, everything.kept, everything.macs) == (
        1768,
        72 + 192 + 192 + 64,
        72 * 64 + 864 * 16 + 768 + 64,
    )
    assert everything.weight_rate == pytest.approx(1768 / 520)


def test_zeros_and_values_of_different_stages_count_together() -> None:
    first, both = (
        "{one-shot: {structures: {fc1: {unstructured: {rate: 4}}}}}",
        "[{unstructured: {rate: 4}}, {levels: {bits: 4}}]",
    )
    model, stages = compressed(f"stages: [{first}, {{one-shot: {{structures: {{fc1: {both}}}}}}}]")
    changed = parse_recipe(f"stages: [{first}, {{one-shot: {{structures: {{fc1: {{levels: {{bits: 4}}}}}}}}}}]").stages
    fc1 = layer_costs(model, stages, (1, 8, 8))[2]
    assert (fc1.structure, fc1.weight_rate) == ("unstructured{rate=4} + levels{bits=4}", 4)
    assert fc1.data_rate > 24
    assert layer_costs(model, changed, (1, 8, 8))[2] == fc1


def test_what_no_recipe_names_is_detected() -> None:
    model = net()
    with torch.no_grad():
        model.fc1.weight.copy_(torch.from_numpy(Unstructured(16).project(model.fc1.weight.detach().numpy())))
    fc1 = layer_costs(model, (), (1, 8, 8))[2]
    assert (fc1.kept, fc1.data_bytes) == (48, 192)
    assert fc1.structure != "dense"
    stages = parse_recipe("structures: {fc1: {unstructured: {rate: 64}}}\nstages: [{one-shot: }]").stages
    assert layer_costs(model, stages, (1, 8, 8))[2] == fc1, "it has not the structure of the recipe"


def test_channels_of_filters_that_are_gone_count_with_them() -> None:
    recipe = parse_recipe(
        "structures: {conv1: {filter: {rate: 2}}, conv2: {filter: {rate: 3}}}\nstages: [{one-shot: }, {unused-paths: }]"
    )
    model = net()
    list(OneShot(model, parse_structures(recipe.stages[0].structures)))
    list(UnusedPaths(model, {}, data=data()))
    conv1, conv2, fc1, _ = layer_costs(model, recipe.stages, (1, 8, 8))
    assert (conv1.structure, conv1.kept) == ("filter{rate=2}", 36)
    assert (conv2.structure, conv2.kept, conv2.data_bytes) == (
        "filter{rate=3} + channel{rate=2}",
        4 * 4 * 9,
        4 * 4 * 4 * 9,
    )
    assert (fc1.structure, fc1.weight_rate) == ("channel{rate=3}", 3)


def test_structures_in_one_line() -> None:
    structures = parse_structures(
        {
            "a": {"filter": {"rate": 2}},
            "b": {"kernels": {"patterns": "designed"}},
            "c": [{"filter": {"rate": 1.5}}, {"unstructured": {"rate": 3}}],
        }
    )
    assert [str(structure) for structure in structures.values() if structure] == [
        "filter{rate=2}",
        "kernels{patterns=designed}",
        "filter{rate=1.5} + unstructured{rate=3}",
    ]


class Maps(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "toy has labels 0 to 3, but the network tells 3 classes apart"),
        (nn.Sequential(nn.Flatten(), nn.Linear(63, 4)), "the network cannot take an input of 1x8x8, as toy has: "),
        (Maps(), "the network gives 1x1x8x8 for one input: training needs a row of class scores"),
    ],
)
def test_networks_that_do_not_fit_the_data(model: nn.Module, message: str) -> None:
    with pytest.raises(PccError) as error:
        check_outputs(model, data())
    assert str(error.value).startswith(message)


def test_zoo_models_from_the_seed() -> None:
    model, again, third = (open_model("VGG-8", None, seed, None) for seed in (1, 1, 2))
    assert model.input_shape == (3, 32, 32)
    assert model.preprocessing is not None
    first, second, different = (next(opened.module.parameters()) for opened in (model, again, third))
    assert torch.equal(first, second)
    assert not torch.equal(first, different)
    with pytest.raises(PccError, match=r"--input-shape is for FILE\.py:factory; vgg8 takes 3x32x32"):
        open_model("vgg8", None, 0, (3, 32, 32))


def test_checkpoints_load_as_they_were(tmp_path: Path) -> None:
    model = vgg8().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.fc.weight = nn.Parameter(model.fc.weight.t().contiguous().t())
    save_checkpoint(model, tmp_path / "model.safetensors")
    again = vgg8()
    load_weights(again, tmp_path / "model.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PccError, match="cannot write"):
        save_checkpoint(model, tmp_path / "file" / "model.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        "log.csv",
        "report.json",
        "resume.pt",
        "model.safetensors",
        "model.onnx",
        "tensorboard/events.out.tfevents.mine",
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_is_no_runs(name: str, resume: bool, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "tensorboard").mkdir()
    check_folder(tmp_path, "net.onnx", resume)  # nothing is in the way
    (tmp_path / name).write_text("stage,mine\n1,2\n")
    with pytest.raises(PccError, match=f"{name} is in the way, and not of a run of pcc prune: choose another folder"):
        check_folder(tmp_path, "net.onnx", resume)
    if name == "model.onnx":
        check_folder(tmp_path, "net.pt2", resume)

"""Our definitions against published facts: parameter counts, key names, output shapes; and seeded weights."""

from pathlib import Path

import pytest
import torch

from pcc import models
from pcc.errors import PccError

PARAMETERS = {
    "lenet5": 431_080,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vgg16-features": 14_714_688,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnet50-v1.5": 25_557_032,
    "mobilenet_v2": 3_504_872,
    "efficientnet_lite0": 4_652_008,
    "resnet20": 272_474,
    "vgg8": 1_166_506,
    "vgg8-pruned": 1_166_506,
    "vgg16_cifar": 14_724_042,
}
"""As torchvision, Caffe and TensorFlow count them; CIFAR-10's by hand."""

KEYS = {
    "vgg16": {"features.28.weight", "classifier.6.bias"},
    "vgg16_bn": {"features.41.running_var", "classifier.3.weight"},
    "resnet18": {"layer2.0.downsample.1.running_mean", "layer4.1.conv2.weight", "fc.bias"},
    "resnet50": {"layer1.0.downsample.0.weight", "layer3.5.bn3.weight", "conv1.weight"},
    "mobilenet_v2": {
        "features.1.conv.0.0.weight",
        "features.17.conv.3.running_var",
        "features.18.1.bias",
        "classifier.1.weight",
    },
    "efficientnet_lite0": {"_conv_stem.weight", "_blocks.15._project_conv.weight", "_bn1.running_mean", "_fc.bias"},
    "resnet20": {
        "conv1.weight",
        "layer1.0.conv1.weight",
        "layer2.0.downsample.0.weight",
        "layer3.2.bn2.running_var",
        "fc.bias",
    },
    "vgg8": {"features.0.weight", "features.4.weight", "features.22.running_mean", "fc.weight"},
    "vgg16_cifar": {"features.40.weight", "features.41.running_var", "fc.bias"},
}


@pytest.fixture(scope="module")
def meta_models() -> dict[str, torch.nn.Module]:
    with torch.device("meta"):
        return {name: models.entry(name).factory() for name in models.names()}


def test_every_zoo_model_is_checked_here() -> None:
    assert set(PARAMETERS) == set(models.names())


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_and_output_shape(name: str, meta_models: dict[str, torch.nn.Module]) -> None:
    model, entry = meta_models[name].eval(), models.entry(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    _, *rest = entry.input_shape
    output = model(torch.empty(2, *rest, device="meta"))
    expected = (2, 512, 7, 7) if entry.labels is None else (2, len(entry.labels()))
    assert output.shape == expected


@pytest.mark.parametrize("name", KEYS)
def test_key_names(name: str, meta_models: dict[str, torch.nn.Module]) -> None:
    assert KEYS[name] <= set(meta_models[name].state_dict())


def test_resnet50_variants_differ_in_where_the_stride_is(meta_models: dict[str, torch.nn.Module]) -> None:
    for name, strides in (("resnet50", [(2, 2), (1, 1)]), ("resnet50-v1.5", [(1, 1), (2, 2)])):
        block = meta_models[name].get_submodule("layer2.0")
        assert [block.get_submodule(f"conv{i}").stride for i in (1, 2)] == strides


@pytest.mark.parametrize("size", [32, 33, 47])
def test_efficientnet_pads_so_that_sizes_are_rounded_up(size: int) -> None:
    from pcc.models.efficientnet_lite import SameConv2d

    for kernel, stride in ((3, 2), (5, 2), (3, 1), (1, 1)):
        assert SameConv2d(1, 1, kernel, stride)(torch.zeros(1, 1, size, size)).shape[2:] == (-(-size // stride),) * 2


def test_seeded_weights_are_the_same_every_time() -> None:
    first, second = (models.create("mobilenet_v2", None) for _ in range(2))
    assert not first.training
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "lenet5", "resnet20", "vgg8"])
def test_seeded_activations_keep_their_size(name: str) -> None:
    model, entry = models.create(name, None), models.entry(name)
    with torch.no_grad():
        spread = model(torch.randn(entry.input_shape, generator=torch.Generator().manual_seed(1))).std().item()
    assert 0.05 < spread < 20


def test_names_are_forgiving_and_errors_helpful() -> None:
    assert models.entry("ResNet-50") is models.entry("resnet50")
    assert models.entry("mobilenetv2").name == "mobilenet_v2"
    with pytest.raises(PccError, match=r"no model 'resnet52' in the zoo: did you mean resnet50"):
        models.entry("resnet52")
    with pytest.raises(PccError, match="choose one of lenet5"):
        models.create("zzz")


@pytest.mark.parametrize("name", [name for name in PARAMETERS if models.entry(name).weights is None])
def test_models_without_weights_say_so(name: str) -> None:
    with pytest.raises(PccError, match=f"{name} has no trained weights: ") as caught:
        models.create(name)
    assert "\n" not in str(caught.value)


def test_weights_of_another_data_set_are_not_called_imagenets() -> None:
    with pytest.raises(
        PccError, match=r"vgg8-pruned was trained on CIFAR-10, not on ImageNet: its weights are 'trained', the default$"
    ):
        models.create("vgg8-pruned", "imagenet")


def test_a_checkpoint_file_is_loaded(tmp_path: Path) -> None:
    state = models.create("lenet5", None).state_dict()
    state["conv1.bias"] += 1
    torch.save(state, tmp_path / "w.pt")
    assert torch.equal(models.create("lenet5", tmp_path / "w.pt").state_dict()["conv1.bias"], state["conv1.bias"])
    with pytest.raises(PccError, match="do not fit MobileNetV2"):
        models.create("mobilenet_v2", str(tmp_path / "w.pt"))

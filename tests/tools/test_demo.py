"""The demo's pruned ImageNet rows come from weights that were fitted, on photos that are not counted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from pcc.models import entry
from pcc.models.photos import PACKAGE as COUNTED
from pcc.training.layers import bind
from pcc.training.methods.one_shot import OneShot
from tools import demo, demo_reconstruct, unlabelled


def test_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[tuple[str, ...]] = []

    def compiles(package: Path, network: str, *options: str) -> Path:
        commands.append((network, *options))
        return package

    fitted: list[Path] = []
    monkeypatch.setattr(demo, "run_compile", compiles)
    monkeypatch.setattr(demo, "fit_pruned", lambda path: fitted.append(path) or path)
    packages = {name: demo.make_packages(name) for name in demo.NETWORKS}
    assert {name: list(files) for name, files in packages.items()} == {
        "mobilenet_v2": ["dense"],
        "resnet50": ["dense", demo_reconstruct.STRUCTURE],
    }
    assert commands == [("mobilenet_v2",), ("resnet50",), ("resnet50", "--weights", str(fitted[0]))]
    assert len({*packages["resnet50"].values()}) == 2


def test_the_layers_that_the_table_names() -> None:
    layers = bind(entry(demo_reconstruct.NETWORK).factory(), demo_reconstruct.STRUCTURES)
    assert f"in {len(layers)} layers" in demo_reconstruct.STRUCTURE
    assert {layer.weight.shape[2:] for layer in layers} == {(1, 1), (3, 3)}
    assert not any(layer.name.startswith("layer4") for layer in layers)


def test_samples_are_not_the_photos_that_are_counted() -> None:
    assert unlabelled.PACKAGE.name != COUNTED.name


class Small(nn.Module):
    """The names of a ResNet's first and last stage."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 4, 1)
        self.layer1 = nn.Conv2d(8, 16, 3, 2, 1)
        self.layer4 = nn.ModuleDict({"conv": nn.Conv2d(16, 8, 3, 2, 1)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer4["conv"](self.layer1(self.conv1(x).relu()).relu())


def test_the_checkpoint_is_fitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Structure where it should be, and outputs nearer to the dense network's than one shot leaves them."""
    torch.manual_seed(0)
    dense, one_shot, found = Small().eval(), Small().eval(), Small().eval()
    one_shot.load_state_dict(dense.state_dict())
    OneShot(one_shot, demo_reconstruct.STRUCTURES).finish()
    random = np.random.default_rng(0)
    images = [
        Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize(
            (256, 256), Image.Resampling.BICUBIC
        )
        for _ in range(4)
    ]
    module = Small().eval()
    module.load_state_dict(dense.state_dict())
    monkeypatch.setattr(demo_reconstruct, "create", lambda name: module)
    monkeypatch.setattr(demo_reconstruct, "other_photos", lambda: unlabelled.OtherPhotos(images, []))
    monkeypatch.setattr(demo_reconstruct, "SAMPLES", 8)

    found.load_state_dict(load_file(demo_reconstruct.fit_pruned(tmp_path / "new" / "pruned.safetensors")))
    kept = found.layer1.weight.count_nonzero(dim=(2, 3))
    assert set(kept.unique().tolist()) == {0, 4}
    assert torch.equal(found.conv1.weight, dense.conv1.weight)
    assert torch.equal(found.get_parameter("layer4.conv.weight"), dense.get_parameter("layer4.conv.weight"))
    x = torch.from_numpy(np.concatenate([entry("resnet50").preprocessing.apply(image) for image in images]))
    with torch.no_grad():
        wanted = dense(x)
        fitted_error, one_shot_error = ((network(x) - wanted).square().mean() for network in (found, one_shot))
    assert fitted_error < 0.7 * one_shot_error

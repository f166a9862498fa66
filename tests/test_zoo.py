"""Every zoo network, dense and pruned, compiled for x86-64 and arm64 in one package and compared with PyTorch: the
whole path, at real sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pcc
from pcc.deploy import Qemu
from pcc.models import create, entry
from pcc.package import open_package
from pcc.target import TARGETS, host_cpu, target_named
from tests.arm64 import arm64

TRAINED = ("mobilenet_v2", "efficientnet_lite0", "resnet50")
UNTRAINED = ("lenet5", "resnet18", "vgg16")
TOLERANCE = 1e-4


def networks(*slow: str) -> list[Any]:
    """All of them, some as slow ones: they have minutes of work."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in (*TRAINED, *UNTRAINED)]


def module_and_input(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    module = create(name, weights="imagenet" if name in TRAINED else None)
    return module, torch.randn(entry(name).input_shape, generator=torch.Generator().manual_seed(1))


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("name", networks("vgg16", "resnet50"))
def test_dense_network_agrees_with_pytorch(name: str, tmp_path: Path) -> None:
    module, x = module_and_input(name)
    cpus = {"x86-64-v3", host_cpu()}
    with torch.no_grad():
        wanted = module(x).numpy()
    for cpu in sorted(cpus):
        is_verified = cpu == host_cpu()  # the graph is the same for both
        target = target_named("x86_64-linux", cpu)
        report = pcc.compile(module, [x], tmp_path / cpu, target=target, name=name, verify_each=is_verified)
        for threads in (1, 2):
            with pcc.load(report.package, threads=threads) as model:
                assert relative_error(model(x.numpy()), wanted) < TOLERANCE


@arm64
@pytest.mark.parametrize("name", networks("vgg16", "resnet50", "resnet18"))
def test_dense_network_agrees_with_pytorch_on_arm64(name: str, tmp_path: Path) -> None:
    module, x = module_and_input(name)
    with torch.no_grad():
        wanted = module(x).numpy()
    report = pcc.compile(module, [x], tmp_path / "package", target="aarch64-linux", name=name)
    (got,) = Qemu("cortex-a53").run(open_package(report.package), [x.numpy()], threads=2)
    assert relative_error(got, wanted) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "prune"),
    [
        ("mobilenet_v2", "pattern,connectivity"),
        pytest.param("resnet18", "pattern,connectivity{share=4,rate=2}", marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", "pattern,connectivity{share=4,rate=2}", marks=pytest.mark.slow),
        pytest.param("resnet18", "pattern,connectivity", marks=pytest.mark.slow),
    ],
)
def test_pruned_network_agrees_with_its_graph(name: str, prune: str, tmp_path: Path) -> None:
    """The package's own self-test holds what the pruned graph gives in PyTorch."""
    module, x = module_and_input(name)
    targets = [target_named("x86_64-linux", "native"), TARGETS["aarch64-linux"]]
    report = pcc.compile(module, [x], tmp_path / "package", target=targets, name=name, prune=prune, verify_each=True)
    assert any(family.startswith("conv-sparse") for family in report.targets[0].families)
    package = open_package(report.package)
    noise = np.fromfile(package.file("selftest/input_0.bin"), np.float32).reshape(x.shape)
    wanted = np.fromfile(package.file("selftest/output_0.bin"), np.float32).reshape(report.manifest.outputs[0].shape)
    with pcc.load(report.package) as model:
        assert relative_error(model(noise), wanted) < TOLERANCE
    if Qemu.missing() is None and name == "mobilenet_v2":
        (got,) = Qemu("cortex-a76").run(package, [noise], threads=2)
        assert relative_error(got, wanted) < TOLERANCE

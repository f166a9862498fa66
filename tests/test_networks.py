"""Networks as people write them, a kind each, through the whole path: compiled for x86-64 and arm64, and compared with
PyTorch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import pcc
from pcc.deploy import Qemu
from pcc.package import open_package
from pcc.target import host_cpu, target_named
from tests.arm64 import arm64
from tests.public import KINDS, make

TOLERANCE = 2e-5

QUICK = ("mobile_vit", "unet", "crnn", "temporal_shift", "yolo", "bert", "tracker", "segnet")
"""Run each time; the others are marked slow."""

EMULATED = (
    "mobile_vit",
    "dcgan",
    "style_transfer",
    "spatial_transformer",
    "centernet",
    "crnn",
    "clip_text",
    "detr",
    "segnet",
    "siren",
    "gem",
    "suppressed",
)

EVERY = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in KINDS]


def expected(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> list[np.ndarray]:
    with torch.no_grad():
        values = module(*inputs)
    return [value.numpy() for value in (values if isinstance(values, tuple) else (values,))]


def arrays(inputs: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """Truth values are bytes to a library."""
    return [x.to(torch.uint8).numpy() if x.dtype == torch.bool else x.numpy() for x in inputs]


def check(got: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for value, want in zip(got, wanted, strict=True):
        assert value.shape == want.shape
        assert value.dtype == (np.uint8 if want.dtype == bool else want.dtype)
        assert np.abs(value.astype(np.float64) - want).max() <= TOLERANCE * max(1e-6, np.abs(want).max())


class WholeNumbers(torch.nn.Module):
    """Sums keep the type that is asked for; what divides may not be 0 in the samples that pcc makes up."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.cumsum(1, dtype=torch.int32), torch.div(x, y, rounding_mode="trunc")


def test_whole_numbers(tmp_path: Path) -> None:
    inputs = torch.tensor([[5, -7, 9]], dtype=torch.int32), torch.tensor([[2, 3, -4]], dtype=torch.int32)
    pcc.compile(WholeNumbers(), inputs, tmp_path / "net")
    check(list(pcc.load(tmp_path / "net")(*arrays(inputs))), expected(WholeNumbers(), inputs))


@pytest.mark.parametrize("name", EVERY)
def test_network_agrees_with_pytorch(name: str, tmp_path: Path) -> None:
    module, inputs = make(name)
    report = pcc.compile(
        module,
        inputs,
        tmp_path / "package",
        target=target_named("x86_64-linux", host_cpu()),
        name=name,
        verify_each=True,
    )
    with pcc.load(report.package, threads=2) as model:
        values = model(*arrays(inputs))
    check(list(values) if isinstance(values, tuple | list) else [values], expected(module, inputs))


@arm64
@pytest.mark.slow
@pytest.mark.parametrize("name", EMULATED)
def test_network_agrees_with_pytorch_on_arm64(name: str, tmp_path: Path) -> None:
    module, inputs = make(name)
    report = pcc.compile(module, inputs, tmp_path / "package", target="aarch64-linux", name=name)
    check(Qemu("cortex-a53").run(open_package(report.package), arrays(inputs), threads=2), expected(module, inputs))


def test_pruned_transposed_convolutions_run_sparse_kernels(tmp_path: Path) -> None:
    """Each phase of the output is a convolution of its own, which connectivity pruning and kernel selection treat as
    others."""
    torch.manual_seed(0)
    module, x = torch.nn.ConvTranspose2d(48, 32, 6, 2, 2), torch.randn(1, 48, 40, 40)
    report = pcc.compile(
        module,
        [x],
        tmp_path / "package",
        target=target_named("x86_64-linux", host_cpu()),
        name="up",
        prune="pattern{spare_first=false},connectivity{rate=6,spare_first=false}",
    )
    calls = report.manifest.targets[0].calls  # of a dense kernel all multiply-adds count; kept is one in 13.5
    assert 0 < 13 * sum(call.macs for call in calls) < sum(call.dense_macs for call in calls)
    with pcc.load(report.package, threads=1) as model:
        noise = np.fromfile(open_package(report.package).file("selftest/input_0.bin"), np.float32).reshape(x.shape)
        wanted = np.fromfile(open_package(report.package).file("selftest/output_0.bin"), np.float32)
        largest = float(np.abs(wanted).max())
        np.testing.assert_allclose(np.asarray(model(noise)).ravel(), wanted, rtol=0, atol=TOLERANCE * largest)


FP16_TOLERANCE = 1e-2
"""Of values that went through tens of layers in fp16, to the largest: 20 units of 2^-11."""

IN_FP16 = ("mobile_vit", "crnn", "clip_text", "detr", "segnet", "spatial_transformer", "gem", "suppressed")
"""With softmax, layer norms, places that are computed, recurrence; `mobile_vit` runs each time."""


@arm64
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "mobile_vit" else [pytest.mark.slow]) for name in IN_FP16]
)
def test_network_in_fp16_agrees_with_pytorch_on_arm64(name: str, tmp_path: Path) -> None:
    module, inputs = make(name)
    target = target_named("aarch64-linux", "cortex-a76")
    report = pcc.compile(module, inputs, tmp_path / "package", target=target, name=name, dtype="fp16", verify_each=True)
    (verified,) = (each for each in report.verified if not each.exact)
    assert 0 < verified.error <= FP16_TOLERANCE
    values = Qemu("cortex-a76").run(open_package(report.package), arrays(inputs), threads=2)
    for value, want in zip(values, expected(module, inputs), strict=True):
        assert value.dtype == want.dtype
        assert np.abs(value.astype(np.float64) - want).max() <= FP16_TOLERANCE * np.abs(want).max()


@arm64
def test_ports_in_fp16(tmp_path: Path) -> None:
    """Header, manifest, self-test and runner have what the library takes and gives."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 49, 5)
    ).eval()
    image = torch.randn(1, 3, 7, 7).half()
    target = target_named("aarch64-linux", "cortex-a76")
    report = pcc.compile(
        module, [image.float()], tmp_path / "package", target=target, dtype="fp16", port_dtype="fp16", verify_each=True
    )
    assert [port.dtype for port in (*report.manifest.inputs, *report.manifest.outputs)] == ["float16", "float16"]
    device, package = Qemu("cortex-a76"), open_package(report.package)
    (scores,) = device.run(package, [image.numpy()])
    assert scores.dtype == np.float16
    (want,) = expected(module, [image.float()])
    assert np.abs(scores - want).max() <= FP16_TOLERANCE * np.abs(want).max()
    assert device.selftest(package).passed

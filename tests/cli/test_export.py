"""``pcc export``, and ``pcc compile`` of what it wrote."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from pcc.cli.shapes import InputShape
from pcc.cli.source import open_source
from tests.cli.conftest import FACTORY, SHAPE
from tests.frontend.onnx.models import run_onnxruntime


@pytest.fixture
def factory(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(FACTORY)
    return f"{tmp_path / 'net.py'}:make"


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_export_then_compile_then_run(pcc, factory: str, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"small-net.{suffix}"
    exported = pcc("export", factory, "--input-shape", f"x={SHAPE}", "-o", file)
    assert exported.status == 0, exported.err
    assert exported.out.startswith(f"{file}: ")
    assert "inputs x 2x3x13x11; outputs output" in exported.out
    compiled = pcc("compile", file, "-o", tmp_path / "package", "--verify-each", "--json")
    assert compiled.status == 0, compiled.err
    assert json.loads(compiled.out)["name"] == "small-net"
    x = torch.randn(2, 3, 13, 11, generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "x.npy", x.numpy())
    assert pcc("run", tmp_path / "package", "--input", tmp_path / "x.npy", "-o", tmp_path / "y.npy").status == 0
    with torch.no_grad():
        expected = open_source(factory, None, (InputShape(None, (2, 3, 13, 11)),)).model(x).numpy()
    assert np.abs(np.load(tmp_path / "y.npy") - expected).max() < 1e-5
    if suffix == "onnx":
        assert np.abs(run_onnxruntime(file, (x,))[0].numpy() - expected).max() < 1e-5
    notes = json.loads((tmp_path / "package" / "manifest.json").read_text())["notes"]
    assert notes["origin"].startswith(f"small-net.{suffix} (")


def test_pruning_comes_first(pcc, factory: str, tmp_path: Path) -> None:
    outcome = pcc(
        "export",
        factory,
        "--input-shape",
        SHAPE,
        "--prune",
        "connectivity{rate=4,spare_first=false}",
        "-o",
        tmp_path / "net.safetensors",
        "--json",
    )
    assert outcome.status == 0, outcome.err
    assert "prune-connectivity{rate=4" in json.loads(outcome.out)["pipeline"]
    from safetensors.numpy import load_file

    connections = load_file(tmp_path / "net.safetensors")["conv2.weight"].reshape(-1, 9)
    assert 0.1 < np.mean(connections.any(axis=1)) < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input-shape", SHAPE, "-o", "net.tflite"], "give a file that ends in .onnx, .pt2, .safetensors"),
        (["--input-shape", f"y={SHAPE}", "-o", "net.onnx"], "example inputs y do not fit forward(x)"),
        (
            ["--input-shape", SHAPE, "--input-shape", f"x={SHAPE}", "-o", "net.onnx"],
            "give all shapes by name, or all in order",
        ),
        (["--input-shape", f"x={SHAPE}", "--input-shape", f"x={SHAPE}", "-o", "net.onnx"], "x has two shapes"),
        (
            ["--input-shape", SHAPE, "-p", "canonicalize,plan-memory", "-o", "net.onnx"],
            "plan-memory works on the kernel program",
        ),
    ],
)
def test_wrong_use_is_one_line(
    pcc, factory: str, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in pcc("export", factory, *arguments).error
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".onnx", ".tflite")] == []


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("net.onnx", b"no model", [], "net.onnx' is no ONNX file, or it is damaged"),
        ("net.pt2", b"no model", [], "net.pt2' is no archive of torch.export.save, or it is damaged"),
        ("net.onnx", b"", ["--weights", "none"], "--weights none is for modules"),
        ("gone.onnx", None, [], "gone.onnx': there is no such file"),
    ],
)
def test_files_that_are_no_models(
    pcc, name: str, content: bytes | None, options: list[str], message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for command in (["compile", "-o", tmp_path / "package"], ["export", "-o", tmp_path / "copy.onnx"]):
        assert message in pcc(*command, tmp_path / name, *options).error
    assert not (tmp_path / "package").exists()
    assert not (tmp_path / "copy.onnx").exists()


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".safetensors"])
def test_a_disk_that_is_full(pcc, factory: str, suffix: str, tmp_path: Path) -> None:
    """PyTorch would end the process. What was there before stays."""
    path = tmp_path / "out" / f"net{suffix}"
    path.parent.mkdir()
    path.write_text("older")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        outcome = pcc("export", factory, "--input-shape", "1,3,9,9", "-o", path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert outcome.error.startswith(f"cannot write '{path}': File too large")
    assert [(file.name, file.read_text()) for file in path.parent.iterdir()] == [(path.name, "older")]


def test_the_checkpoint_that_is_read_is_not_written_over(pcc, tmp_path: Path) -> None:
    assert pcc("export", "lenet5", "--weights", "none", "-o", tmp_path / "net.safetensors").status == 0
    before = (tmp_path / "net.safetensors").read_bytes()
    for weights in (tmp_path / "net.safetensors", f"{tmp_path / 'net.safetensors'}:model"):
        arguments = ["export", "lenet5", "--weights", weights, "-o", tmp_path / "net.safetensors"]
        assert "would be written over" in pcc(*arguments).error
    assert (tmp_path / "net.safetensors").read_bytes() == before

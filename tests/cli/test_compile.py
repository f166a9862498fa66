"""A small network of a user's own, from the command line to the numbers, on this machine and on an emulated one."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassResult

from pcc.cli.shapes import InputShape
from pcc.cli.source import open_source
from pcc.ir.graph import constant
from pcc.passes.fold_batchnorm import FoldBatchnorm
from pcc.passes.registry import pass_names
from tests.arm64 import arm64
from tests.cli.conftest import SCRIPT, SHAPE


@pytest.fixture(scope="session")
def package(factory: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network for this machine and for arm64, compiled once."""
    from pcc.cli.app import run

    path = tmp_path_factory.mktemp("package") / "net"
    targets = ["--target", "x86_64-linux", "--target", "aarch64-linux"]
    assert run(["compile", factory, "--input-shape", SHAPE, "-o", str(path), *targets]) == 0
    return path


@pytest.fixture
def arrays(factory: str, tmp_path: Path) -> tuple[Path, np.ndarray]:
    """An input file and what PyTorch makes of it."""
    x = torch.randn(2, 3, 13, 11, generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "x.npy", x.numpy())
    with torch.no_grad():
        y = open_source(factory, None, (InputShape(None, (2, 3, 13, 11)),)).model.double()(x.double())
    return tmp_path / "x.npy", y.numpy()


def assert_close(path: Path, expected: np.ndarray) -> None:
    found = np.load(path)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_run_on_this_machine(pcc, package: Path, arrays: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    outcome = pcc("run", package, "--input", arrays[0], "-o", tmp_path / "y.npy")
    assert (outcome.status, outcome.err) == (0, "")
    assert_close(tmp_path / "y.npy", arrays[1])


@arm64
@pytest.mark.parametrize("cpu", [[], ["--cpu", "cortex-a53"]])
def test_run_on_an_emulated_machine(
    pcc, package: Path, arrays: tuple[Path, np.ndarray], tmp_path: Path, cpu: list[str]
) -> None:
    outcome = pcc("run", package, "--input", arrays[0], "-o", tmp_path / "y.npy", "--device", "qemu", *cpu)
    assert (outcome.status, outcome.err) == (0, "")
    assert_close(tmp_path / "y.npy", arrays[1])


def test_run_prints_the_best_classes_on_demand(pcc, package: Path, arrays: tuple[Path, np.ndarray]) -> None:
    outcome = pcc("run", package, "--input", arrays[0], "--top", 2, "--json")
    classes = json.loads(outcome.out)["classes"]
    assert [len(best) for best in classes] == [2, 2]
    assert [best[0]["index"] for best in classes] == list(arrays[1].argmax(axis=1))


def test_run_without_labels_describes_the_output(pcc, package: Path, arrays: tuple[Path, np.ndarray]) -> None:
    assert "(2, 4): min" in pcc("run", package, "--input", arrays[0]).out


def test_bench(pcc, package: Path) -> None:
    report = json.loads(pcc("bench", package, "--threads", 2, "--warmup", 1, "--runs", 4, "--json", "--profile").out)
    assert 0 < report["min"] <= report["p10"] <= report["median"] <= report["p90"]
    assert report["threads"] == 2
    assert sum(layer["share"] for layer in report["layers"]) == pytest.approx(1)
    macs = [layer["macs"] for layer in report["layers"] if layer["macs"]]
    assert macs == [2 * 8 * 3 * 9 * 7 * 6, 2 * 8 * 8 * 9 * 7 * 6, 2 * 8 * 4]
    families = [layer["choice"]["family"] for layer in report["layers"] if layer["choice"]]
    assert [family.removesuffix("-interleaved") for family in families] == ["conv-dense", "conv-dense", "linear"]


def test_bench_for_people(pcc, package: Path) -> None:
    outcome = pcc("bench", package, "--runs", 2, "--profile")
    assert outcome.status == 0
    assert "median" in outcome.out
    assert "kept MMACs" in outcome.out


def test_compile_report(pcc, factory: str, tmp_path: Path) -> None:
    outcome = pcc("compile", factory, "--input-shape", SHAPE, "-o", tmp_path / "net", "--json")
    report = json.loads(outcome.out)
    assert report["name"] == "make"
    assert report["targets"][0]["arena_bytes"] >= report["targets"][0]["arena_lower_bound"] > 0
    assert {"fold-batchnorm", "select-kernels"} <= set(report["steps"])
    manifest = json.loads((tmp_path / "net" / "manifest.json").read_text())
    assert report["targets"][0]["layers"] == manifest["targets"][0]["layers"]


def test_pruned_and_dumped(pcc, factory: str, tmp_path: Path) -> None:
    options = [
        "--prune",
        "pattern,connectivity{rate=2}",
        "--dump-ir",
        tmp_path / "ir",
        "--verify-each",
        "--time-passes",
        "--print-ir-after",
        "prune-pattern",
    ]
    outcome = pcc("compile", factory, "--input-shape", SHAPE, "-o", tmp_path / "net", *options)
    assert outcome.status == 0, outcome.err
    assert outcome.out.count("// after prune-pattern\n") == 1
    printed = outcome.out.split("// after prune-pattern\n")[1]
    assert "pruned(kernels{patterns=" in printed.split("// after")[0]
    for step in ("import", "prune-pattern", "kernels", "package", "total"):
        assert re.search(rf"^{step} +\d+\.\d\d +\d+%", outcome.out, re.M), step
    assert re.search(r"^prune-pattern +lossy +[1-9]", outcome.out, re.M), "what pruning costs"
    assert re.search(r"^fold-batchnorm +exact +(0|\d\.\de-0[5-9])", outcome.out, re.M)
    stages = [path.name for path in (tmp_path / "ir").glob("*.txt")]
    assert any(name.endswith("_prune-pattern.txt") for name in stages)
    assert "call" in next((tmp_path / "ir").rglob("program.txt")).read_text()
    assert all(text.stat().st_size for text in (tmp_path / "ir").rglob("kernels/*"))


def test_precision_on_the_command_line(pcc, factory: str, tmp_path: Path) -> None:
    options = ["--input-shape", SHAPE, "--json", "--target", "aarch64-linux"]
    half = ["--cpu", "cortex-a76", "--dtype", "fp16", "--port-dtype", "fp16"]
    assert pcc("compile", factory, "-o", tmp_path / "half", *options, *half).status == 0
    manifest = json.loads((tmp_path / "half" / "manifest.json").read_text())
    assert [port["dtype"] for port in manifest["inputs"] + manifest["outputs"]] == ["float16", "float16"]
    weights = {}
    for dtype in ("fp32", "fp16"):
        outcome = pcc("compile", factory, "-o", tmp_path / dtype, *options, "--weight-dtype", dtype)
        layers = json.loads(outcome.out)["targets"][0]["layers"]
        weights[dtype] = {layer["layer"]: layer["calls"][-1]["weight_bytes"] for layer in layers if layer["calls"]}
    assert weights["fp16"]["fc"] < 0.6 * weights["fp32"]["fc"]
    assert weights["fp16"]["conv2"] == weights["fp32"]["conv2"]


def test_layers_left_to_the_processor_on_the_command_line(pcc, factory: str, tmp_path: Path) -> None:
    options = ["--input-shape", SHAPE, "-o", tmp_path / "net", "--on-cpu", "fc,conv1"]
    assert "add --gpu" in pcc("compile", factory, *options).error
    outcome = pcc("compile", factory, *options, "--gpu", "opencl", "--json")
    assert outcome.status == 0, outcome.err
    layers = json.loads(outcome.out)["targets"][0]["gpu"]["programs"][0]["layers"]
    asked = {layer["layer"] for layer in layers if layer["on_processor"] and layer["on_processor"]["asked"]}
    assert asked == {"fc", "conv1"}


def test_report_on_the_command_line(pcc, factory: str, tmp_path: Path) -> None:
    options = ["--input-shape", SHAPE, "-o", tmp_path / "net"]
    assert pcc("compile", factory, *options, "--report", tmp_path / "net.html").status == 0
    page = (tmp_path / "net.html").read_text()
    assert "<h2>Layers</h2>" in page
    assert "conv2" in page


def test_what_is_verified(pcc, factory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass where nothing is pruned, unless that is not wished for."""
    command = ["compile", factory, "--input-shape", SHAPE, "-o", tmp_path / "net"]
    assert re.search(r"verified: after each of \d+ passes", pcc(*command).out)
    for options in (["--no-verify"], ["--prune", "connectivity"]):
        assert "verified:" not in pcc(*command, *options).out

    def wrong(step: FoldBatchnorm, graph_module: GraphModule) -> PassResult:
        result = fold(step, graph_module)
        for node in result.graph_module.graph.find_nodes(op="get_attr"):
            constant(node).mul_(1.5)
        return result

    fold = FoldBatchnorm.__call__
    monkeypatch.setattr(FoldBatchnorm, "__call__", wrong)
    assert "fold-batchnorm changed what the graph computes" in pcc(*command).error
    assert pcc(*command, "--no-verify").status == 0


def test_passes_and_targets_are_listed(pcc) -> None:
    assert {step["pass"] for step in json.loads(pcc("passes", "--json").out)["passes"]} == set(pass_names())
    assert {"x86_64-linux", "aarch64-linux", "aarch64-android"} == {
        target["target"] for target in json.loads(pcc("targets", "--json").out)
    }


def test_pruning_that_prunes_nothing_says_so(pcc, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\ndef mlp(): return nn.Sequential(nn.Flatten(), nn.Linear(300, 4))\ndef one(): return "
        "nn.Sequential(nn.Conv2d(3, 8, 3))\n"
    )
    spared = "the first convolution is spared (spare_first=false prunes it too)"
    for net, reason in (("mlp", "the network has no convolution"), ("one", f"1 layer (0): {spared}")):
        outcome = pcc(
            "compile",
            f"{tmp_path / 'nets.py'}:{net}",
            "--input-shape",
            "1,3,10,10",
            "-o",
            tmp_path / net,
            "--prune",
            "pattern,connectivity",
            "--json",
        )
        warnings = [f"prune-pattern changed nothing: {reason}", f"prune-connectivity changed nothing: {reason}"]
        assert outcome.status == 0
        assert outcome.err.splitlines() == [f"pcc: warning: {warning}" for warning in warnings]
        report = json.loads(outcome.out)
        assert report["warnings"] == warnings
        found = [
            (layer["pass_name"], layer["layer"], layer["reason"])
            for layer in report["left_alone"]
            if layer["pass_name"].startswith("prune-")
        ]
        assert found == ([] if net == "mlp" else [("prune-pattern", "0", spared), ("prune-connectivity", "0", spared)])


def test_layers_left_alone_reach_the_summary(pcc, factory: str, tmp_path: Path) -> None:
    outcome = pcc("compile", factory, "--input-shape", SHAPE, "-o", tmp_path / "net", "--prune", "connectivity")
    assert (outcome.status, outcome.err) == (0, "")
    summary = outcome.out.split("left alone:\n")[1].splitlines()
    assert (
        "    prune-connectivity: 1 layer (conv1): the first convolution is spared (spare_first=false prunes it too)"
        in summary
    )
    assert any(
        line.startswith("    reorder-kernels") and "(conv1" in line and "no connection is all zero" in line
        for line in summary
    )
    assert any("select-kernels" in line for line in summary), "convolutions that stay dense"


def test_zoo_package_reads_a_photo(pcc, tmp_path: Path) -> None:
    assert pcc("compile", "lenet5", "--weights", "none", "-o", tmp_path / "lenet").status == 0
    Image.new("RGB", (1, 1), (200, 10, 10)).save(tmp_path / "one-pixel.png")
    outcome = pcc("run", tmp_path / "lenet", "--input", tmp_path / "one-pixel.png", "--top", 3)
    assert outcome.status == 0, outcome.err
    assert len(outcome.out.splitlines()) == 3
    assert "were given" in pcc("run", tmp_path / "lenet", *["--input", tmp_path / "one-pixel.png"] * 2).error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "sparc"], "unknown target 'sparc'"),
        (["--cpu", "z80"], "unknown cpu 'z80'"),
        (["-p", "decompose,canonicalize,fold-batchnorm"], "no plan-memory"),
        (["-p", "canonicalise"], "did you mean canonicalize?"),
        (["--prune", "pattern{patern=8}"], "no option 'patern'"),
        (["--prune", ""], "Invalid value for '--prune': it is empty: give a value, or leave the option out"),
        (
            ["--prune", "drop-filters"],
            "--prune takes pattern, connectivity, unstructured, filters, channels, columns, blocks, not 'drop-filters'",
        ),
        (["--prune", "pattern,pattern"], "prune-pattern would run twice"),
        (
            ["--prune", "connectivity{rate=1e300}"],
            "no layer can be pruned at a rate of 1e+300: the largest, conv2, has 64 connections",
        ),
        (["--print-ir-after", "fold-batchnrm"], "did you mean fold-batchnorm?"),
        (["--input-shape", "1,3,0,0"], "not a shape"),
        (["--threads", "0"], "--threads"),
        (["--weights", "missing.pt"], "missing.pt"),
    ],
)
def test_wrong_use_is_one_line(pcc_process, factory: str, tmp_path: Path, options: list[str], message: str) -> None:
    shape = [] if "--input-shape" in options else ["--input-shape", SHAPE]
    assert message in pcc_process("compile", factory, *shape, "-o", tmp_path / "net", *options).error
    assert not (tmp_path / "net").exists()


def test_unknown_model_is_one_line(pcc_process, tmp_path: Path) -> None:
    assert "mobilenet_v2" in pcc_process("compile", "mobilenetv3", "-o", tmp_path / "net").error


def test_bad_weights_are_one_line(pcc_process, factory: str, tmp_path: Path) -> None:
    (tmp_path / "empty.pt").write_bytes(b"")
    state = open_source(factory, None, (InputShape(None, (2, 3, 13, 11)),)).model.state_dict()
    torch.save({**state, "conv2.bias": state["conv2.bias"] * float("nan")}, tmp_path / "nan.pt")
    for name, message in (("empty.pt", "empty.pt"), ("nan.pt", "conv2.bias")):
        arguments = ["compile", factory, "--input-shape", SHAPE, "-o", tmp_path / "net", "--weights", tmp_path / name]
        assert message in pcc_process(*arguments).error


def test_output_that_cannot_be_written(pcc, factory: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file" / "net", "/proc/net-package"):
        assert str(output) in pcc("compile", factory, "--input-shape", SHAPE, "-o", output).error
    assert (tmp_path / "file").read_text() == "mine"


def test_inputs_that_do_not_fit(pcc, package: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "three.npy", np.zeros((3, 3, 13, 11), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "empty.npy").write_bytes(b"")
    assert "(3, 3, 13, 11)" in pcc("run", package, "--input", tmp_path / "three.npy").error
    for name in ("objects.npy", "empty.npy", "missing.npy"):
        assert name in pcc("run", package, "--input", tmp_path / name).error
    Image.new("RGB", (9, 9)).save(tmp_path / "photo.png")
    assert "give the input as a .npy file" in pcc("run", package, "--input", tmp_path / "photo.png").error


def test_packages_that_are_none(pcc, package: Path, arrays: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    assert "manifest.json" in pcc("bench", tmp_path).error
    damaged = tmp_path / "damaged"
    shutil.copytree(package, damaged)
    for program in (*damaged.rglob("pcc-run"), *damaged.rglob("lib*.so")):
        program.write_bytes(b"\x7fELF" + program.read_bytes()[5:])
        program.open("ab").close()
    (damaged / "manifest.json").write_text((damaged / "manifest.json").read_text().replace('"size"', '"size":1,"was"'))
    assert "damaged" in pcc("run", damaged, "--input", arrays[0]).error


@pytest.mark.parametrize("stage", ["loading", "kernels"])
@pytest.mark.usefixtures("heeded_interrupts")
def test_interrupted_compile_leaves_nothing(tmp_path: Path, stage: str) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    out.mkdir()
    command = [SCRIPT, "compile", "mobilenet_v2", "--weights", "none", "--threads", "2", "-o", out / "net"]
    environment = {**os.environ, "PCC_CACHE": str(cache)}  # empty: all kernels have to be compiled
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    memory = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and not (
        "torch" in memory.read_text() if stage == "loading" else any((cache / "kernels").glob("*/*"))
    ):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it, too
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "pcc: error: interrupted\n")
    assert list(out.iterdir()) == []

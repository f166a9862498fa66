"""Compiled once with a maximum batch, run with any: from Python, C, the command line and the runner, on x86-64 and on
emulated arm64."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import pcc
from pcc.cli.app import run
from pcc.deploy import Device, Host, Qemu
from pcc.errors import PccError
from pcc.package import open_package
from pcc.target import host_cpu, target_named
from tests.arm64 import arm64
from tests.nets import Two, settle
from tests.public import make

MAX_BATCH = 5
SHAPES = ((3, 40, 40), (5,))


def inputs(batch: int) -> list[np.ndarray]:
    rng = np.random.default_rng(batch)
    return [rng.standard_normal((batch, *shape), dtype=np.float32) for shape in SHAPES]


def expected(batch: int) -> list[np.ndarray]:
    with torch.no_grad():
        return [value.numpy() for value in settle(Two(20))(*map(torch.from_numpy, inputs(batch)))]


def agree(found: list[np.ndarray] | tuple[np.ndarray, ...], batch: int) -> None:
    for ours, theirs in zip(found, expected(batch), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * float(np.abs(theirs).max()))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network for up to five images; the examples have two, which counts for nothing."""
    targets = [target_named("x86_64-linux", host_cpu()), target_named("aarch64-linux")]
    examples = [torch.zeros(2, *shape) for shape in SHAPES]
    return pcc.compile(
        settle(Two(20)), examples, tmp_path_factory.mktemp("any") / "two", target=targets, max_batch=MAX_BATCH
    ).package


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for three images."""
    target = target_named("x86_64-linux", host_cpu())
    return pcc.compile(
        settle(Two(20)),
        [torch.zeros(3, *shape) for shape in SHAPES],
        tmp_path_factory.mktemp("fixed") / "two",
        target=target,
    ).package


@pytest.mark.parametrize("threads", [1, 2])
def test_python(package: Path, threads: int) -> None:
    with pcc.load(package, threads) as model:
        assert model.max_batch == MAX_BATCH
        assert [spec.shape for spec in model.inputs] == [(MAX_BATCH, *shape) for shape in SHAPES]
        for batch in (1, 2, MAX_BATCH, 1):
            agree(model(*inputs(batch)), batch)
            assert all(call.seconds > 0 for call in model.profile())
        with pytest.raises(
            PccError, match=r"input 'image' is \(6, 3, 40, 40\), the model was compiled for \(1 to 5, 3, 40, 40\)"
        ):
            model(*inputs(6))
        with pytest.raises(PccError, match="the inputs have 1 and 2 images: give as many of each"):
            model(inputs(1)[0], inputs(2)[1])
        with pytest.raises(PccError, match=r"input 'image' is \(0, 3, 40, 40\)"):
            model(*(value[:0] for value in inputs(1)))


def test_turns_and_at_once(package: Path) -> None:
    """What is tested has both."""
    text = (package / "ir/x86_64-linux/program.txt").read_text()
    assert "# one image after the other" in text
    assert "# all images at once" in text


def test_exactly_what_a_fixed_batch_gives(package: Path, fixed: Path) -> None:
    with pcc.load(package) as any_batch, pcc.load(fixed) as three:
        assert three.max_batch is None
        for ours, theirs in zip(any_batch(*inputs(3)), three(*inputs(3)), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_runner(package: Path) -> None:
    runs_on(Host(), package)


@arm64
@pytest.mark.parametrize("cpu", ["cortex-a53", "max"])
def test_runner_on_arm64(cpu: str, package: Path) -> None:
    runs_on(Qemu(cpu), package)


def runs_on(device: Device, package: Path) -> None:
    opened = open_package(package)
    for threads in (1, 2):
        for batch in (1, 2, MAX_BATCH):
            agree(device.run(opened, inputs(batch), threads), batch)
        assert device.selftest(opened, threads).passed
    with pytest.raises(PccError, match="two was compiled for batches of 1 to 5, 6 images were given"):
        device.run(opened, inputs(6))
    assert len(device.bench(opened, 2, 0, 2, profile=True, batch=2).calls) == len(opened.target(device.target).calls)


def test_runner_refuses_files_of_no_batch(package: Path, fixed: Path, tmp_path: Path) -> None:
    def complaint(folder: Path, *arguments: str) -> str:
        done = subprocess.run(
            [str(folder / "bin/x86_64-linux/pcc-run"), *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        return done.stderr

    def written(name: str, size: int) -> str:
        np.zeros(size, np.float32).tofile(tmp_path / name)
        return str(tmp_path / name)

    image, numbers, outputs = (
        written("image", 2 * 4800),
        written("numbers", 5),
        ("--output", str(tmp_path / "a"), "--output", str(tmp_path / "b")),
    )
    assert "has 1 images" in complaint(package, "run", "--input", image, "--input", numbers, *outputs)
    for size in (6 * 4800, 4801, 0):
        line = complaint(package, "run", "--input", written("wrong", size), "--input", numbers, *outputs)
        assert "19200 bytes of float32 are expected for each of 1 to 5 images" in line
    assert "--batch 6: 'two' was compiled for 1 to 5" in complaint(package, "bench", "--batch", "6")
    assert "--batch 3" in complaint(fixed, "bench", "--batch", "3")
    assert not (tmp_path / "a").exists()


def test_command_line(package: Path, fixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def saved(batch: int) -> list[str]:
        words = []
        for name, value in zip(("image", "numbers"), inputs(batch), strict=True):
            np.save(tmp_path / f"{name}{batch}.npy", value)
            words += ["-i", str(tmp_path / f"{name}{batch}.npy")]
        return words

    outputs = ["-o", str(tmp_path / "pooled.npy"), "-o", str(tmp_path / "scores.npy")]
    assert run(["run", str(package), *saved(2), *outputs]) == 0
    agree([np.load(tmp_path / "pooled.npy"), np.load(tmp_path / "scores.npy")], 2)
    assert run(["run", str(package), *saved(6)]) == 2
    assert "is (6, 3, 40, 40), input 'image' takes (1 to 5, 3, 40, 40)" in capsys.readouterr().err
    assert run(["bench", str(package), "--runs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["batch"] == MAX_BATCH
    assert run(["bench", str(package), "--runs", "1", "--batch", "2"]) == 0
    assert "batch 2 of up to 5" in capsys.readouterr().out
    assert run(["bench", str(package), "--batch", "6"]) == 2
    assert "two was compiled for batches of 1 to 5, 6 images were given" in capsys.readouterr().err
    assert run(["bench", str(fixed), "--batch", "2"]) == 2
    assert "--batch 2: two runs the batch it was compiled for" in capsys.readouterr().err


def test_command_line_compiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compile", "lenet5", "--weights", "none", "--max-batch", "3", "-o", str(tmp_path / "lenet")]) == 0
    assert "batches up to 3" in capsys.readouterr().out
    assert open_package(tmp_path / "lenet").manifest.max_batch == 3
    (tmp_path / "net.py").write_text("from torch import nn\ndef make():\n    return nn.Softmax(0)\n")
    assert (
        run(
            [
                "compile",
                f"{tmp_path}/net.py:make",
                "--input-shape",
                "1,4",
                "--max-batch",
                "3",
                "-o",
                str(tmp_path / "net"),
            ]
        )
        == 2
    )
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "mixes the images of a batch" in line
    assert (
        run(
            [
                "compile",
                f"{tmp_path}/net.py:make",
                "--input-shape",
                "2,4",
                "--max-batch",
                "3",
                "-o",
                str(tmp_path / "net"),
            ]
        )
        == 2
    )
    assert "--input-shape 2,4: with --max-batch 3 the first size is free, give 1 for it" in capsys.readouterr().err
    assert not (tmp_path / "net").exists()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="not run: gcc not found")
def test_c_program(package: Path, tmp_path: Path) -> None:
    library, program = package / "lib/x86_64-linux", tmp_path / "any_batch"
    flags = [
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{package / 'include'}",
        f"-L{library}",
        f"-Wl,-rpath,{library}",
    ]
    subprocess.run(
        ["gcc", *flags, str(Path(__file__).with_name("runtime") / "any_batch.c"), "-ltwo", "-o", str(program)],
        check=True,
    )
    two, largest, refused = subprocess.run(
        [str(program)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    image = (np.arange(MAX_BATCH * 4800, dtype=np.float32) % 7 / np.float32(7)).reshape(MAX_BATCH, *SHAPES[0])
    numbers = (np.arange(MAX_BATCH * 5, dtype=np.float32) % 3).reshape(MAX_BATCH, 5)
    with pcc.load(package) as model:
        pooled, scores = model(image, numbers)
    # The third sum is the second: what lies behind the two images was not touched.
    np.testing.assert_allclose(
        [float(word) for word in two.split()], [pooled[:2].sum(), scores[:2].sum(), scores[:2].sum()], rtol=1e-5
    )
    np.testing.assert_allclose(float(largest), scores.sum(), rtol=1e-5)
    assert refused == "pcc_run_batch: a batch of 6: two takes 1 to 5"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru_video", "vit_head", "mobile_vit", "vlad", "densenet", "shufflenet", "yolo"])
def test_networks(name: str, tmp_path: Path) -> None:
    """Recurrent ones, attention, concats, residuals, several outputs: what PyTorch gives for the batch."""
    module, (x,) = make(name)
    report = pcc.compile(
        module, (x,), tmp_path / "package", target=target_named("x86_64-linux", host_cpu()), name=name, max_batch=3
    )
    torch.manual_seed(0)
    images = torch.randn(3, *x.shape[1:])
    with torch.no_grad():
        wanted = module(images)
    with pcc.load(report.package, threads=2) as model:
        for batch in (1, 2, 3):
            got = model(images[:batch].numpy())
            for value, want in zip(
                got if isinstance(got, tuple) else (got,),
                wanted if isinstance(wanted, tuple) else (wanted,),
                strict=True,
            ):
                part = want[: len(want) // 3 * batch].numpy()
                np.testing.assert_allclose(value, part, rtol=0, atol=2e-5 * max(1e-6, float(np.abs(want).max())))

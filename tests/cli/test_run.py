"""What `pcc run` reads and writes."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pcc.cli.run import best_classes, read_array, save
from pcc.errors import PccError
from pcc.package.batches import Batches
from pcc.package.manifest import TensorRecord

SHAPE = (1, 1, 28, 28)
FIXED = Batches("net", None)


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with labels and preprocessing."""
    from pcc.cli.app import run

    path = tmp_path_factory.mktemp("lenet") / "lenet"
    assert run(["compile", "lenet5", "--weights", "none", "-o", str(path)]) == 0
    return path


def npy(header: str, numbers: bytes = b"", version: bytes = b"\1\0") -> bytes:
    """A .npy file with any header."""
    size = struct.pack("<H" if version == b"\1\0" else "<I", len(header) + 1)
    return b"\x93NUMPY" + version + size + header.encode("latin1") + b"\n" + numbers


def port(shape: tuple[int, ...], dtype: str = "float32") -> TensorRecord:
    return TensorRecord(name="x", shape=shape, dtype=dtype)


def refused(path: Path, shape: tuple[int, ...] = (2, 3)) -> str:
    with pytest.raises(PccError) as error:
        read_array(path, port(shape), FIXED)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2", "<i4", ">i2", "u1", "i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_of_every_kind(dtype: str, order: str, tmp_path: Path) -> None:
    expected = np.arange(6).reshape(2, 3)
    np.save(tmp_path / "x.npy", np.asarray(expected.astype(dtype), order="F" if order == "F" else "C"))
    actual = read_array(tmp_path / "x.npy", port((2, 3)), FIXED)
    np.testing.assert_array_equal(actual, expected)
    assert (actual.dtype, actual.flags.c_contiguous) == (np.float32, True)


def test_numbers_that_are_no_finite_float32(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([np.nan, np.inf, -np.inf]))
    np.testing.assert_array_equal(read_array(tmp_path / "x.npy", port((3,)), FIXED), [np.nan, np.inf, -np.inf])
    np.save(tmp_path / "x.npy", np.array([1, 1e300, 2]))
    assert refused(tmp_path / "x.npy", (3,)).endswith("holds 1e+300, which is no float32")


def test_numbers_for_an_input_of_integers(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([1.0, -128.0, 127.0]))
    actual = read_array(tmp_path / "x.npy", port((3,), "int8"), FIXED)
    assert (actual.dtype, actual.tolist()) == (np.int8, [1, -128, 127])
    for value in (0.5, 128, np.nan):
        np.save(tmp_path / "x.npy", np.array([1, value, 2]))
        with pytest.raises(PccError, match=f"holds {value:g}, which is no int8"):
            read_array(tmp_path / "x.npy", port((3,), "int8"), FIXED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a .npy file of numbers"),
        (b"\x93NUMPY\1\0", "is not a .npy file of numbers"),
        (b"\x93NUMPY\2\0\xff\xff\xff\x7f{", "is not a .npy file of numbers"),  # a header of 2 GiB
        (b"\x93NUMPY\7\7\0\0", "is not a .npy file of numbers"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)"), "is not a .npy file of numbers"),
        (npy("(" * 3000), "is not a .npy file of numbers"),
        (
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}"),
            "is (1000000, 1000000), input 'x' takes (2, 3)",
        ),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3)}"), "is (-2, -3), input 'x' takes (2, 3)"),
        (npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**400},)}}"), "input 'x' takes (2, 3)"),
        (
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", b"1234"),
            "is damaged: by its header 24 bytes of numbers follow, it has 4",
        ),
        (
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", bytes(28)),
            "is damaged: by its header 24 bytes of numbers follow, it has 28",
        ),
        (
            npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 3)}", bytes(48)),
            "does not hold one array of real numbers, but of object",
        ),
        (npy("{'descr': '<c8', 'fortran_order': False, 'shape': (2, 3)}", bytes(48)), "but of complex64"),
        (npy("{'descr': '<U9', 'fortran_order': False, 'shape': (2, 3)}", bytes(216)), "but of <U9"),
        (npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3)}", bytes(24)), "but of [('a', '<f4')]"),
        (npy("{'descr': 'x', 'fortran_order': False, 'shape': (2, 3)}"), "is not a .npy file of numbers"),
        (npy("{'descr': '<f4', 'fortran_order': 7, 'shape': (2, 3)}"), "is not a .npy file of numbers"),
        (b"PK\3\4", "is not a .npy file of numbers"),
    ],
)
def test_arrays_that_lie(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    assert message in refused(tmp_path / "x.npy")


def test_arrays_with_other_bytes(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", np.ones((2, 3), np.float32))
    whole = np.frombuffer((tmp_path / "whole.npy").read_bytes(), np.uint8)
    random = np.random.default_rng(0)
    for number in range(300):
        content = whole.copy()
        content[random.integers(0, 100, 1 + number % 3)] = random.integers(0, 256)
        (tmp_path / "x.npy").write_bytes(content.tobytes())
        try:
            read_array(tmp_path / "x.npy", port((2, 3)), FIXED)
        except PccError as error:
            line = str(error)
        else:
            continue
        assert line.startswith(f"{tmp_path}/x.npy ")
        assert "\n" not in line


def test_inputs_that_are_no_files(lenet: Path, tmp_path: Path, pcc) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.npy").symlink_to("/dev/zero")
    (tmp_path / "folder.npy").mkdir()
    for name in ("pipe.npy", "pipe.png", "zero.npy", "folder.npy", "missing.npy", "missing.png"):
        assert name in pcc("run", lenet, "-i", tmp_path / name).error
    assert pcc("run", lenet, "-i", "/dev/zero").error == "photo /dev/zero is a device: give a file"


def test_outputs_that_cannot_be_written(lenet: Path, tmp_path: Path, pcc) -> None:
    np.save(tmp_path / "x.npy", np.zeros(SHAPE, np.float32))
    (tmp_path / "file").write_text("")
    for output, why in (
        ("/dev/full", "No space left on device"),
        (tmp_path, "Is a directory"),
        (tmp_path / "file" / "y.npy", "File exists"),
        (tmp_path / ("n" * 300), "File name too long"),
    ):
        assert pcc("run", lenet, "-i", tmp_path / "x.npy", "-o", output).error.endswith(why)
    assert pcc("run", lenet, "-i", tmp_path / "x.npy", "-o", "/dev/null").status == 0
    assert Path("/dev/null").is_char_device()


def test_an_output_is_whole_or_not_there(tmp_path: Path) -> None:
    save(tmp_path / "y.npy", np.ones(3))
    (tmp_path / "link.npy").symlink_to("y.npy")
    save(tmp_path / "link.npy", np.zeros(3))
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.zeros(3))
    assert {path.name for path in tmp_path.iterdir()} == {"y.npy", "link.npy"}


def test_an_output_that_is_an_input(lenet: Path, tmp_path: Path, pcc) -> None:
    x = tmp_path / "x.npy"
    np.save(x, np.zeros(SHAPE, np.float32))
    before = x.read_bytes()
    assert "x.npy would be written over" in pcc("run", str(lenet), "-i", str(x), "-o", str(x)).error
    assert x.read_bytes() == before


def test_scores_without_a_best_class(lenet: Path, tmp_path: Path, pcc, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", np.zeros(SHAPE, np.float32))
    monkeypatch.setattr("pcc.deploy.host.Host.run", lambda *_: [np.full((1, 10), np.nan, np.float32)])
    assert (
        pcc("run", lenet, "-i", tmp_path / "x.npy").error
        == "the scores of image 0 have no best class: the largest is nan; -o FILE.npy saves them as they are"
    )
    assert pcc("run", lenet, "-i", tmp_path / "x.npy", "-o", tmp_path / "y.npy").status == 0
    assert np.isnan(np.load(tmp_path / "y.npy")).all()


def test_best_classes() -> None:
    scores = np.array([[0, np.log(3), -np.inf], [-3e38, 3e38, 0]], np.float32)
    (first, second) = best_classes(scores, ["a", "b", "c"], 2)
    assert [row["label"] for row in first] == ["b", "a"]
    assert [row["probability"] for row in first] == pytest.approx([0.75, 0.25])
    assert [row["probability"] for row in second] == [1, 0]
    assert len(best_classes(scores, None, 10**30)[0]) == 3
    (probable,) = best_classes(np.array([[0.1, 0.9, 0]], np.float32), None, 2)
    assert [row["probability"] for row in probable] == pytest.approx([0.9, 0.1])
    for wrong in (np.nan, np.inf):
        with pytest.raises(PccError, match="the scores of image 1 have no best class"):
            best_classes(np.array([[0, 1], [0, wrong]], np.float32), None, 1)
    with pytest.raises(PccError, match="the network gives 3 scores, the package names 2 classes"):
        best_classes(scores, ["a", "b"], 1)


def test_photos_through_the_command_line(lenet: Path, tmp_path: Path, pcc) -> None:
    Image.new("L", (30, 40), 200).save(tmp_path / "photo.png")
    assert len(pcc("run", lenet, "-i", tmp_path / "photo.png", "--top", 3).out.splitlines()) == 3
    whole = (tmp_path / "photo.png").read_bytes()
    (tmp_path / "photo.png").write_bytes(whole[: len(whole) // 2])
    assert "photo.png is damaged" in pcc("run", lenet, "-i", tmp_path / "photo.png").error
    assert "--threads" in pcc("run", lenet, "-i", tmp_path / "photo.png", "--threads", 10**30).error

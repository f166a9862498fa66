"""What pcc reads, one entry each: files that are right, how files are made wrong, and the code that has to read or
refuse them."""

import io
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pcc.cli.app import _one_line
from pcc.errors import PccError
from tests.fuzz.mutations import Mutation, change_json, change_onnx, change_safetensors, change_zip, damage, either


@dataclass(frozen=True)
class Reader:
    """One reader of files; heavy imports happen when it is used."""

    file: str
    """What its files are called."""
    seeds: Callable[[], Sequence[bytes]]
    """Files that it reads, small ones."""
    read: Callable[[Path], object]
    """Reads a file, or raises `PccError`."""
    mutate: Mutation = damage


LONGEST_ERROR = 2000
"""Letters of an error as the command line shows it."""


def refusal(reader: Reader, content: bytes, folder: Path) -> str | None:
    """What a reader says about a file; None where it reads it. Anything but one clear line is an AssertionError, or
    whatever the reader raised."""
    path = folder / reader.file
    path.write_bytes(content)
    try:
        reader.read(path)
    except PccError as error:
        text = _one_line(str(error))
        assert text, "the error says nothing"
        assert len(text) <= LONGEST_ERROR, text
        return text
    return None


# ---- models ----


def _onnx_seeds() -> list[bytes]:
    from tests.frontend.onnx.models import model, weight

    numbers = {"size": np.array([1, 8, -1], np.int64), "limit": np.array(3, np.int64), "true": np.array(True)}
    conv = """agraph (float[1,3,8,8] x) => (float[1,4] y) {
        a = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w, b)
        c = BatchNormalization <epsilon = 1e-5> (a, s, b, b, s)
        d = Relu (c)
        e = MaxPool <kernel_shape = [2,2], strides = [2,2]> (d)
        f = Flatten <axis = 1> (e)
        y = Gemm <transB = 1, alpha = 0.5> (f, m, b) }"""
    weights = {"w": weight(4, 3, 3, 3), "b": weight(4), "s": weight(4) ** 2 + 1, "m": weight(4, 16)}
    moves = """agraph (float[1,3,8,8] x) => (float[1,8,24] y, float[1,3,16,16] z) {
        t = Transpose <perm = [0,2,1,3]> (x)
        r = Reshape (t, size)
        p = Pad <mode = "constant"> (r, pads)
        y = Slice (p, starts, ends, axes)
        z = Resize <mode = "linear", coordinate_transformation_mode = "asymmetric"> (x, , scales) }"""
    places = {"pads": [0, 0, 1, 0, 0, 1], "starts": [1], "ends": [25], "axes": [2]}
    moved = {
        **numbers,
        **{name: np.array(values, np.int64) for name, values in places.items()},
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    loops = """agraph (float[2,3] x) => (float[2,3] y, float[n,2,3] rows) {
        y, rows = Loop <body = step (int64 i, bool go, float[2,3] v) => (bool on, float[2,3] w, float[2,3] row) {
            on = Identity (go)
            w = Add (v, v)
            row = Neg (w) }> (limit, true, x) }"""
    recurrent = "agraph (float[5,1,4] x) => (float[5,1,1,3] y) { y, h = GRU <hidden_size = 3> (x, w, r) }"
    functions = """
        agraph (float[2,3] x) => (float[2,3] y) { y = local.twice (x) }
        <domain: "local", opset_import: ["" : 17]> twice (v) => (w) { w = Add (v, v) }"""
    with_function = model(functions)
    with_function.opset_import.add(domain="local", version=1)
    seeds = [
        model(conv, weights),
        model(moves, moved),
        model(loops, numbers),
        model(recurrent, {"w": weight(1, 9, 4), "r": weight(1, 9, 3)}),
        with_function,
    ]
    return [each.SerializeToString() for each in seeds]


def _parse_onnx(path: Path) -> None:
    from pcc.frontend.onnx.read import read_model

    read_model(path)


def _import(path: Path) -> None:
    from pcc.frontend.imported import import_model

    import_model(path)


def _pt2_seeds() -> list[bytes]:
    import torch

    from tests.nets import make

    net, inputs = make("squeeze_excite")
    two_images = tuple(torch.cat([x, x]) for x in inputs)
    of_any_batch = torch.export.export(net, two_images, dynamic_shapes=({0: torch.export.Dim("batch", max=8)},))
    files = []
    for program in (torch.export.export(net, inputs), of_any_batch):
        file = io.BytesIO()
        torch.export.save(program, file)
        files.append(file.getvalue())
    return files


def _parse_pt2(path: Path) -> None:
    """All but the export of the module that was read, which takes PyTorch a second."""
    from pcc.frontend import pt2

    with pt2.open_archive(path) as archive:
        pt2._inputs(archive)
        pt2._ranges(archive)
        pt2._module(archive)


# ---- weights ----


@cache
def _net() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(16, 4)).eval()


def _checkpoint_seeds() -> list[bytes]:
    import torch

    files = []
    for content, options in (
        (_net().state_dict(), {}),
        ({"state_dict": _net().state_dict(), "x": 1}, {"_use_new_zipfile_serialization": False}),
    ):
        file = io.BytesIO()
        torch.save(content, file, **options)
        files.append(file.getvalue())
    return files


def _safetensors_seeds() -> list[bytes]:
    import torch
    from safetensors.torch import save

    from pcc.frontend.packed import pack_state
    from pcc.sparsity.centroids import Centroids
    from pcc.sparsity.columns import Column
    from pcc.sparsity.compose import Composition
    from pcc.sparsity.filters import Filter
    from pcc.sparsity.kernels import Kernels
    from pcc.sparsity.levels import UniformLevels
    from pcc.sparsity.unstructured import Unstructured

    state, files = _net().state_dict(), [save(_net().state_dict())]
    kinds = (
        Kernels("designed", 2.0),
        Unstructured(4.0),
        Filter(2.0),
        Column(3.0),
        UniformLevels(3),
        Composition((Kernels("designed", 2.0), Centroids(2))),
    )
    for structure in kinds:
        weight = state["0.weight"].numpy()
        settled = structure.settle([weight])
        pruned = state | {"0.weight": torch.from_numpy(settled.project(weight, 1))}
        with tempfile.TemporaryDirectory() as folder:
            pack_state(pruned, {"0.weight": settled}).save(Path(folder, "packed"))
            files.append(Path(folder, "packed").read_bytes())
    return files


def _load_weights(path: Path) -> None:
    from copy import deepcopy

    from pcc.frontend.checkpoint import load_weights

    load_weights(deepcopy(_net()), path)


# ---- packages ----


USERS = {"notes.txt": b"mine", "lib/mine.txt": b"mine, too", "data/a.bin": b"\0" * 9}
"""What lies beside a package, and stays."""


@cache
def _package() -> Path:
    """A package's files, but for its manifest."""
    folder = Path(tempfile.mkdtemp(prefix="pcc-fuzz-"))
    for name, content in {
        "lib/x86_64-linux/libtoy.so": b"code",
        "bin/x86_64-linux/pcc-run": b"program",
        "labels.txt": b"cat\ndog\n",
        **USERS,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _manifest_seeds() -> list[bytes]:
    from pcc.package.files import file_record
    from pcc.package.manifest import LevelRecord, Manifest, SelfTestRecord, TargetRecord, TensorRecord
    from tests.toy import PREPROCESSING

    files = {
        name: file_record(_package() / name)
        for name in ("lib/x86_64-linux/libtoy.so", "bin/x86_64-linux/pcc-run", "labels.txt")
    }
    level = LevelRecord(cpu="x86-64-v4", isa="avx512", arena_bytes=64)
    library = TargetRecord(
        cpu="x86-64-v3",
        isa=level.isa,
        arena_bytes=level.arena_bytes,
        name="x86_64-linux",
        library="lib/x86_64-linux/libtoy.so",
        runner="bin/x86_64-linux/pcc-run",
        weight_bytes=4,
        better=(level,),
    )
    manifest = Manifest(
        pcc_version="0",
        name="toy",
        inputs=(TensorRecord(name="image", shape=(4, 1, 13, 13)),),
        outputs=(TensorRecord(name="scores", shape=(4, 2)),),
        max_batch=4,
        targets=(library,),
        preprocessing=PREPROCESSING,
        labels="labels.txt",
        selftest=SelfTestRecord(folder="selftest", tolerance=1e-5),
        files=files,
    )
    return [manifest.model_dump_json().encode()]


def _open_package(path: Path) -> None:
    """Asks what ``pcc run`` asks."""
    from pcc.cli.run import _preprocessing
    from pcc.package.read import open_package

    with _replaced(_package() / "manifest.json", path.read_bytes()):
        opened = open_package(_package())
        opened.verify()
        opened.labels()
        target = opened.target("x86_64-linux")
        assert opened.file(target.library).is_relative_to(_package())
        target.level("x86_64-linux, x86-64-v4")
        opened.manifest.batches.of([(2, 1, 13, 13)])
        _preprocessing(opened)


@contextmanager
def _replaced(path: Path, content: bytes) -> Generator[None]:
    """A file that is there while the block runs."""
    path.write_bytes(content)
    try:
        yield
    finally:
        path.unlink()


def _replace_package(path: Path) -> None:
    """A new package takes the place of one that is wrong: what is the user's is there before and after, whatever the
    old manifest says."""
    from pcc.package.publish import new_package

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        out = Path(folder, "out")
        shutil.copytree(_package(), out)
        (out / "manifest.json").write_bytes(path.read_bytes())
        try:
            with new_package(out) as staging:
                (staging / "manifest.json").write_text("new")
        finally:
            for name, content in USERS.items():
                assert (out / name).read_bytes() == content, f"{name} of the user's is not there any more"
            assert [each.name for each in Path(folder).iterdir()] == ["out"]


def _runner_output_seeds() -> list[bytes]:
    from pcc.deploy.device import BenchResult, CallTime

    call = CallTime(layer="conv", kernel="conv-dense", macs=1, dense_macs=2, seconds=1e-3)
    counts = {"threads": 1, "warmup": 1, "runs": 2, "arena_bytes": 64, "thread_bytes": 0, "weight_bytes": 4}
    times = {"median": 1e-3, "p10": 1e-3, "p90": 2e-3, "min": 1e-3}
    result = BenchResult.model_validate(
        {"model": "toy", "target": "x86_64-linux, x86-64-v3", **counts, **times, "calls": (call,)}
    )
    return [result.model_dump_json().encode()]


def _read_runner_output(path: Path) -> None:
    from pcc.deploy.device import BenchResult
    from pcc.package.read import parse_record

    try:
        parse_record(BenchResult, path.read_bytes())
    except ValueError as error:
        raise PccError(str(error)) from None


# ---- inputs ----


def _image_seeds() -> list[bytes]:
    from PIL import Image

    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 11, 3), np.uint8))
    files = []
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        pixels.save(file, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
        files.append(file.getvalue())
    return files


def _read_image(path: Path) -> None:
    from pcc.models.preprocess import MNIST, TORCHVISION

    for preprocessing in (TORCHVISION.model_copy(update={"size": 8, "resize": 9}), MNIST):
        values = preprocessing.apply(path)
        assert values.shape == preprocessing.shape
        assert np.isfinite(values).all()


def _array_seeds() -> list[bytes]:
    files = []
    for array in (
        np.zeros((1, 2, 3), np.float32),
        np.asfortranarray(np.ones((1, 2, 3), np.int64)),
        np.zeros((1, 2, 3), np.float16),
    ):
        file = io.BytesIO()
        np.save(file, array)
        files.append(file.getvalue())
    return files


def _read_array(path: Path) -> None:
    from pcc.cli.run import read_array
    from pcc.package.batches import Batches
    from pcc.package.manifest import TensorRecord

    for dtype in ("float32", "uint8"):
        port = TensorRecord(name="x", shape=(1, 2, 3), dtype=dtype)
        assert read_array(path, port, Batches("net", None)).shape == (1, 2, 3)


# ---- settings ----


def _recipe_seeds() -> list[bytes]:
    from pcc.training.recipe import SHIPPED

    return [entry.read_bytes() for entry in sorted(SHIPPED.iterdir(), key=str) if entry.name.endswith(".yaml")]


def _read_recipe(path: Path) -> None:
    from pcc.training.recipe import load_recipe

    load_recipe(path)


def _pipeline_seeds() -> list[bytes]:
    from pcc.passes.pipeline import DEFAULT_PIPELINE

    lists = (
        'prune-pattern{patterns=8},prune-connectivity{rate=3.6,layers={features.0=2,"a, '
        'b"=4},share=2},reduce-precision{dtype=float16}'
    )
    return [DEFAULT_PIPELINE.encode(), lists.encode()]


def _read_pipeline(path: Path) -> None:
    from pcc.passes.pipeline import parse_pipeline

    parse_pipeline(path.read_bytes().decode("utf-8", "replace"))


def _shape_seeds() -> list[bytes]:
    return [b"image=1,3,224,224", b"1x77:int64", b"a=b=1:bool"]


def _read_shape(path: Path) -> None:
    import click

    from pcc.cli.shapes import NamedShape

    try:
        NamedShape().convert(path.read_bytes().decode("utf-8", "replace"), None, None)
    except click.BadParameter as error:
        raise PccError(" ".join(error.format_message().split())) from None  # as the command line shows it


def _profile_seeds() -> list[bytes]:
    from pcc.codegen.machine import MACHINES
    from pcc.codegen.machine_profile import MachineProfile

    return [MachineProfile.of(machine).model_dump_json().encode() for machine in list(MACHINES.values())[:2]]


def _read_profile(path: Path) -> None:
    from pcc.codegen.machine_profile import machine_named

    machine_named(str(path))


def _records_seeds() -> list[bytes]:
    from pcc.codegen.kernel_cache import generation
    from pcc.codegen.tuning_records import TuningRecord, TuningRecords

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "records")
        with TuningRecords(path) as records:
            records.add_ratios(_key(), "base", {"first": 0.5, "second": 1.5})
            records.put(
                TuningRecord(
                    **vars(_key()), generation=generation(), costs_choice="base", best="first", speedup=2.0, schedules=3
                )
            )
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA journal_mode=DELETE")
        database.close()
        return [path.read_bytes()]


def _key() -> Any:
    from pcc.codegen.tuning_records import Key

    return Key("conv2d", "density 1", "float32", "cortex-a76")


def _read_records(path: Path) -> None:
    """Also what is done with them: a compilation shows the gain, tuning goes on from the ratios."""
    from pcc.codegen.tuning_records import TuningRecords

    for name in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    with TuningRecords(path) as records:
        for record in records.of(_key()):
            assert f"{record.speedup:.2f}x of {record.schedules:d}"
            assert record.speedup > 0, record
        assert all(1 / ratio > 0 for ratio in records.ratios(_key(), "base").values())


READERS = {
    "onnx": Reader("net.onnx", _onnx_seeds, _parse_onnx, either(change_onnx)),
    "onnx-import": Reader("net.onnx", _onnx_seeds, _import, either(change_onnx)),
    "pt2": Reader("net.pt2", _pt2_seeds, _parse_pt2, either(change_zip)),
    "checkpoint": Reader("weights.pt", _checkpoint_seeds, _load_weights, either(change_zip)),
    "safetensors": Reader("weights.safetensors", _safetensors_seeds, _load_weights, either(change_safetensors)),
    "manifest": Reader("manifest.json", _manifest_seeds, _open_package, either(change_json)),
    "replaced-package": Reader("manifest.json", _manifest_seeds, _replace_package, either(change_json)),
    "runner-output": Reader("output.json", _runner_output_seeds, _read_runner_output, either(change_json)),
    "image": Reader("photo", _image_seeds, _read_image),
    "array": Reader("array.npy", _array_seeds, _read_array),
    "recipe": Reader("recipe.yaml", _recipe_seeds, _read_recipe),
    "pipeline": Reader("pipeline", _pipeline_seeds, _read_pipeline),
    "shape": Reader("shape", _shape_seeds, _read_shape),
    "profile": Reader("profile.json", _profile_seeds, _read_profile, either(change_json)),
    "tuning-records": Reader("records.sqlite", _records_seeds, _read_records),
}
"""Adding one is an entry."""

"""``pcc run``: a package on a photo or on arrays."""

import io
import json
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pcc.cli.command import Command
from pcc.cli.options import chosen_device, device_options, json_option, say_why_no_gpu, threads_option
from pcc.cli.shapes import MOST_ELEMENTS
from pcc.dtype import dtype_named
from pcc.errors import PccError
from pcc.files import check_apart, read_limited

if TYPE_CHECKING:
    import numpy as np

    from pcc.models.preprocess import Preprocessing
    from pcc.package.batches import Batches
    from pcc.package.manifest import TensorRecord
    from pcc.package.read import Package

MOST_BYTES = 8 * MOST_ELEMENTS + 2**16
"""Of a .npy file."""


@click.command("run", cls=Command)
@click.argument("package", type=click.Path(path_type=Path))
@click.option(
    "-i",
    "--input",
    "inputs",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    metavar="FILE",
    help="A photo for each image, or a .npy file for each input, in order.",
)
@click.option(
    "-o",
    "--output",
    "outputs",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE.npy",
    help="Where an output goes; in order.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    help="Print the best classes and their probabilities. Default: 5, where the package has labels.",
)
@device_options
@threads_option
@json_option
def command(
    package: Path,
    inputs: tuple[Path, ...],
    outputs: tuple[Path, ...],
    top: int | None,
    device: str,
    cpu: str | None,
    use: str,
    threads: int,
    as_json: bool,
) -> None:
    """Run the network in PACKAGE."""
    from pcc.cli.console import progress
    from pcc.package.read import open_package

    opened = open_package(package)
    chosen = chosen_device(device, cpu, use)
    ports = opened.manifest.outputs
    if outputs and len(outputs) != len(ports):
        raise PccError(
            f"{opened.manifest.name} has {len(ports)} outputs ({', '.join(port.name for port in ports)}): give -o once "
            "for each, or not at all"
        )
    check_apart(outputs, *inputs)
    arrays = read_inputs(opened, inputs)
    with progress() as step:
        step(f"running on {chosen.named(opened)}")
        results = chosen.run(opened, arrays, threads)
    say_why_no_gpu(chosen.used)
    for path, result in zip(outputs, results, strict=False):
        save(path, result)
    labels = opened.labels()
    classes = best_classes(results[0], labels, top or 5) if top or (labels and not outputs) else []
    described = [{"name": port.name, "shape": list(result.shape)} for port, result in zip(ports, results, strict=True)]
    if as_json:
        click.echo(json.dumps({"computed_by": chosen.used, "outputs": described, "classes": classes}, indent=2))
        return
    for image, rows in enumerate(classes):
        if len(classes) > 1:
            click.echo(f"image {image}")
        for row in rows:
            click.echo(f"{row['probability']:8.2%}  {row['label']}")
    if not classes and not outputs:
        for port, result in zip(ports, results, strict=True):
            click.echo(
                f"{port.name} {result.shape}: min {result.min():.6g}, mean {result.mean():.6g}, max {result.max():.6g}"
            )


def read_inputs(package: "Package", paths: tuple[Path, ...]) -> list["np.ndarray"]:
    """The arrays for a package's inputs: one ``.npy`` file an input, or as many photos as its only input has images (up
    to the maximum batch, with one).

    Raises `PccError` for files that cannot be read and shapes that do not fit.
    """
    import numpy as np

    ports = package.manifest.inputs
    if not any(path.suffix == ".npy" for path in paths):
        preprocessing = _preprocessing(package)
        batch = ports[0].shape[0]
        if package.manifest.batches.of([(len(paths),)]) is None and len(paths) != batch:
            raise PccError(
                f"{package.manifest.name} was compiled for {batch} image{'s' * (batch > 1)} at once, {len(paths)} were "
                "given"
            )
        values, taken = np.concatenate([preprocessing.apply(path) for path in paths]), dtype_named(ports[0].dtype)
        return [values.astype(taken.numpy) if taken.is_float else values]
    if len(paths) != len(ports):
        raise PccError(
            f"{package.manifest.name} has {len(ports)} inputs ({', '.join(port.name for port in ports)}), {len(paths)} "
            "files were given"
        )
    arrays = [read_array(path, port, package.manifest.batches) for path, port in zip(paths, ports, strict=True)]
    package.manifest.batches.of([array.shape for array in arrays])
    return arrays


def _preprocessing(package: "Package") -> "Preprocessing":
    """How a photo becomes the package's only input."""
    from pcc.models.preprocess import Preprocessing

    manifest = package.manifest
    if manifest.preprocessing is None:
        raise PccError(f"{manifest.name} does not say how a photo becomes its input: give the input as a .npy file")
    preprocessing = Preprocessing.model_validate(manifest.preprocessing)
    takes = [port.shape for port in manifest.inputs]
    if len(takes) != 1 or takes[0][1:] != preprocessing.shape[1:]:
        raise PccError(
            f"{package.path}: a photo becomes {preprocessing.shape}, the network takes "
            f"{' and '.join(map(str, takes))}: compile it again"
        )
    return preprocessing


def read_array(path: Path, port: "TensorRecord", batches: "Batches") -> "np.ndarray":
    """A ``.npy`` file of numbers as the input's element type, of exactly its shape, or for any batch; NaN and infinity
    may be among them. Never unpickles."""
    import numpy as np

    content = read_limited(path, "input", MOST_BYTES)
    start, stored, fortran, dtype = _header(path, content)
    if dtype.kind not in "fiub":
        raise PccError(f"{path} does not hold one array of real numbers, but of {dtype}")
    if not batches.fits(stored, port.shape):
        raise PccError(f"{path} is {stored}, input '{port.name}' takes {batches.text(port.shape)}")
    promised = prod(stored) * dtype.itemsize
    if len(content) - start != promised:
        raise PccError(
            f"{path} is damaged: by its header {promised:,} bytes of numbers follow, it has {len(content) - start:,}"
        )
    array = np.frombuffer(content, dtype, offset=start).reshape(stored, order="F" if fortran else "C")
    wanted = dtype_named(port.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.ascontiguousarray(array, wanted.numpy)
    if (lost := np.isinf(values) & np.isfinite(array) if wanted.is_float else values != array).any():
        raise PccError(f"{path} holds {array[lost][0]:g}, which is no {wanted}")
    return values


def _header(path: Path, content: bytes) -> tuple[int, tuple[int, ...], bool, "np.dtype"]:
    """Of a ``.npy`` file: where its numbers begin, their shape, whether the first axis is the innermost, and their
    type."""
    from numpy.lib import format

    file = io.BytesIO(content)
    try:
        version = format.read_magic(file)
        # Version 3 differs in the names of fields only, which numbers have none of.
        shape, fortran, dtype = (format.read_array_header_1_0 if version == (1, 0) else format.read_array_header_2_0)(
            file
        )
    except Exception as error:  # whatever a damaged header makes NumPy raise
        raise PccError(
            f"{path} is not a .npy file of numbers: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from None
    return file.tell(), shape, fortran, dtype


def save(path: Path, array: "np.ndarray") -> None:
    """Writes a ``.npy`` file under exactly this name, whole or not at all; devices and pipes are written into."""
    import numpy as np

    from pcc.files import write_atomically, writing

    content = io.BytesIO()
    np.save(content, array)
    with writing(path):
        if path.exists() and not path.is_file():
            path.write_bytes(content.getvalue())
        else:
            write_atomically(path, lambda temporary: temporary.write_bytes(content.getvalue()))


def best_classes(scores: "np.ndarray", labels: list[str] | None, count: int) -> list[list[dict[str, object]]]:
    """For each image the best classes, with the softmax of the scores unless they are probabilities. ``scores`` is (N,
    classes)."""
    import numpy as np
    from scipy.special import softmax

    from pcc.evaluate.evaluate import are_probabilities

    if scores.ndim != 2:
        raise PccError(f"--top is for class scores, N x classes; the first output is {scores.shape}")
    if labels is not None and len(labels) != scores.shape[1]:
        raise PccError(
            f"the network gives {scores.shape[1]} scores, the package names {len(labels)} classes: compile it again"
        )
    best = scores.max(axis=1, keepdims=True).astype(np.float64)  # NaN where there is one
    if unclear := np.flatnonzero(~np.isfinite(best)).tolist():
        raise PccError(
            f"the scores of image {unclear[0]} have no best class: the largest is {best[unclear[0], 0]}; -o FILE.npy "
            "saves them as they are"
        )
    wide = scores.astype(np.float64)
    probabilities = wide if are_probabilities(wide) else softmax(wide, axis=1)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return [
        [{"index": int(i), "label": labels[i] if labels else f"class {i}", "probability": float(row[i])} for i in best]
        for row, best in zip(probabilities, order, strict=True)
    ]

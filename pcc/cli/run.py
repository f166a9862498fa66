"""``pcc run``: a package on a photo or on arrays."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pcc.cli.options import chosen_device, device_options, json_option, threads_option
from pcc.errors import PccError

if TYPE_CHECKING:
    import numpy as np

    from pcc.package.read import Package


@click.command("run")
@click.argument("package", type=click.Path(path_type=Path))
@click.option(
    "-i", "--input", "inputs", type=click.Path(path_type=Path), multiple=True, required=True, metavar="FILE", help="A photo or a .npy file; once an input."
)
@click.option("-o", "--output", "outputs", type=click.Path(path_type=Path), multiple=True, metavar="FILE.npy", help="Where an output goes; in order.")
@click.option("--top", type=click.IntRange(min=1), help="Print the best classes and their probabilities. Default: 5, where the package has labels.")
@device_options
@threads_option
@json_option
def command(
    package: Path, inputs: tuple[Path, ...], outputs: tuple[Path, ...], top: int | None, device: str, cpu: str | None, threads: int, as_json: bool
) -> None:
    """Run the network in PACKAGE."""
    from pcc.cli.console import progress
    from pcc.package.read import open_package

    opened = open_package(package)
    chosen = chosen_device(device, cpu)
    ports = opened.manifest.outputs
    if outputs and len(outputs) != len(ports):
        raise PccError(f"{opened.manifest.name} has {len(ports)} outputs ({', '.join(port.name for port in ports)}): give -o once for each, or not at all")
    arrays = read_inputs(opened, inputs)
    with progress() as step:
        step(f"running on {chosen.name}")
        results = chosen.run(opened, arrays, threads)
    for path, result in zip(outputs, results, strict=False):
        save(path, result)
    labels = opened.labels()
    classes = best_classes(results[0], labels, top or 5) if top or (labels and not outputs) else []
    described = [{"name": port.name, "shape": list(port.shape)} for port in ports]
    if as_json:
        click.echo(json.dumps({"outputs": described, "classes": classes}, indent=2))
        return
    for image, rows in enumerate(classes):
        if len(classes) > 1:
            click.echo(f"image {image}")
        for row in rows:
            click.echo(f"{row['probability']:8.2%}  {row['label']}")
    if not classes and not outputs:
        for port, result in zip(ports, results, strict=True):
            click.echo(f"{port.name} {tuple(port.shape)}: min {result.min():.6g}, mean {result.mean():.6g}, max {result.max():.6g}")


def read_inputs(package: "Package", paths: tuple[Path, ...]) -> list["np.ndarray"]:
    """The arrays for a package's inputs: one ``.npy`` file an input, or as many photos as its only input has images.

    Raises `PccError` for files that cannot be read and shapes that do not fit.
    """
    import numpy as np

    ports = package.manifest.inputs
    if not any(path.suffix == ".npy" for path in paths):
        images = [read_photo(package, path) for path in paths]
        batch = ports[0].shape[0]
        if len(images) != batch:
            raise PccError(f"{package.manifest.name} was compiled for {batch} image{'s' * (batch > 1)} at once, {len(images)} were given")
        return [np.concatenate(images)]
    if len(paths) != len(ports):
        raise PccError(f"{package.manifest.name} has {len(ports)} inputs ({', '.join(port.name for port in ports)}), {len(paths)} files were given")
    return [read_array(path, port.name, port.shape) for path, port in zip(paths, ports, strict=True)]


def read_photo(package: "Package", path: Path) -> "np.ndarray":
    """A photo as the package's network wants it."""
    from pcc.models.preprocess import Preprocessing

    if package.manifest.preprocessing is None:
        raise PccError(f"{package.manifest.name} does not say how a photo becomes its input: give the input as a .npy file")
    return Preprocessing.model_validate(package.manifest.preprocessing).apply(path)


def read_array(path: Path, name: str, shape: tuple[int, ...]) -> "np.ndarray":
    """A ``.npy`` file of numbers as float32, of exactly that shape. Never unpickles."""
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise PccError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise PccError(f"{path} is not a .npy file of numbers: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise PccError(f"{path} does not hold one array of real numbers")
    if array.shape != shape:
        raise PccError(f"{path} is {array.shape}, input '{name}' takes {shape}")
    return np.ascontiguousarray(array, np.float32)


def save(path: Path, array: "np.ndarray") -> None:
    """Writes a ``.npy`` file under exactly this name."""
    import numpy as np

    try:
        with path.open("wb") as file:
            np.save(file, array)
    except OSError as error:
        raise PccError(f"cannot write {path}: {error.strerror}") from None


def best_classes(scores: "np.ndarray", labels: list[str] | None, count: int) -> list[list[dict[str, object]]]:
    """For each image the best classes, with the softmax of the scores. ``scores`` is (N, classes)."""
    import numpy as np

    if scores.ndim != 2:
        raise PccError(f"--top is for class scores, N x classes; the first output is {scores.shape}")
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return [
        [{"index": int(i), "label": labels[i] if labels else f"class {i}", "probability": float(row[i])} for i in best]
        for row, best in zip(probabilities, order, strict=True)
    ]

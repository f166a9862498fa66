"""Networks that are evaluated: modules and model files by PyTorch, packages by their own library."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pcc.deploy import Device
from pcc.deploy.host import Host
from pcc.dtype import dtype_named
from pcc.errors import PccError, shortened
from pcc.models.preprocess import Preprocessing
from pcc.package.read import Package

if TYPE_CHECKING:
    import torch

BATCH = 32
"""Inputs that a network of any batch computes at once."""


@dataclass(frozen=True)
class Network:
    """A network of one image input."""

    name: str
    place: Callable[[], str]
    """Says `where`, which a GPU that fails changes."""
    input_shape: tuple[int, int, int]
    """C, H, W."""
    preprocessing: Preprocessing | None
    class_names: tuple[str, ...]
    outputs: tuple[str, ...]
    batch: int
    """Inputs that it computes at once: as many, or for one that ``fixes_batch`` exactly as many."""
    fixes_batch: bool
    compute: Callable[[np.ndarray], list[np.ndarray]]
    """All outputs for inputs, fp32 (N, C, H, W) with N as ``batch`` says."""

    @property
    def where(self) -> str:
        """What runs it: ``PyTorch``, or a package's device."""
        return self.place()

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        """All outputs, as fp32 (N, ...), for inputs, fp32 (N, C, H, W), N at most ``batch``. `PccError` for outputs
        without a first dimension of N."""
        missing = self.batch - len(x) if self.fixes_batch else 0
        filled = np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) if missing else x
        results = self.compute(filled)
        for name, result in zip(self.outputs, results, strict=True):
            if not result.ndim or len(result) != len(filled):
                raise PccError(
                    f"{self.name}: output '{name}' has the shape {result.shape} for {len(filled)} images: pcc eval "
                    "wants one row for each image"
                )
        return [result[: len(x)].astype(np.float32) for result in results]


def of_module(
    name: str,
    module: "torch.nn.Module",
    shapes: Sequence[tuple[int, ...]],
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    dtype: "torch.dtype | None" = None,
) -> Network:
    """A module, in eval mode, whose inputs have ``shapes``: one, (N, C, H, W) for any N, and a type: fp32 if None.
    `PccError` where it does not take that, two at once included, and for weights that are not finite."""
    import torch

    from pcc.frontend.checkpoint import check_finite

    taken = _numpy_type(dtype or torch.float32)

    def compute(x: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [tensor.numpy() for tensor in _tensors(name, module(torch.from_numpy(_of_type(name, x, taken))))]

    module.eval()
    check_finite(module)
    chw = _chw(name, shapes)
    for count in (1, 2):
        try:
            found = compute(np.zeros((count, *chw), np.float32))
        except PccError:
            raise
        except Exception as error:  # a network is the user's own code
            raise PccError(
                f"{name} cannot take {count} image{'s' * (count > 1)} of {'x'.join(map(str, chw))}: "
                f"{type(error).__name__}: {shortened(' '.join(str(error).split()), 200)}"
            ) from error
    outputs = tuple(f"output {number}" for number in range(len(found)))
    return Network(
        name, lambda: "PyTorch", chw, preprocessing, tuple(class_names or ()), outputs, BATCH, False, compute
    )


def of_file(name: str, path: Any, examples: Any) -> Network:
    """An ONNX file or a ``.pt2`` archive, by its graph in PyTorch, with the batch that it was exported with."""
    import torch

    from pcc.frontend.imported import import_model
    from pcc.ir.verify import run_graph

    imported = import_model(path, examples)
    shape, taken = imported.inputs[0].shape, _numpy_type(imported.inputs[0].dtype)
    chw = _chw(name, [taken.shape for taken in imported.inputs])

    def compute(x: np.ndarray) -> list[np.ndarray]:
        return [tensor.numpy() for tensor in run_graph(imported.graph, (torch.from_numpy(_of_type(name, x, taken)),))]

    return Network(name, lambda: "PyTorch", chw, None, (), imported.outputs, shape[0], True, compute)


@contextmanager
def of_package(package: Package, device: Device, threads: int) -> Generator[Network]:
    """A package, by its library in this process, or by its runner on another device. `PccError` as soon as the device's
    ``use`` is ``gpu`` and something else computes."""

    def place() -> str:
        named = device.named(package)
        return named if device.used == "cpu" else f"{named}, {device.used}"

    manifest, name = package.manifest, str(package.path)
    chw = _chw(manifest.name, [port.shape for port in manifest.inputs])
    dtype = dtype_named(manifest.inputs[0].dtype).numpy
    described = manifest.preprocessing
    network = partial(
        Network,
        name=name,
        place=place,
        input_shape=chw,
        preprocessing=None if described is None else Preprocessing.model_validate(described),
        class_names=tuple(package.labels() or ()),
        outputs=tuple(port.name for port in manifest.outputs),
        batch=min(manifest.max_batch, BATCH) if manifest.max_batch else manifest.inputs[0].shape[0],
        fixes_batch=not manifest.max_batch,
    )
    if not isinstance(device, Host):
        yield network(compute=lambda x: device.run(package, [_of_type(name, x, dtype)], threads))
        return
    from pcc.runtime.loader import load

    with load(package.path, threads, device.use) as model:
        device.note(model.device)

        def compute(x: np.ndarray) -> list[np.ndarray]:
            results = model(_of_type(name, x, dtype))
            device.note(model.device)
            return list(results) if isinstance(results, tuple) else [results]

        yield network(compute=compute)


def _numpy_type(dtype: "torch.dtype") -> np.dtype[Any]:
    import torch

    return torch.empty((), dtype=dtype).numpy().dtype


def _of_type(name: str, x: np.ndarray, dtype: "np.dtype[Any] | type") -> np.ndarray:
    """Samples as the input takes them; `PccError` for normalised ones where it takes whole numbers."""
    if not np.issubdtype(dtype, np.integer):
        return x.astype(dtype)
    limits = np.iinfo(dtype)
    if ((x != np.trunc(x)) | (x < limits.min) | (x > limits.max)).any():
        raise PccError(
            f"{name} takes whole numbers ({np.dtype(dtype).name}), and the samples are normalised: give FILE.py:loader "
            "whose samples are what it takes"
        )
    return x.astype(dtype)


def _chw(name: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, int, int]:
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise PccError(f"{name} takes {' and '.join(map(str, shapes))}: pcc eval is for networks of one image input")
    _, channels, height, width = shapes[0]
    return channels, height, width


def _tensors(name: str, result: Any) -> "list[torch.Tensor]":
    """The tensors in what a module gives: one, or several in tuples, lists and mappings."""
    import torch

    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, Mapping):
        result = list(result.values())
    if isinstance(result, tuple | list):
        return [tensor for part in result for tensor in _tensors(name, part)]
    raise PccError(f"{name} gives a {type(result).__name__}: pcc eval compares tensors")

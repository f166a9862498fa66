"""Runs a package's library in this process: a callable on numpy arrays, by ctypes alone."""

import ctypes
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

from pcc.cache import gpu_cache
from pcc.dtype import DTYPES, DType
from pcc.errors import PccError
from pcc.package.batches import Batches
from pcc.package.read import open_package
from pcc.scratch import temporary_folder
from pcc.target import host_target

ABI_VERSION = 2
"""``PCC_ABI_VERSION`` of the pcc.h that the structs below repeat."""

_BY_CODE = {dtype.code: dtype for dtype in DTYPES.values()}
"""``pcc_dtype``."""


class _Options(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("threads", ctypes.c_int32),
        ("profile", ctypes.c_int32),
        ("device", ctypes.c_int32),
        ("cache", ctypes.c_char_p),
        ("status", ctypes.POINTER(ctypes.c_int)),
    )


DEVICES = {"auto": 0, "cpu": 1, "gpu": 2}
"""``pcc_device_choice``."""

_DEVICE_NAMES = {1: "cpu", 2: "gpu"}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_int),
        ("rank", ctypes.c_int32),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
        ("bytes", ctypes.c_size_t),
    )


class _Call(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("layer", ctypes.c_char_p),
        ("kernel", ctypes.c_char_p),
        ("macs", ctypes.c_int64),
        ("dense_macs", ctypes.c_int64),
        ("seconds", ctypes.c_double),
        ("device", ctypes.c_int32),
    )


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: contiguous, outermost dimension first; its shape is that of the largest batch."""

    name: str
    shape: tuple[int, ...]
    dtype: DType


@dataclass(frozen=True)
class CallProfile:
    """One kernel call of the last run, as the runtime timed it."""

    layer: str
    kernel: str
    macs: int
    dense_macs: int
    seconds: float
    device: str
    """Where it ran: ``gpu``, or ``cpu``, to which a GPU's program may leave calls."""


class Model:
    """A compiled model with an arena and threads of its own. Calls are serialised; make several models to run at the
    same time.

    Made by `load`. Use as a context manager, or `close` it, to end its threads at once.
    """

    def __init__(self, library: Path, threads: int = 1, device: str = "auto", cache: Path | None = None) -> None:
        if device not in DEVICES:
            raise PccError(f"unknown device '{device}': choose one of {', '.join(DEVICES)}")
        self._library = _open_library(library)
        if (
            abi := self._library.pcc_abi_version()
        ) != ABI_VERSION:  # before anything else is asked: another version may lack it
            raise PccError(
                f"{library} has runtime interface {abi}, this pcc speaks {ABI_VERSION}: compile the model again"
            )
        _declare(self._library)
        self._batches = Batches(self.name, _max_batch(self._library))
        self.max_batch: int | None = self._batches.most
        """Any batch up to it can be run; None where the model runs the one that it was compiled for."""
        self._lock = threading.Lock()
        self._context: int | None = None
        self.inputs = self._describe("input")
        self.outputs = self._describe("output")
        if device == "gpu" and not hasattr(self._library, "pcc_device"):
            raise PccError(f"{library}: no GPU: the library has no code for a GPU")
        folder = None if cache is None else os.fsencode(cache)
        options = _Options(ctypes.sizeof(_Options), threads, 1, DEVICES[device], folder, None)
        error = ctypes.create_string_buffer(256)
        self._context = self._library.pcc_create(ctypes.byref(options), error, len(error))
        if not self._context:
            raise PccError(f"{library}: {_text(error.value)}")

    def __reduce_ex__(self, protocol: object) -> NoReturn:  # copies, too, are made by it
        raise PccError(
            f"model {self.name} has threads and memory of its own: load the package again in place of a copy"
        )

    @property
    def name(self) -> str:
        return self._library.pcc_model_name().decode()

    @property
    def target(self) -> str:
        """What the library was compiled for, with its processor: ``x86_64-linux, x86-64-v3``."""
        return self._library.pcc_target_name().decode()

    @property
    def device(self) -> str:
        """What it runs on: ``gpu: NAME, driver VERSION, code for PROFILE``, ``cpu``, or ``cpu: REASON`` where a GPU was
        wanted and cannot be used."""
        with self._lock:
            return self._device()

    @property
    def arena_bytes(self) -> int:
        """Memory of this model's activations."""
        return self._library.pcc_arena_bytes()

    @property
    def thread_bytes(self) -> int:
        """What each of its threads has besides."""
        return self._library.pcc_thread_bytes()

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights, which all models of one library share."""
        return self._library.pcc_weight_bytes()

    @property
    def prepared_bytes(self) -> int:
        """Memory of weights in the form that kernels read, where that is not shipped: shared, too, and gone with the
        last model."""
        return self._library.pcc_prepared_bytes() if hasattr(self._library, "pcc_prepared_bytes") else 0

    def __call__(self, *inputs: Any) -> Any:
        """The outputs for the inputs: an array for one output, a tuple for several.

        Inputs are numpy arrays or anything with ``__dlpack__`` on the CPU, of exactly the model's shapes and element
        types; with a `max_batch` the first dimension may be less. Outputs are new numpy arrays (which speak dlpack).
        Raises `PccError` if an input does not fit.
        """
        if len(inputs) != len(self.inputs):
            names = ", ".join(f"{spec.name} {spec.shape}" for spec in self.inputs)
            raise PccError(f"{self.name} takes {len(self.inputs)} inputs ({names}), {len(inputs)} were given")
        arrays = [_checked(spec, value, self._batches) for spec, value in zip(self.inputs, inputs, strict=True)]
        batch = self._batches.of([array.shape for array in arrays])
        results = [np.empty(self._batches.shape(spec.shape, batch), spec.dtype.numpy) for spec in self.outputs]
        with self._lock:
            if batch is None:
                status = self._library.pcc_run(self._opened(), _pointers(arrays), _pointers(results))
            else:
                status = self._library.pcc_run_batch(self._opened(), batch, _pointers(arrays), _pointers(results))
            if status:
                raise PccError(f"{self.name}: {_text(self._library.pcc_error(self._context))}")
        return results[0] if len(results) == 1 else tuple(results)

    def profile(self) -> list[CallProfile]:
        """The kernel calls of the last run with their times, in order; all zero before the first."""
        calls = []
        with self._lock:
            context = self._opened()
            counts = hasattr(self._library, "pcc_context_call_count")  # libraries of earlier packages lack it
            count = self._library.pcc_context_call_count(context) if counts else self._library.pcc_call_count()
            one_device = self._device()[:3]  # of all calls, where the library is an earlier package's
            for index in range(count):
                call = _Call(ctypes.sizeof(_Call))
                self._library.pcc_describe_call(context, index, ctypes.byref(call))
                names = call.layer.decode(), call.kernel.decode()
                device = _DEVICE_NAMES.get(call.device, one_device)
                calls.append(CallProfile(*names, call.macs, call.dense_macs, call.seconds, device))
        return calls

    def close(self) -> None:
        """Ends the threads and frees the arena. May be called twice."""
        with self._lock:
            if self._context:
                self._library.pcc_destroy(self._context)
            self._context = None

    def __enter__(self) -> "Model":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self.close()

    def _opened(self) -> int:
        if not self._context:
            raise PccError(f"{self.name} is closed: load it again")
        return self._context

    def _device(self) -> str:
        context = self._opened()
        return _text(self._library.pcc_device(context)) if hasattr(self._library, "pcc_device") else "cpu"

    def _describe(self, kind: str) -> tuple[TensorSpec, ...]:
        specs = []
        for index in range(getattr(self._library, f"pcc_{kind}_count")()):
            tensor = _Tensor(ctypes.sizeof(_Tensor))
            getattr(self._library, f"pcc_describe_{kind}")(index, ctypes.byref(tensor))
            specs.append(TensorSpec(tensor.name.decode(), tuple(tensor.dims[: tensor.rank]), _BY_CODE[tensor.dtype]))
        return tuple(specs)


def load(path: str | Path, threads: int = 1, device: str = "auto", cache: Path | None = None) -> Model:
    """Loads a package's library for this computer.

    ``threads`` compute, the caller's included. ``device`` is ``auto`` (a GPU that can be trusted, else the processor),
    ``cpu`` or ``gpu``; ``cache`` is a folder in which a GPU's programs are kept, pcc's own if None. Raises `PccError`
    in one line if the package is damaged, of a newer pcc, or has no library that this computer can execute, and where
    ``gpu`` is asked for and cannot be used.
    """
    package = open_package(Path(path))
    record = package.target(host_target().name)
    if record.gpu and device != "cpu":
        cache = cache or gpu_cache()
    return Model(package.file(record.library).absolute(), threads, device, cache)


def _open_library(library: Path) -> ctypes.CDLL:
    """The library that lies there now, by a name of its own: for a name it has loaded before, dlopen gives what lay
    there then.

    Weights are shared all the same, because a file that is loaded already is recognised by its inode.
    """
    with temporary_folder() as folder:
        link = folder / library.name
        link.symlink_to(library)
        try:
            return ctypes.CDLL(str(link))
        except OSError as error:
            raise PccError(f"cannot load {library}: {str(error).replace(str(link), library.name)}") from None


def _declare(library: ctypes.CDLL) -> None:
    """Result and argument types, where they are not ``int``."""
    context, pointers = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
    library.pcc_model_name.restype = library.pcc_target_name.restype = library.pcc_error.restype = ctypes.c_char_p
    library.pcc_arena_bytes.restype = library.pcc_thread_bytes.restype = library.pcc_weight_bytes.restype = (
        ctypes.c_size_t
    )
    if hasattr(library, "pcc_prepared_bytes"):
        library.pcc_prepared_bytes.restype = ctypes.c_size_t
    library.pcc_create.restype = context
    library.pcc_create.argtypes = (ctypes.POINTER(_Options), ctypes.c_char_p, ctypes.c_size_t)
    library.pcc_run.argtypes = (context, pointers, pointers)
    if hasattr(library, "pcc_device"):
        library.pcc_device.argtypes = library.pcc_context_call_count.argtypes = (context,)
        library.pcc_device.restype = ctypes.c_char_p
    if hasattr(library, "pcc_run_batch"):
        library.pcc_run_batch.argtypes = (context, ctypes.c_int32, pointers, pointers)
    library.pcc_error.argtypes = (context,)
    library.pcc_describe_call.argtypes = (context, ctypes.c_int32, ctypes.POINTER(_Call))
    library.pcc_destroy.argtypes = (context,)
    library.pcc_destroy.restype = None


def _text(text: bytes) -> str:
    """What a library says, in which a driver of any kind may be quoted."""
    return text.decode("utf-8", "replace")


def _max_batch(library: ctypes.CDLL) -> int | None:
    """``pcc_max_batch()``, which libraries of earlier packages lack."""
    return (library.pcc_max_batch() or None) if hasattr(library, "pcc_max_batch") else None


def _checked(spec: TensorSpec, value: Any, batches: Batches) -> np.ndarray:
    """The value as a contiguous array that fits the port."""
    if isinstance(value, np.ma.MaskedArray):
        raise PccError(f"input '{spec.name}' is a masked array: say what is behind the mask with .filled(VALUE)")
    if not isinstance(value, np.ndarray):
        if not hasattr(value, "__dlpack__"):
            raise PccError(
                f"input '{spec.name}' is a {type(value).__name__}: give a numpy array or something with __dlpack__"
            )
        try:
            value = np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            said = str(error).strip() or type(error).__name__
            raise PccError(f"input '{spec.name}' cannot be read by dlpack: {said.splitlines()[0]}") from None
    if value.dtype != spec.dtype.numpy:
        raise PccError(
            f"input '{spec.name}' is {value.dtype}, the model takes {spec.dtype}: convert it with "
            f".astype('{spec.dtype}')"
        )
    if not batches.fits(value.shape, spec.shape):
        raise PccError(f"input '{spec.name}' is {value.shape}, the model was compiled for {batches.text(spec.shape)}")
    return np.ascontiguousarray(value)


def _pointers(arrays: list[np.ndarray]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))

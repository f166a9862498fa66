"""The Python loader: numbers, tensors from elsewhere, threads, profile, and wrong use in one line."""

import copy
import ctypes
import pickle
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pcc.codegen.interpret import interpret
from pcc.errors import PccError
from pcc.runtime.loader import _max_batch, _Options, load
from tests.toy import toy_inputs, toy_package, toy_program

PROGRAM = toy_program()
INPUTS = toy_inputs(PROGRAM)
EXPECTED = interpret(PROGRAM, INPUTS)


def _agree(found) -> None:
    for value, expected in zip(found, EXPECTED, strict=True):
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_agrees_with_the_interpreter(threads: int) -> None:
    with load(toy_package(), threads=threads) as model:
        for _ in range(50):
            _agree(model(*INPUTS))


def test_describes_itself() -> None:
    with load(toy_package()) as model:
        assert [(spec.name, spec.shape) for spec in model.inputs] == [("image", (1, 37, 13)), ("other", (37, 13))]
        assert [(spec.name, spec.shape) for spec in model.outputs] == [("first", (37, 13)), ("last", (37, 13))]
        assert (model.name, model.target) == ("toy", "x86_64-linux, x86-64-v3")
        assert model.arena_bytes == PROGRAM.arena_bytes
        assert model.weight_bytes > sum(values.nbytes for values in PROGRAM.constants.values())
        assert model.prepared_bytes == PROGRAM.prepared_bytes > 37 * 4


def test_tensors_by_dlpack_and_strided_arrays() -> None:
    with load(toy_package()) as model:
        _agree(model(torch.from_numpy(INPUTS[0]), torch.from_numpy(INPUTS[1])))
        _agree(model(np.asfortranarray(INPUTS[0]), np.repeat(INPUTS[1], 2, axis=1)[:, ::2]))
        _agree([torch.from_dlpack(value).numpy() for value in model(*INPUTS)])


def test_results_are_not_overwritten_by_the_next_run() -> None:
    with load(toy_package()) as model:
        first = model(*INPUTS)
        model(*(value + 1 for value in INPUTS))
        _agree(first)


def test_contexts_run_at_the_same_time() -> None:
    wrong: list[BaseException] = []

    def use(threads: int) -> None:
        try:
            with load(toy_package(), threads=threads) as model:
                for _ in range(100):
                    _agree(model(*INPUTS))
        except BaseException as error:
            wrong.append(error)

    users = [threading.Thread(target=use, args=(count,)) for count in (1, 2, 3, 1)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert not wrong


@pytest.mark.parametrize("threads", [1, 3])
def test_profile_adds_up(threads: int) -> None:
    with load(toy_package(), threads=threads) as model:
        assert sum(call.seconds for call in model.profile()) == 0
        model(*INPUTS)
        start = time.perf_counter()
        model(*INPUTS)
        elapsed = time.perf_counter() - start
        calls = model.profile()
    assert [(call.layer, call.kernel, call.macs, call.dense_macs) for call in calls] == [
        (call.layer, call.kernel.name, call.macs, call.dense_macs) for call in PROGRAM.calls
    ]
    assert all(call.seconds >= 0 for call in calls)
    assert 0 < sum(call.seconds for call in calls) < elapsed


class Silent:
    """Raises an error without a text."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **options: object) -> object:
        raise BufferError


def test_wrong_inputs() -> None:
    image, other = INPUTS
    with load(toy_package()) as model:
        for inputs, message in (
            ((image,), r"toy takes 2 inputs \(image \(1, 37, 13\), other \(37, 13\)\), 1 were given"),
            ((image, other.T), r"input 'other' is \(13, 37\), the model was compiled for \(37, 13\)"),
            ((image[0], other), r"input 'image' is \(37, 13\), the model was compiled for"),
            ((image.astype(np.float64), other), r"input 'image' is float64, the model takes float32"),
            ((image.tolist(), other), r"input 'image' is a list: give a numpy array or something with __dlpack__"),
            ((torch.ones(1, 37, 13, requires_grad=True), other), r"input 'image' cannot be read by dlpack"),
            ((Silent(), other), r"input 'image' cannot be read by dlpack: BufferError$"),
            ((np.ma.masked_less(image, 0), other), r"input 'image' is a masked array: say what is behind the mask"),
        ):
            with pytest.raises(PccError, match=message):
                model(*inputs)
        _agree(model(*INPUTS))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_models_are_not_copied(copied: Callable[[Any], object]) -> None:
    with load(toy_package()) as model:
        with pytest.raises(PccError, match="load the package again in place of a copy"):
            copied(model)
        _agree(model(*INPUTS))


def test_structs_without_a_size() -> None:
    with load(toy_package()) as model:
        library, error = model._library, ctypes.create_string_buffer(256)
        assert not library.pcc_create(ctypes.byref(_Options(threads=2)), error, len(error))
        assert error.value == b"options.size is 0: set it to sizeof(pcc_options)"
        for describe in (library.pcc_describe_input, library.pcc_describe_output):
            assert describe(0, ctypes.create_string_buffer(256)) != 0


def test_why_there_is_no_context() -> None:
    with load(toy_package()) as model:
        for threads, expected in ((1, 0), (-1, 1)):
            status = ctypes.c_int(77)
            options = _Options(ctypes.sizeof(_Options), threads, 0, 1, None, ctypes.pointer(status))
            model._library.pcc_destroy(model._library.pcc_create(ctypes.byref(options), None, 0))
            assert status.value == expected


def test_what_a_library_says_may_be_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    with load(toy_package()) as model:
        for function in ("pcc_device", "pcc_error"):
            monkeypatch.setattr(model._library, function, lambda context: b"cpu: caf\xc3")
        monkeypatch.setattr(model._library, "pcc_run", lambda *arguments: 1)
        assert model.device == "cpu: caf\N{REPLACEMENT CHARACTER}"
        with pytest.raises(PccError, match="toy: cpu: caf\N{REPLACEMENT CHARACTER}"):
            model(*INPUTS)


def test_what_a_model_runs_on_is_asked_between_its_runs() -> None:
    """Not while one may change the text."""
    with load(toy_package()) as model:
        said: list[str] = []
        asks = threading.Thread(target=lambda: said.append(model.device))
        with model._lock:
            asks.start()
            asks.join(0.2)
            assert not said
        asks.join()
        assert said == ["cpu"]


def test_closed_and_impossible_models() -> None:
    model = load(toy_package(), threads=2)
    model.close()
    model.close()
    with pytest.raises(PccError, match="toy is closed"):
        model(*INPUTS)
    with pytest.raises(PccError, match=r"options.threads is -1: use 1 to 256"):
        load(toy_package(), threads=-1)


def test_a_package_compiled_again_is_read_again(tmp_path: Path) -> None:
    shutil.copytree(toy_package(), tmp_path / "net")
    first, again = load(tmp_path / "net"), load(tmp_path / "net")
    assert first._library._handle == again._library._handle, "one file, so one copy of the weights"
    shutil.rmtree(tmp_path / "net")
    shutil.copytree(toy_package(), tmp_path / "net")
    second = load(tmp_path / "net")
    assert second._library._handle != first._library._handle, "dlopen gave the library that lay there before"
    _agree(first(*INPUTS))
    _agree(second(*INPUTS))


def test_damaged_packages(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(toy_package(), copy)
    library = copy / "lib/x86_64-linux/libtoy.so"
    content = bytearray(library.read_bytes())
    content[len(content) // 2] ^= 1
    library.write_bytes(content)
    with pytest.raises(PccError, match=r"lib/x86_64-linux/libtoy.so is damaged"):
        load(copy)
    library.unlink()
    with pytest.raises(PccError, match=r"lib/x86_64-linux/libtoy.so is missing"):
        load(copy)


def test_devices() -> None:
    for device in ("auto", "cpu"):
        with load(toy_package(), device=device) as model:
            assert model.device == "cpu"
    with pytest.raises(PccError, match="no GPU: the library has no code for a GPU"):
        load(toy_package(), device="gpu")
    with pytest.raises(PccError, match="unknown device 'tpu': choose one of auto, cpu, gpu"):
        load(toy_package(), device="tpu")


def test_libraries_without_batches() -> None:
    """Those of packages that an earlier pcc wrote do not have the functions; this program itself stands for one."""
    assert _max_batch(ctypes.CDLL(None)) is None
    with load(toy_package()) as model:
        assert model.max_batch is None
        assert model._library.pcc_run_batch(model._context, 1, None, None) != 0
        assert "use pcc_run" in model._library.pcc_error(model._context).decode()

"""The archive that ``torch.export.save`` writes, read without unpickling anything: the graph is JSON, the weights are
plain numbers.

``torch.export.load`` unpickles example inputs and odd weights, evaluates symbolic expressions and runs code of guards,
all from the file. Here a weight is taken only as raw numbers; example inputs, guards and expressions are not read at
all.
"""

import json
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcc.errors import PccError, shortened
from pcc.frontend.stored import strided
from pcc.frontend.zipped import check_amount

SCHEMA = 8
"""The version of the graph's format: PyTorch 2.5 to 2.13 write it."""

TYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
"""By the numbers that archives have for them."""


class Archive:
    """An open archive: its program, and its tensors by name."""

    def __init__(self, zipped: zipfile.ZipFile, path: Path) -> None:
        self.zipped, self.path = zipped, path
        self.stored: dict[str, bytearray] = {}
        """Numbers by the names of their files: tensors may share them."""
        try:
            check_amount(zipped, path)
        except PccError as error:
            raise PccError(f"model '{path}': {error}") from None
        entries = zipped.infolist()
        self.root = entries[0].filename.split("/", 1)[0] if entries else ""
        names = {entry.filename.removeprefix(f"{self.root}/") for entry in entries}
        models = sorted(name for name in names if name.startswith("models/") and name.endswith(".json"))
        if len(models) != 1:
            raise PccError(
                f"model '{path}' holds {len(models)} programs; pcc reads an archive of torch.export.save, which has one"
            )
        self.model = models[0].removeprefix("models/").removesuffix(".json")
        self.program = self._json(models[0])
        version = self.program["schema_version"]["major"]
        if version != SCHEMA:
            raise PccError(
                f"model '{path}' has version {version} of the format, pcc reads version {SCHEMA}: save it with PyTorch "
                f"{torch.__version__}"
            )

    def tensors(self) -> dict[str, Tensor]:
        """Parameters, buffers and constants by name."""
        found = self._tensors("data/weights/", f"data/weights/{self.model}_weights_config.json")
        return found | self._tensors("data/constants/", f"data/constants/{self.model}_constants_config.json")

    def _tensors(self, folder: str, config: str) -> dict[str, Tensor]:
        return {name: self._tensor(name, folder, entry) for name, entry in self._json(config)["config"].items()}

    def _tensor(self, name: str, folder: str, entry: Mapping[str, Any]) -> Tensor:
        if entry["use_pickle"] or not entry["tensor_meta"]:
            raise PccError(
                f"model '{self.path}': refused, reading '{name}' would run code stored in the file; save a model with "
                "plain tensors"
            )
        meta = entry["tensor_meta"]
        if meta["dtype"] not in TYPES or meta["layout"] != 7:
            raise PccError(f"model '{self.path}': '{name}' is no dense tensor of real numbers")
        kind = TYPES[meta["dtype"]]
        size, stride = ([int(part["as_int"]) for part in meta[key]] for key in ("sizes", "strides"))
        offset = int(meta["storage_offset"]["as_int"])
        return strided(self._numbers(folder + entry["path_name"]), kind, tuple(size), tuple(stride), offset)

    def _numbers(self, name: str) -> bytearray:
        if name not in self.stored:
            self.stored[name] = bytearray(self._bytes(name))
        return self.stored[name]

    def _bytes(self, name: str) -> bytes:
        return self.zipped.read(f"{self.root}/{name}")

    def _json(self, name: str) -> Any:
        return json.loads(self._bytes(name))


@contextmanager
def open_archive(path: Path) -> Generator[Archive]:
    """An archive, closed when the block ends, which only reads it: what goes wrong there is the file's fault, and a
    `PccError`."""
    if not path.is_file():
        raise PccError(f"model '{path}': there is no such file")
    try:
        with zipfile.ZipFile(path) as zipped:
            yield Archive(zipped, path)
    except PccError:
        raise
    except (
        zipfile.BadZipFile,
        OSError,
        KeyError,
        IndexError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
        NotImplementedError,
        EOFError,
    ) as error:
        reason = shortened(f"{type(error).__name__}: {error}", 100)
        raise PccError(f"model '{path}' is no archive of torch.export.save, or it is damaged ({reason})") from error

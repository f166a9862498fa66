"""Tensors that wait in a file, because memory is for those that are being computed with."""

import tempfile
from dataclasses import dataclass
from math import prod

import torch

from pcc.errors import PccError


class SwapFile:
    """A temporary file without a name, which is gone with the last of its tensors."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()

    def clear(self) -> None:
        """Forgets what was written: its place is used again."""
        self._file.seek(0)

    def write(self, tensor: torch.Tensor) -> "Swapped":
        """`PccError` if the disk is full."""
        values = tensor.detach().cpu().contiguous()
        try:
            start = self._file.tell()
            self._file.write(values.flatten().view(torch.uint8).numpy().data)
        except OSError as error:
            raise PccError(
                f"cannot write a temporary file in {tempfile.gettempdir()}: {error.strerror}; TMPDIR can name another "
                "folder"
            ) from None
        return Swapped(self, start, tensor.shape, tensor.dtype, tensor.device)

    def read(self, start: int, size: int) -> torch.Tensor:
        """``size`` bytes, uint8."""
        values = torch.empty(size, dtype=torch.uint8)
        end = self._file.tell()
        self._file.seek(start)
        if self._file.readinto(values.numpy().data) != size:  # pyright: ignore[reportAttributeAccessIssue]
            raise PccError(f"a temporary file in {tempfile.gettempdir()} has lost its end")
        self._file.seek(end)
        return values


@dataclass(frozen=True)
class Swapped:
    """A tensor in a file."""

    file: SwapFile
    start: int
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    def read(self) -> torch.Tensor:
        values = self.file.read(self.start, prod(self.shape) * self.dtype.itemsize)
        return values.view(self.dtype).reshape(self.shape).to(self.device)

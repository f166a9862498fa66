"""How values lie in a GPU's memory: planes of channels, with zeros around each, in rows that start aligned.

A row has `LEFT` columns of zeros, then the map's, filled up with zeros to a multiple of eight; the zeros left of the
next row are those right of it. So a kernel reads a window anywhere without asking where the map ends. (Channels in
blocks of four, as dense engines have them, would read 73 % of what a sparse filter does not keep: docs/gpu.md.)
"""

from dataclasses import dataclass

from pcc.codegen.program import View
from pcc.dtype import FLOAT32, DType

LEFT = 8
"""Columns of zeros before each row: the most that a window may reach to the left, and to the right."""

SLACK_ROWS = 12
"""Rows that a buffer has behind its last plane: tiles that the map does not fill read there."""


@dataclass(frozen=True)
class Planes:
    """The layout of (N, C, H, W) with ``border`` rows of zeros above and below each plane."""

    shape: tuple[int, int, int, int]
    border: int = 1
    dtype: DType = FLOAT32

    @property
    def pitch(self) -> int:
        """Elements of a row."""
        return LEFT + -(-self.shape[3] // 8) * 8

    @property
    def plane(self) -> int:
        return (self.shape[2] + 2 * self.border) * self.pitch

    @property
    def elements(self) -> int:
        return (self.shape[0] * self.shape[1] * (self.shape[2] + 2 * self.border) + SLACK_ROWS) * self.pitch

    @property
    def offset(self) -> int:
        """The element that the first number of the first map is."""
        return self.border * self.pitch + LEFT

    def view(self, buffer: str) -> View:
        """The tensor in a buffer of so many elements."""
        strides = (self.shape[1] * self.plane, self.plane, self.pitch, 1)
        return View(buffer, self.shape, strides, self.offset, self.dtype)

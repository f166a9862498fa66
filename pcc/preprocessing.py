"""How a photo becomes a network's input, as data: what a package's manifest may say, checked without the libraries that
do it."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

MAX_SIZE = 1 << 14
"""Pixels on a side; an input of that size has 3 GiB."""


class PreprocessingData(BaseModel):
    """Resize and crop, channel order, then ``(pixel * scale - mean) / std`` with pixels 0..255.

    * ``resize-crop`` (torchvision): the shorter side to ``resize``, then the middle ``size``.
    * ``crop-resize`` (TensorFlow): the middle square of ``min(height, width) * size / resize``, then that to ``size``.

    For an input that is no square, ``resize`` goes with its shorter side, and the photo covers the longer one, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int | tuple[int, int]
    """Height and width of the input: one number for a square."""
    resize: Annotated[int, Field(le=MAX_SIZE)]
    order: Literal["resize-crop", "crop-resize"] = "resize-crop"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    channels: Literal["RGB", "BGR", "L"] = "RGB"
    scale: FiniteFloat = 1.0
    mean: tuple[FiniteFloat, ...]
    std: tuple[FiniteFloat, ...]

    @model_validator(mode="after")
    def _consistent(self) -> "PreprocessingData":
        if not 0 < min(self.sides) <= self.resize:
            raise ValueError(f"size {min(self.sides)} must lie between 1 and resize {self.resize}")
        if max(self.sides) > MAX_SIZE:
            raise ValueError(f"size {max(self.sides)} must be {MAX_SIZE} at most")
        if not len(self.mean) == len(self.std) == len(self.channels):
            raise ValueError(f"mean and std need one number for each of {self.channels}")
        if 0.0 in self.std:
            raise ValueError("std must not be zero")
        return self

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    def resized(self, height: int, width: int) -> Self:
        """The same for another size, in proportion."""
        shorter = min(height, width)
        size = height if height == width else (height, width)
        resize = max(shorter, round(self.resize * shorter / min(self.sides)))
        return self.model_copy(update={"size": size, "resize": resize})

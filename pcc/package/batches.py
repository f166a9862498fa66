"""The batches that a model runs: one set of rules for this process, other devices and files."""

from collections.abc import Sequence
from dataclasses import dataclass

from pcc.errors import PccError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Batches:
    """Of a model by its name. The shapes that are given to these functions are those that it was compiled for."""

    model: str
    most: int | None
    """Any batch up to it can be run, and the shapes are for this one; None: just the batch of the shapes can."""

    def fits(self, given: Shape, shape: Shape) -> bool:
        """Whether an input may have the shape that is given."""
        return given == shape or (
            self.most is not None and given[1:] == shape[1:] and bool(given) and 1 <= given[0] <= self.most
        )

    def text(self, shape: Shape) -> str:
        """What shapes an input may have: ``(1, 3, 224, 224)``, ``(1 to 8, 3, 224, 224)``."""
        return str(shape) if self.most is None else f"({', '.join([f'1 to {self.most}', *map(str, shape[1:])])})"

    def of(self, given: Sequence[Shape]) -> int | None:
        """The batch of inputs of the shapes that are given, for `shape`. `PccError` if it is more than the model runs,
        or not the same for all."""
        if self.most is None:
            return None
        batches = {shape[0] if shape else 0 for shape in given}
        if len(batches) > 1:
            raise PccError(
                f"{self.model}: the inputs have {' and '.join(map(str, sorted(batches)))} images: give as many of each"
            )
        (batch,) = batches
        if not 1 <= batch <= self.most:
            raise PccError(f"{self.model} was compiled for batches of 1 to {self.most}, {batch} images were given")
        return batch

    def shape(self, shape: Shape, batch: int | None) -> Shape:
        """Of an input or output, for a batch that `of` gave."""
        return shape if batch is None else (shape[0] // (self.most or 1) * batch, *shape[1:])

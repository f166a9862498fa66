"""Data sets by the text that names them: `open_data`."""

from pcc.errors import PccError
from pcc.training.data.arrays import ArrayData, Arrays, Augment
from pcc.training.data.data import Data
from pcc.training.data.packaged import PACKAGED

__all__ = ["ArrayData", "Arrays", "Augment", "Data", "open_data"]


def open_data(text: str, augment: Augment | None = None) -> Data:
    """``mnist`` or ``cifar10``."""
    if packaged := PACKAGED.get(text):
        return packaged.open(augment)
    raise PccError(f"no data set '{text}': choose one of {', '.join(PACKAGED)}")

"""Data sets by the text that names them: `open_data`."""

from pathlib import Path

from pcc.errors import PccError
from pcc.models.preprocess import TORCHVISION, Preprocessing
from pcc.training.data.arrays import ArrayData, Arrays
from pcc.training.data.data import Augment, Batch, Data
from pcc.training.data.packaged import PACKAGED

__all__ = ["PACKAGED", "ArrayData", "Arrays", "Augment", "Batch", "Data", "like_imagenet", "open_data"]


def open_data(
    text: str,
    *,
    input_shape: tuple[int, int, int] | None = None,
    preprocessing: Preprocessing | None = None,
    augment: Augment | None = None,
) -> Data:
    """``mnist``, ``cifar10``, a folder of photos (``FOLDER/train/CLASS/*.jpg``, ``FOLDER/test/CLASS/*.jpg``) or
    ``FILE.py:loader``.

    A folder's photos become a model's inputs by its ``preprocessing``, or, for a model that has none, are cropped to
    ``input_shape``, (C, H, W), and normalised as ImageNet is. Other data come as they are; `PccError` if
    ``input_shape`` is given and is another. ``augment`` defaults to the data's own way.
    """
    data = _open(text, input_shape, preprocessing)
    if input_shape is not None and data.input_shape != input_shape:
        raise PccError(f"{text} has inputs of {_times(data.input_shape)}, the network takes {_times(input_shape)}")
    return data if augment is None else data.augmented(augment)


def _open(text: str, input_shape: tuple[int, int, int] | None, preprocessing: Preprocessing | None) -> Data:
    if packaged := PACKAGED.get(text):
        return packaged.open()
    if ".py:" in text:
        from pcc.training.data.user import UserData

        return UserData(text)
    if Path(text).is_dir():
        from pcc.training.data.folder import FolderData

        return FolderData(Path(text), preprocessing or like_imagenet(text, input_shape))
    raise PccError(
        f"no data '{text}': give {', '.join(PACKAGED)}, a folder with train/CLASS/*.jpg and test/CLASS/*.jpg, or "
        "FILE.py:loader"
    )


def like_imagenet(text: str, shape: tuple[int, int, int] | None) -> Preprocessing:
    """ImageNet's usual preprocessing at another size, of inputs (C, H, W): 7/8 of the shorter side. `PccError` for
    inputs that have not 1 or 3 channels."""
    if shape is None:
        raise PccError(f"{text}: photos have no size of their own; say which input the network takes")
    channels, height, width = shape
    if channels not in (1, 3):
        raise PccError(f"{text}: photos have 1 or 3 channels, not {channels}")
    found = TORCHVISION.resized(height, width)
    if channels == 3:
        return found
    return found.model_copy(
        update={"channels": "L", "mean": (sum(TORCHVISION.mean) / 3,), "std": (sum(TORCHVISION.std) / 3,)}
    )


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))

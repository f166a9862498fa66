"""From a photo to a network's input. A `Preprocessing` is data: it travels in a compiled package's manifest."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pcc.errors import PccError
from pcc.preprocessing import PreprocessingData

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Preprocessing(PreprocessingData):
    """How a photo becomes the input tensor. The fields, which travel in a manifest, are in `pcc.preprocessing`."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of what `apply` gives: (1, C, H, W)."""
        return 1, len(self.channels), self.size, self.size

    @property
    def resample(self) -> Image.Resampling:
        """The interpolation as Pillow calls it."""
        return _FILTERS[self.interpolation]

    def apply(self, photo: str | Path | Image.Image) -> np.ndarray:
        """A photo, or a file that Pillow reads, as float32 (1, C, H, W): turned upright, resized, cropped and scaled."""
        return self.values(self._resize_crop(self.upright(photo)))

    def upright(self, photo: str | Path | Image.Image) -> Image.Image:
        """A photo, or a file that Pillow reads, grey or RGB as ``channels`` asks, turned upright as its EXIF tag says."""
        image = ImageOps.exif_transpose(photo if isinstance(photo, Image.Image) else _open(Path(photo)))
        return image.convert("L" if self.channels == "L" else "RGB")

    def values(self, image: Image.Image) -> np.ndarray:
        """What `upright` gave, resized to ``size`` x ``size``, as float32 (1, C, H, W)."""
        pixels = np.asarray(image, np.float32).reshape(self.size, self.size, -1)
        if self.channels == "BGR":
            pixels = pixels[:, :, ::-1]
        values = (pixels * np.float32(self.scale) - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None], np.float32)

    def _resize_crop(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        shorter = min(width, height)
        if self.order == "crop-resize":
            side = max(1, int(shorter * self.size / self.resize))
            return _center_crop(image, side).resize((self.size, self.size), self.resample)
        scaled = (self.resize * width // shorter, self.resize * height // shorter)
        return _center_crop(image.resize(scaled, self.resample), self.size)


def _center_crop(image: Image.Image, side: int) -> Image.Image:
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise PccError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise PccError(f"{path} is not a photo that Pillow can read: give a JPEG or PNG file") from None
    except (OSError, Image.DecompressionBombError) as error:
        raise PccError(f"{path} cannot be read as a photo: {error}") from None
    return image


TORCHVISION = Preprocessing(size=224, resize=256, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
KERAS_CAFFE = Preprocessing(size=224, resize=256, channels="BGR", mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0))
EFFICIENTNET_LITE = Preprocessing(size=224, resize=256, order="crop-resize", interpolation="bicubic", mean=(127.0,) * 3, std=(128.0,) * 3)
MNIST = Preprocessing(size=28, resize=28, channels="L", scale=1 / 255, mean=(0.1307,), std=(0.3081,))
CIFAR10 = Preprocessing(size=32, resize=32, scale=1 / 255, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))

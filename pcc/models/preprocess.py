"""From a photo to a network's input. A `Preprocessing` is data: it travels in a compiled package's manifest."""

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pcc.errors import PccError
from pcc.files import read_limited
from pcc.preprocessing import PreprocessingData

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Pixels and nothing else: Pillow would start Ghostscript for others."""
PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""What photos in folders are called."""
MOST_BYTES = 2**28
MOST_PIXELS = 2**27
"""Of a photo, as it is and as it is resized."""

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a photo upright, by its EXIF tag."""


TEST_FOLDERS = ("test", "val", "valid")
"""What the folder of the test set is called, the first that there is."""


def photos_below(folder: Path) -> list[Path]:
    """The photos in a folder and its folders, by name: the order in which a file system lists files is its own."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PHOTOS and not is_hidden(path.relative_to(folder)) and not path.is_dir()
    )


def is_hidden(path: Path) -> bool:
    """Whether a file, or a folder that it lies in, has a name that begins with a dot: what systems and programs put
    beside photos (``._1.jpg``, ``.thumbnails``), which is none of the user's."""
    return any(part.startswith(".") for part in path.parts)


class Preprocessing(PreprocessingData):
    """How a photo becomes the input tensor. The fields, which travel in a manifest, are in `pcc.preprocessing`."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of what `apply` gives: (1, C, H, W)."""
        return 1, len(self.channels), *self.sides

    @property
    def resample(self) -> Image.Resampling:
        """The interpolation as Pillow calls it."""
        return _FILTERS[self.interpolation]

    def apply(self, photo: str | Path | Image.Image) -> np.ndarray:
        """A photo, or a file that Pillow reads, as float32 (1, C, H, W): turned upright, resized, cropped and
        scaled."""
        return self.values(self._resize_crop(self.upright(photo), _name(photo)))

    def upright(self, photo: str | Path | Image.Image) -> Image.Image:
        """A photo, or a file that Pillow reads, grey or RGB as ``channels`` asks, turned upright as its EXIF tag says.
        `PccError` if it is damaged."""
        name = _name(photo)
        opened = photo if isinstance(photo, Image.Image) else _open(Path(photo))
        try:
            turn = _UPRIGHT.get(opened.getexif().get(_ORIENTATION, 1))
            image = _eight_bits(opened, name).convert("L" if self.channels == "L" else "RGB")
            return image if turn is None else image.transpose(turn)
        except PccError:
            raise
        except Exception as error:  # whatever damaged data make Pillow raise
            raise _damaged(name, error) from None

    def values(self, image: Image.Image) -> np.ndarray:
        """What `upright` gave, resized to ``size``, as float32 (1, C, H, W)."""
        pixels = np.asarray(image, np.float32).reshape(*self.sides, -1)
        if self.channels == "BGR":
            pixels = pixels[:, :, ::-1]
        values = (pixels * np.float32(self.scale) - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None], np.float32)

    def _resize_crop(self, image: Image.Image, name: str) -> Image.Image:
        height, width = self.sides
        shorter = min(height, width)
        if height * image.width >= width * image.height:  # the photo is as wide as the input, or wider
            ratio = Fraction(height, image.height)
        else:
            ratio = Fraction(width, image.width)
        if self.order == "crop-resize":
            part = tuple(max(1, int(side / ratio * shorter / self.resize)) for side in (height, width))
            return _center_crop(image, *part).resize((width, height), self.resample)
        larger = ratio * self.resize / shorter
        scaled = int(image.width * larger), int(image.height * larger)
        if scaled[0] * scaled[1] > MOST_PIXELS:
            raise PccError(
                f"{name} has {image.width} x {image.height} pixels, which is too narrow: its shorter side at "
                f"{self.resize} makes it {scaled[0]} x {scaled[1]}"
            )
        return _center_crop(image.resize(scaled, self.resample), height, width)


def _center_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _open(path: Path) -> Image.Image:
    content = read_limited(path, "photo", MOST_BYTES)
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise PccError(
                f"photo {path} has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}: make it smaller"
            )
        image.load()
    except UnidentifiedImageError:
        raise PccError(f"photo {path} is not one that Pillow can read: give a JPEG or PNG file") from None
    except PccError:
        raise
    except Exception as error:  # whatever a damaged file makes Pillow raise
        raise _damaged(f"photo {path}", error) from None
    return image


def _name(photo: str | Path | Image.Image) -> str:
    return "the photo" if isinstance(photo, Image.Image) else f"photo {photo}"


def _damaged(name: str, error: Exception) -> PccError:
    return PccError(f"{name} is damaged: {str(error) or type(error).__name__}")


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """A photo with 16 bits for a pixel, which Pillow's `convert` would clip, with the upper 8; others as they are."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # which Pillow scales to 16 bits
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise PccError(f"{name} has 32-bit pixels, and nothing says which is white: save it with 8 or 16 bits")
    return image


TORCHVISION = Preprocessing(size=224, resize=256, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
KERAS_CAFFE = Preprocessing(size=224, resize=256, channels="BGR", mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0))
EFFICIENTNET_LITE = Preprocessing(
    size=224, resize=256, order="crop-resize", interpolation="bicubic", mean=(127.0,) * 3, std=(128.0,) * 3
)
MNIST = Preprocessing(size=28, resize=28, channels="L", scale=1 / 255, mean=(0.1307,), std=(0.3081,))
CIFAR10 = Preprocessing(size=32, resize=32, scale=1 / 255, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))

"""Preprocessing against the formulas it stands for."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from pydantic import ValidationError

from pcc.errors import PccError
from pcc.models.preprocess import (
    CIFAR10,
    EFFICIENTNET_LITE,
    KERAS_CAFFE,
    MNIST,
    TORCHVISION,
    Preprocessing,
    photos_below,
)

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(("width", "height"), [(256, 256), (300, 256), (256, 411), (1000, 20)])
def test_torchvision_resizes_the_shorter_side_and_crops_the_middle(width: int, height: int) -> None:
    image = picture(width, height)
    shorter = min(width, height)
    resized = image.resize((256 * width // shorter, 256 * height // shorter), Image.Resampling.BILINEAR)
    left, top = round((resized.width - 224) / 2), round((resized.height - 224) / 2)
    expected = np.asarray(resized, np.float64)[top : top + 224, left : left + 224].transpose(2, 0, 1) / 255
    expected = (expected - np.array([0.485, 0.456, 0.406])[:, None, None]) / np.array([0.229, 0.224, 0.225])[
        :, None, None
    ]
    actual = TORCHVISION.apply(image)
    assert actual.shape == TORCHVISION.shape == (1, 3, 224, 224)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual[0], expected, atol=1e-5)


def test_efficientnet_crops_before_it_resizes() -> None:
    image = picture(512, 384)
    side = 384 * 224 // 256
    cropped = image.crop(((512 - side) // 2, (384 - side) // 2, (512 + side) // 2, (384 + side) // 2))
    expected = (
        np.asarray(cropped.resize((224, 224), Image.Resampling.BICUBIC), np.float64).transpose(2, 0, 1) - 127
    ) / 128
    np.testing.assert_allclose(EFFICIENTNET_LITE.apply(image)[0], expected, atol=1e-6)


@pytest.mark.parametrize("order", ["resize-crop", "crop-resize"])
def test_an_input_that_is_no_square(order: str) -> None:
    wide = TORCHVISION.model_copy(update={"size": (50, 100), "resize": 50, "order": order})
    assert wide.shape == (1, 3, 50, 100)
    landscape, portrait = picture(200, 100), picture(100, 301)
    np.testing.assert_array_equal(
        wide.apply(landscape), wide.values(landscape.resize((100, 50), Image.Resampling.BILINEAR))
    )
    np.testing.assert_array_equal(wide.apply(portrait), wide.values(portrait.crop((0, 126, 100, 176))))
    assert Preprocessing.model_validate_json(wide.model_dump_json()) == wide
    assert wide.resized(20, 10).apply(landscape).shape == (1, 3, 20, 10)


def test_keras_swaps_red_and_blue_and_subtracts_means() -> None:
    red = Image.new("RGB", (256, 256), (200, 100, 50))
    np.testing.assert_allclose(
        KERAS_CAFFE.apply(red)[0, :, 0, 0], [50 - 103.939, 100 - 116.779, 200 - 123.68], rtol=1e-6
    )


def test_grey_input() -> None:
    assert MNIST.apply(picture(28, 28)).shape == (1, 1, 28, 28)


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    upright = Image.new("RGB", (256, 256))
    upright.paste((255, 255, 255), (0, 0, 256, 128))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    upright.rotate(90).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_allclose(TORCHVISION.apply(tmp_path / "turned.png"), TORCHVISION.apply(upright), atol=1e-5)


def test_travels_as_json() -> None:
    for preprocessing in (TORCHVISION, KERAS_CAFFE, EFFICIENTNET_LITE, MNIST):
        assert Preprocessing.model_validate_json(preprocessing.model_dump_json()) == preprocessing


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 300},
        {"size": (0, 8)},
        {"size": (8, 1 << 15)},
        {"mean": (1.0,)},
        {"std": (1.0, 0.0, 1.0)},
        {"scale": float("nan")},
        {"mean": (float("inf"),) * 3},
        {"unknown": 1},
    ],
)
def test_inconsistent_manifests_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Preprocessing.model_validate({**TORCHVISION.model_dump(), **wrong})


def test_unreadable_photos_are_one_line_each(tmp_path: Path) -> None:
    with pytest.raises(PccError, match="no such file"):
        TORCHVISION.apply(tmp_path / "missing.jpg")
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(PccError, match="is not one that Pillow can read"):
        TORCHVISION.apply(tmp_path / "text.jpg")
    (tmp_path / "page.jpg").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    )  # no program is started for it
    with pytest.raises(PccError, match="is not one that Pillow can read"):
        TORCHVISION.apply(tmp_path / "page.jpg")
    picture(64, 64).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    with pytest.raises(PccError, match=r"cut.png is damaged: "):
        TORCHVISION.apply(tmp_path / "cut.png")


def reads(file: Path) -> bool:
    """Whether a photo can be read; asserts that otherwise one line says which cannot."""
    try:
        values = CIFAR10.apply(file)
    except PccError as error:
        line = str(error)
    else:
        assert values.shape == (1, 3, 32, 32)
        return True
    assert line.startswith(f"photo {file} ")
    assert "\n" not in line
    return False


def test_damaged_photos(tmp_path: Path) -> None:
    """Some bytes of a photo are others: it is read, or that is one line."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x9003] = 6, "a photo", "2020:01:01 00:00:00"
    random = np.random.default_rng(0)
    refused = 0
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        stream = io.BytesIO()
        picture(24, 17).save(stream, kind, exif=exif)
        whole = np.frombuffer(stream.getvalue(), np.uint8)
        for number in range(40):
            content = whole.copy()
            places = random.integers(0, len(content) if number % 2 else min(len(content), 200), 1 + number % 5)
            content[places] = random.integers(0, 256, len(places), np.uint8)
            file = tmp_path / "photo.jpg"
            file.write_bytes(content[: None if number % 4 else random.integers(len(content))].tobytes())
            refused += not reads(file)
    assert 40 < refused < 200


def test_sixteen_bits_are_not_clipped(tmp_path: Path) -> None:
    grey = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(np.asarray(MNIST.upright(tmp_path / "deep.png")), [[0, 0, 1, 128, 255]])
    np.testing.assert_array_equal(np.asarray(CIFAR10.upright(tmp_path / "deep.png"))[0, 4], [255, 255, 255])
    (tmp_path / "deep.pgm").write_bytes(b"P5 5 1 65535\n" + grey.astype(">u2").tobytes())
    np.testing.assert_array_equal(np.asarray(MNIST.upright(tmp_path / "deep.pgm")), [[0, 0, 1, 128, 255]])
    (tmp_path / "folder.png").mkdir()
    assert [photo.name for photo in photos_below(tmp_path)] == ["deep.png"]
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "real.tiff")
    with pytest.raises(PccError, match="32-bit pixels"):
        MNIST.apply(tmp_path / "real.tiff")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_kind_of_pixel(mode: str, tmp_path: Path) -> None:
    flat = Image.new("RGB", (5, 3), (255, 255, 255)).convert(mode)
    if mode == "P":
        flat.info["transparency"] = bytes([0, 1, 2])
    flat.save(tmp_path / "photo.tiff", "TIFF" if mode in ("CMYK", "YCbCr") else "PNG")
    np.testing.assert_array_equal(np.asarray(CIFAR10.upright(tmp_path / "photo.tiff")), np.full((3, 5, 3), 255))


def test_the_first_of_several_pictures(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), (200, 200, 200)), Image.new("RGB", (8, 8))
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    assert np.asarray(MNIST.upright(tmp_path / "moving.gif")).min() == 200


def test_a_single_pixel() -> None:
    assert (
        TORCHVISION.apply(Image.new("RGB", (1, 1))).shape
        == EFFICIENTNET_LITE.apply(Image.new("RGB", (1, 1))).shape
        == (1, 3, 224, 224)
    )


def test_photos_that_are_too_large(tmp_path: Path) -> None:
    Image.new("1", (2**14, 2**13 + 1)).save(tmp_path / "large.png")
    with pytest.raises(PccError, match=r"large.png has 16384 x 8193 pixels, more than 134,217,728: make it smaller"):
        TORCHVISION.apply(tmp_path / "large.png")
    with pytest.raises(
        PccError,
        match="the photo has 2 x 100000 pixels, which is too narrow: its shorter side at 256 makes it 256 x 12800000",
    ):
        TORCHVISION.apply(Image.new("L", (2, 100_000)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = picture(5, 3)
    image.save(tmp_path / "turned.png", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "turned.png"))
    np.testing.assert_array_equal(np.asarray(CIFAR10.upright(tmp_path / "turned.png")), np.asarray(expected))

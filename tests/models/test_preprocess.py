"""Preprocessing against the formulas it stands for."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from pcc.errors import PccError
from pcc.models.preprocess import EFFICIENTNET_LITE, KERAS_CAFFE, MNIST, TORCHVISION, Preprocessing


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(("width", "height"), [(256, 256), (300, 256), (256, 411), (1000, 20)])
def test_torchvision_resizes_the_shorter_side_and_crops_the_middle(width: int, height: int) -> None:
    image = picture(width, height)
    shorter = min(width, height)
    resized = image.resize((256 * width // shorter, 256 * height // shorter), Image.Resampling.BILINEAR)
    left, top = round((resized.width - 224) / 2), round((resized.height - 224) / 2)
    expected = np.asarray(resized, np.float64)[top : top + 224, left : left + 224].transpose(2, 0, 1) / 255
    expected = (expected - np.array([0.485, 0.456, 0.406])[:, None, None]) / np.array([0.229, 0.224, 0.225])[:, None, None]
    actual = TORCHVISION.apply(image)
    assert actual.shape == TORCHVISION.shape == (1, 3, 224, 224)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual[0], expected, atol=1e-5)


def test_efficientnet_crops_before_it_resizes() -> None:
    image = picture(512, 384)
    side = 384 * 224 // 256
    cropped = image.crop(((512 - side) // 2, (384 - side) // 2, (512 + side) // 2, (384 + side) // 2))
    expected = (np.asarray(cropped.resize((224, 224), Image.Resampling.BICUBIC), np.float64).transpose(2, 0, 1) - 127) / 128
    np.testing.assert_allclose(EFFICIENTNET_LITE.apply(image)[0], expected, atol=1e-6)


def test_keras_swaps_red_and_blue_and_subtracts_means() -> None:
    red = Image.new("RGB", (256, 256), (200, 100, 50))
    np.testing.assert_allclose(KERAS_CAFFE.apply(red)[0, :, 0, 0], [50 - 103.939, 100 - 116.779, 200 - 123.68], rtol=1e-6)


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


@pytest.mark.parametrize("wrong", [{"size": 300}, {"mean": (1.0,)}, {"std": (1.0, 0.0, 1.0)}, {"unknown": 1}])
def test_inconsistent_manifests_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Preprocessing.model_validate({**TORCHVISION.model_dump(), **wrong})


def test_unreadable_photos_are_one_line_each(tmp_path: Path) -> None:
    with pytest.raises(PccError, match="no such file"):
        TORCHVISION.apply(tmp_path / "missing.jpg")
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(PccError, match="not a photo that Pillow can read"):
        TORCHVISION.apply(tmp_path / "text.jpg")
    picture(64, 64).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    with pytest.raises(PccError, match="cannot be read as a photo"):
        TORCHVISION.apply(tmp_path / "cut.png")

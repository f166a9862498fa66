"""Folders of photos: classes by name, the model's own preprocessing, random parts that follow from (seed, epoch)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pcc.errors import PccError
from pcc.models.preprocess import MNIST, TORCHVISION
from pcc.training.data import open_data
from pcc.training.data.folder import random_box

SMALL = TORCHVISION.model_copy(update={"size": 8, "resize": 10})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five training photos and two for tests, of dogs and cats; names in another order than the classes'."""
    random = np.random.default_rng(0)
    for name in (
        "train/dog/b.JPEG",
        "train/dog/a.png",
        "train/cat/deep/c.jpg",
        "train/cat/d.jpg",
        "train/cat/e.jpg",
        "val/dog/f.png",
        "val/cat/g.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (random.integers(9, 20), random.integers(9, 20), 3), np.uint8)).save(
            path
        )
    (tmp_path / "train/cat/notes.txt").write_text("no photo")
    return tmp_path


def test_classes_are_numbered_by_name(photos: Path) -> None:
    data = open_data(str(photos), preprocessing=SMALL)
    assert (data.train_size, data.test_size, data.classes, data.input_shape) == (5, 2, 2, (3, 8, 8))
    ((x, y),) = data.test_batches(4)
    assert y.tolist() == [0, 1]
    assert torch.equal(x[0], torch.from_numpy(SMALL.apply(photos / "val/cat/g.png"))[0])
    _, labels = next(data.batches(0, 5, seed=0))
    assert sorted(labels.tolist()) == [0, 0, 0, 1, 1]


def test_random_parts_follow_from_seed_and_epoch(photos: Path) -> None:
    data = open_data(str(photos), preprocessing=SMALL)
    first = next(data.batches(0, 4, seed=1))[0]
    assert torch.equal(next(open_data(str(photos), preprocessing=SMALL).batches(0, 4, seed=1))[0], first)
    halves = [next(data.batches(0, 4, seed=1, rank=rank, ranks=2))[0] for rank in range(2)]
    assert torch.equal(torch.cat(halves), first)
    plain = data.augmented("none")
    assert not torch.equal(next(plain.batches(0, 4, seed=1))[0], first)
    tested = torch.from_numpy(
        np.concatenate([SMALL.apply(path) for path in sorted((photos / "train").rglob("*.[jJp]*"))])
    )
    for x in next(plain.batches(3, 4, seed=1))[0]:
        assert (tested == x).flatten(1).all(1).any()


@pytest.mark.parametrize("drawn", [0.49, 0.51])
def test_a_random_part_is_what_the_numbers_say(photos: Path, drawn: float) -> None:
    data = open_data(str(photos), preprocessing=SMALL)
    numbers = torch.tensor([[0.3, 0.9, 0.2, 0.8, drawn, 0.0]])
    x, y = data.train_samples(torch.tensor([4]), numbers)
    image = SMALL.upright(photos / "train/dog/b.JPEG")
    assert image.width != image.height
    part = image.resize((8, 8), SMALL.resample, box=random_box(*image.size, numbers[0].tolist()))
    wanted = SMALL.values(ImageOps.mirror(part) if drawn < 0.5 else part)
    np.testing.assert_array_equal(x.numpy(), wanted)
    assert y.tolist() == [1]


@settings(max_examples=40)
@given(st.integers(1, 500), st.integers(1, 500), st.lists(st.floats(0, 1, exclude_max=True), min_size=6, max_size=6))
def test_random_parts_lie_in_the_photo(width: int, height: int, numbers: list[float]) -> None:
    left, top, right, bottom = random_box(width, height, numbers)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert (right - left) * (bottom - top) <= 1.0001 * width * height
    if width == height and numbers[0] < 0.5:
        assert 0.08 * width * height * 0.999 <= (right - left) * (bottom - top)
        assert 0.74 < (right - left) / (bottom - top) < 1.34


def test_the_input_shape_chooses_size_and_channels(photos: Path) -> None:
    assert open_data(str(photos), input_shape=(1, 16, 16)).input_shape == (1, 16, 16)
    assert next(open_data(str(photos), preprocessing=MNIST).test_batches(2))[0].shape == (2, 1, 28, 28)
    x = next(open_data(str(photos), input_shape=(3, 7, 7)).test_batches(2))[0]
    assert torch.equal(
        x[1], torch.from_numpy(SMALL.model_copy(update={"size": 7, "resize": 8}).apply(photos / "val/dog/f.png"))[0]
    )
    with pytest.raises(PccError, match="photos have no size of their own; say which input the network takes"):
        open_data(str(photos))
    assert next(open_data(str(photos), input_shape=(3, 7, 8)).test_batches(2))[0].shape == (2, 3, 7, 8)
    with pytest.raises(PccError, match="photos have 1 or 3 channels, not 4"):
        open_data(str(photos), input_shape=(4, 7, 7))


def test_wrong_folders_are_one_line(photos: Path) -> None:
    with pytest.raises(
        PccError,
        match=r"train has no train folder with a folder of photos for each class: "
        r"expected .*/train/train/CLASS/\*.jpg$",
    ):
        open_data(str(photos / "train"), preprocessing=SMALL)
    with pytest.raises(PccError, match="there is no augmentation 'shift' for it; choose crop-flip or none"):
        open_data(str(photos), preprocessing=SMALL, augment="shift")
    (photos / "val/mouse").mkdir()
    with pytest.raises(PccError, match=r"val/mouse holds no photos"):
        open_data(str(photos), preprocessing=SMALL)
    Image.new("RGB", (9, 9)).save(photos / "val/mouse/h.png")
    with pytest.raises(PccError, match="the test set has photos of 'mouse', the training set has none"):
        open_data(str(photos), preprocessing=SMALL)
    (photos / "val").rename(photos / "other")
    with pytest.raises(PccError, match="has no test or val or valid folder"):
        open_data(str(photos), preprocessing=SMALL)


def test_a_damaged_photo_is_named(photos: Path) -> None:
    (photos / "train/dog/a.png").write_bytes(b"no photo")
    data = open_data(str(photos), preprocessing=SMALL)
    with pytest.raises(PccError, match=r"train/dog/a.png is not one that Pillow can read"):
        list(data.batches(0, 5, seed=0))

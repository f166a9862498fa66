"""Batches follow from (seed, epoch) alone; processes share them; subsets and augmentations are what they say."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.errors import PccError
from pcc.training.data import ArrayData, Arrays, Augment, Data
from pcc.training.data.arrays import crop_flip, shift
from pcc.training.data.data import NUMBERS

MEAN, STD = (0.5, 0.25), (0.25, 0.5)


def arrays(train: int = 23, test: int = 7, size: tuple[int, int] = (6, 5)) -> Arrays:
    """Two channels; pixel (0, 0) of the first one is the sample's number."""
    generator = torch.Generator().manual_seed(3)
    halves = []
    for count in (train, test):
        images = torch.randint(1, 256, (count, 2, *size), generator=generator, dtype=torch.uint8)
        images[:, 0, 0, 0] = torch.arange(count)
        halves += [images, torch.arange(count) % 4]
    return Arrays(*halves)


@pytest.fixture
def data() -> ArrayData:
    return ArrayData("toy", 4, arrays(), MEAN, STD)


def numbers_of(x: torch.Tensor) -> list[int]:
    return (x[:, 0, 0, 0].mul(STD[0]).add(MEAN[0]).mul(255)).round().int().tolist()


def test_every_training_sample_once_an_epoch(data: Data) -> None:
    batches = list(data.batches(0, 5, seed=1))
    assert len(batches) == data.steps(5) == 4
    seen = [number for x, _ in batches for number in numbers_of(x)]
    assert len(set(seen)) == 20
    assert seen != sorted(seen)
    for x, y in batches:
        assert (x.dtype, x.shape, y.dtype) == (torch.float32, (5, 2, 6, 5), torch.int64)
        assert y.tolist() == [number % 4 for number in numbers_of(x)]


def test_pixels_are_normalised_by_channel(data: ArrayData) -> None:
    x, _ = next(data.test_batches(7))
    wanted = (arrays().test_images / 255 - torch.tensor(MEAN).reshape(-1, 1, 1)) / torch.tensor(STD).reshape(-1, 1, 1)
    torch.testing.assert_close(x, wanted)


def test_order_follows_from_seed_and_epoch(data: Data) -> None:
    def order(epoch: int, seed: int) -> list[int]:
        return [number for x, _ in data.batches(epoch, 4, seed=seed) for number in numbers_of(x)]

    torch.manual_seed(5)
    first = order(2, 7)
    torch.manual_seed(6)
    assert order(2, 7) == first
    assert order(3, 7) != first
    assert order(2, 8) != first
    assert order(7, 2) != first


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from(["none", "crop-flip", "shift"]))
def test_processes_together_see_what_one_sees(ranks: int, share: int, augment) -> None:
    data = ArrayData("toy", 4, arrays(), MEAN, STD, augment)
    whole = list(data.batches(1, ranks * share, seed=2))
    parts = [list(data.batches(1, ranks * share, seed=2, rank=rank, ranks=ranks)) for rank in range(ranks)]
    for step, (x, y) in enumerate(whole):
        assert torch.equal(torch.cat([part[step][0] for part in parts]), x)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), y)
    assert all(len(part) == len(whole) for part in parts)


def test_test_samples_come_once_and_in_order(data: Data) -> None:
    batches = list(data.test_batches(3))
    assert [len(y) for _, y in batches] == [3, 3, 1]
    assert [number for x, _ in batches for number in numbers_of(x)] == list(range(7))
    shared = [
        number for rank in range(2) for x, _ in data.test_batches(2, rank=rank, ranks=2) for number in numbers_of(x)
    ]
    assert sorted(shared) == list(range(7))


def test_subset_is_always_the_same(data: Data) -> None:
    small = data.subset(train=6, test=2)
    assert (small.train_size, small.test_size, small.classes, small.input_shape) == (6, 2, 4, (2, 6, 5))
    first = sorted(number for x, _ in small.batches(0, 3, seed=0) for number in numbers_of(x))
    assert first == sorted(number for x, _ in data.subset(train=6).batches(9, 3, seed=4) for number in numbers_of(x))
    assert len(set(first)) == 6
    assert first != list(range(6))  # what is first may be of one class
    assert data.subset(test=2).train_size == 23
    with pytest.raises(PccError, match="toy: a subset of 24 cannot be made of 23 samples"):
        data.subset(train=24)


def test_augmented_changes_the_way_and_not_the_data(data: ArrayData) -> None:
    moved = data.subset(train=8).augmented("shift")
    plain = data.subset(train=8)
    assert not torch.equal(next(moved.batches(0, 8, seed=0))[0], next(plain.batches(0, 8, seed=0))[0])
    assert data.augment == "none"
    assert torch.equal(next(moved.augmented("none").batches(0, 8, seed=0))[0], next(plain.batches(0, 8, seed=0))[0])


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(3, 8), st.integers(3, 8), st.integers(0, 99))
def test_augmentations_against_their_definition(count: int, channels: int, height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)
    numbers = torch.rand(count, NUMBERS, generator=generator)
    before = images.clone()
    for function, by, may_flip in ((crop_flip, 4, True), (shift, 2, False)):
        augmented = function(images, numbers)
        for image, drawn, got in zip(images, numbers, augmented, strict=True):
            padded = torch.nn.functional.pad(image, (by,) * 4)
            down, right = int(drawn[0] * (2 * by + 1)), int(drawn[1] * (2 * by + 1))
            wanted = padded[:, down : down + height, right : right + width]
            assert torch.equal(got, wanted.flip(2) if may_flip and drawn[2] < 0.5 else wanted)
    assert torch.equal(images, before)


def test_every_move_is_as_likely() -> None:
    image = torch.zeros(20_000, 1, 9, 9, dtype=torch.uint8)
    image[:, :, 4, 4] = 1
    numbers = torch.rand(len(image), NUMBERS, generator=torch.Generator().manual_seed(0))
    counts = shift(image, numbers).sum(0, dtype=torch.int64)[0]
    assert int((counts > 0).sum()) == 25
    assert counts[2:7, 2:7].min() > 0.85 * len(image) / 25


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("augment", ["none", "crop-flip", "shift"])
def test_a_gpu_makes_the_same_batches(augment: Augment) -> None:
    data = ArrayData("toy", 4, arrays(), MEAN, STD, augment).subset(train=20)
    moved = data.on(torch.device("cuda"))
    for batches, wanted in (
        (moved.batches(1, 6, seed=2), data.batches(1, 6, seed=2)),
        (moved.test_batches(3), data.test_batches(3)),
    ):
        for (x, y), (wanted_x, wanted_y) in zip(batches, wanted, strict=True):
            assert (x.device.type, y.device.type) == ("cuda", "cuda")
            assert torch.equal(y.cpu(), wanted_y)
            torch.testing.assert_close(x.cpu(), wanted_x)


def test_wrong_use_is_one_line(data: ArrayData) -> None:
    with pytest.raises(PccError, match="toy: a batch of 24 cannot be made of 23 training samples"):
        data.batches(0, 24, seed=0)
    with pytest.raises(PccError, match="a batch of 5 cannot be shared by 2 processes; choose a multiple of 2"):
        data.batches(0, 5, seed=0, ranks=2)
    with pytest.raises(
        PccError, match="toy: there is no augmentation 'mixup' for it; choose none or crop-flip or shift"
    ):
        data.augmented("mixup")  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        PccError, match="toy has labels 0 to 3, but the network tells 2 classes apart; give it 4 outputs"
    ):
        data.check_labels(2)
    data.check_labels(4)
    with pytest.raises(PccError, match="toy: training sample 3 has label 3; with 3 classes labels are 0 to 2"):
        ArrayData("toy", 3, arrays(), MEAN, STD)
    with pytest.raises(PccError, match=r"toy: 23 training images have torch.int64 labels of shape \(2,\)"):
        ArrayData("toy", 4, replace(arrays(), train_labels=torch.zeros(2, dtype=torch.int64)), MEAN, STD)
    with pytest.raises(PccError, match=r"toy: test images are torch.float32 .*, not uint8 \(N, C, H, W\) of one size"):
        ArrayData("toy", 4, replace(arrays(), test_images=arrays().test_images.float()), MEAN, STD)

"""Photos for a compression: what is fitted on, what is held out, and parts where there are few."""

import pytest
import torch

from pcc.compression.photos import ENOUGH, open_photos, split
from pcc.errors import PccError
from pcc.training.views import random_parts


def photos(count: int, most: int = 256) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Photo ``n`` has values from ``n`` to ``n + 1``."""
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images += torch.arange(count).reshape(-1, 1, 1, 1)
    found = split(open_photos(images, (3, 8, 8), None), most)
    held_out = torch.from_numpy(found.held_out.read(0, found.held_out.count)[0])
    return found.fitted, held_out, found.count


def test_a_fifth_is_held_out_and_nothing_is_in_both() -> None:
    fitted, held_out, count = photos(300)
    assert (len(fitted), len(held_out), count) == (240, 60, 240)
    assert len(torch.cat([fitted, held_out]).flatten(1).unique(dim=0)) == 300
    fitted, held_out, count = photos(2000, 64)
    assert (len(fitted), len(held_out), count) == (64, 200, 64)


def test_those_that_come_first_are_of_all_photos() -> None:
    fitted, _, _ = photos(1000, 800)
    for some in fitted.split(32):
        assert some.min() < 200
        assert some.max() > 800


def test_few_photos_are_seen_in_parts() -> None:
    fitted, held_out, count = photos(20)
    assert (len(held_out), count) == (4, 16)
    assert ENOUGH <= len(fitted) < ENOUGH + count
    assert len(fitted.flatten(1).unique(dim=0)) == len(fitted)
    number = fitted.amax(dim=(1, 2, 3)).int()  # of the photo
    assert bool((number.reshape(count, -1) == number[:: len(fitted) // count, None]).all())
    with pytest.raises(PccError, match="images has 9 photos: 10 are the least"):
        photos(9)


def test_a_part_shows_what_is_in_the_photo() -> None:
    across = torch.linspace(0, 1, 16).expand(1, 1, 16, 16).repeat(64, 1, 1, 1)
    parts = random_parts(across, torch.Generator().manual_seed(0))
    assert parts.shape == across.shape
    assert random_parts(across, torch.Generator().manual_seed(0), size=(8, 12)).shape == (64, 1, 8, 12)
    assert parts.min() >= 0
    assert parts.max() <= 1
    slopes = (parts[:, 0, 0, 8] - parts[:, 0, 0, 7]) * 15  # of the photo's: the side of the part, with its direction
    assert bool((slopes < 0).any())
    assert bool((slopes > 0).any())
    assert slopes.abs().min() >= 0.5**0.5 - 1e-3
    assert slopes.abs().max() <= 1 + 1e-3


def test_parts_lie_anywhere_and_are_upright() -> None:
    ramp = torch.linspace(0, 1, 16)
    both = torch.stack([ramp.expand(16, 16), ramp[:, None].expand(16, 16)]).expand(64, 2, 16, 16)
    parts = random_parts(both, torch.Generator().manual_seed(0), least_area=0.25)
    assert bool((parts[:, 1].diff(dim=1) >= 0).all())
    for middles in (parts[:, 0, 0, 7:9].mean(dim=1), parts[:, 1, 7:9, 0].mean(dim=1)):
        assert middles.min() < 0.4
        assert middles.max() > 0.6

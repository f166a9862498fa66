"""The result table's rows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pcc.errors import PccError
from pcc.training.data.arrays import ArrayData, Arrays
from pcc.training.processes import Processes
from pcc.training.recipe import load_recipe
from pcc.training.trainer import check
from tools.reproduce.cifar_resnets import Photos, resnet20, resnet56
from tools.reproduce.latency import normal_input
from tools.reproduce.page import PAGE, page
from tools.reproduce.rows import ROWS, Row, dense, input_shape, opened, rows


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_every_recipe_fits_its_network(row: Row) -> None:
    """Layers that it names, budgets and options: all that is checked before the first epoch."""
    torch.manual_seed(0)
    images, labels = torch.zeros(128, *input_shape(row)[1:], dtype=torch.uint8), torch.arange(128) % 10
    channels = (0.5,) * images.shape[1]
    data = ArrayData("black", 10, Arrays(images, labels, images, labels), channels, channels)
    epochs = check(opened(row, "none"), data, load_recipe(row.recipe), Processes(0, 1, torch.device("cpu")))
    assert sum(epochs) > 0


def test_a_row_comes_after_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [row.name for row in rows(["lenet5-cluster"])] == ["lenet5-dense", "lenet5-gradual-246x", "lenet5-cluster"]
    with pytest.raises(PccError, match="no row 'vgg9'"):
        rows(["vgg9"])
    for accelerator in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda present=accelerator: present)
        every = rows(["all"])
        assert any(row.network == "vgg16_cifar" for row in every) == accelerator
        assert all(every.index(origin) <= every.index(row) for row in every if (origin := dense(row)))
        assert not any(row.published for row in every)
        assert any(row.published for row in rows(["all"], published=True))
    with pytest.raises(PccError, match=r"starts from resnet20-12fca82f.th: give the folder where it lies as --check"):
        rows(["public-resnet20-gradual"])


def test_the_page_is_what_the_results_make(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert PAGE.read_text(encoding="utf-8") == page()


def test_counted_bytes_are_not_said_to_be_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is as small as the rates of weight data say."""
    monkeypatch.chdir(Path(__file__).parents[2])
    for text in (page(), Path("README.md").read_text(encoding="utf-8")):
        headers = [line for line in text.splitlines() if line.startswith("|") and "method and structure" in line]
        assert headers
        assert all("weight data (counted)" in header for header in headers)
        assert "stored as FKW" not in text
        assert "every weight as fp32" in text


def test_latency_is_measured_on_real_values() -> None:
    image = normal_input((1, 3, 32, 32))
    assert (image.shape, image.dtype) == ((1, 3, 32, 32), np.float32)
    assert 0.9 < image.std() < 1.1
    np.testing.assert_array_equal(image, normal_input((1, 3, 32, 32)))


def test_published_resnets_have_the_parameters_of_the_paper() -> None:
    """Table 6 of He et al.: 0.27 and 0.85 million."""
    for factory, millions in ((resnet20, 0.27), (resnet56, 0.85)):
        network = factory().eval()
        assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_photos_with_a_border_are_parts_every_second_one_mirrored() -> None:
    photo = torch.arange(3 * 8 * 8).reshape(1, 3, 8, 8).float()
    torch.manual_seed(0)
    seen = [Photos(photo, torch.tensor([5]), border=2)[0] for _ in range(64)]
    padded = torch.nn.functional.pad(photo[0], (2,) * 4)
    parts = [padded[:, down : down + 8, right : right + 8] for down in range(5) for right in range(5)]
    straight = sum(any(torch.equal(x, part) for part in parts) for x, _ in seen)
    mirrored = sum(any(torch.equal(x.flip(2), part) for part in parts) for x, _ in seen)
    assert straight + mirrored == 64
    assert min(straight, mirrored) > 16
    assert {label for _, label in seen} == {5}
    assert torch.equal(Photos(photo, torch.tensor([5]))[0][0], photo[0])

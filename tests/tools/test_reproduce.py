"""The result table's rows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pcc.errors import PccError
from pcc.models import entry
from pcc.training.data.arrays import ArrayData, Arrays
from pcc.training.processes import Processes
from pcc.training.recipe import load_recipe
from pcc.training.trainer import check
from tools.reproduce.latency import normal_input
from tools.reproduce.page import PAGE, page
from tools.reproduce.rows import ROWS, Row, dense, rows


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_every_recipe_fits_its_network(row: Row) -> None:
    """Layers that it names, budgets and options: all that is checked before the first epoch."""
    torch.manual_seed(0)
    network = entry(row.network)
    images, labels = torch.zeros(128, *network.input_shape[1:], dtype=torch.uint8), torch.arange(128) % 10
    channels = (0.5,) * images.shape[1]
    data = ArrayData("black", 10, Arrays(images, labels, images, labels), channels, channels)
    epochs = check(network.factory(), data, load_recipe(row.recipe), Processes(0, 1, torch.device("cpu")))
    assert sum(epochs) > 0


def test_a_row_comes_after_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [row.name for row in rows(["lenet5-cluster"])] == ["lenet5-dense", "lenet5-gradual-246x", "lenet5-cluster"]
    with pytest.raises(PccError, match="no row 'vgg9'"):
        rows(["vgg9"])
    for accelerator in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda present=accelerator: present)
        every = rows(["all"])
        assert any(row.network == "vgg16_cifar" for row in every) == accelerator
        assert all(every.index(dense(row)) <= every.index(row) for row in every)


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

"""The result table's rows."""

import pytest
import torch

from pcc.errors import PccError
from pcc.models import entry
from pcc.training.data.arrays import ArrayData, Arrays
from pcc.training.processes import Processes
from pcc.training.recipe import load_recipe
from pcc.training.trainer import check
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

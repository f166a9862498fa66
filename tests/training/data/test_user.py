"""A person's own data sets: random transformations are repeatable, and each kind of wrong use gets its line."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pcc.errors import PccError
from pcc.training.data import open_data
from pcc.training.data.data import Data

FILE = """
import random
import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset

class Noisy(Dataset):
    classes = ["a", "b", "c"]
    def __len__(self):
        return 9
    def __getitem__(self, index):
        noise = [torch.rand(()).item(), random.random(), np.random.rand()]
        return torch.tensor([index, *noise], dtype=torch.float32).reshape(1, 2, 2), index % 3

def plain(count=6):
    return TensorDataset(torch.arange(count * 4.0).reshape(count, 1, 2, 2), torch.arange(count) % 3)

def noisy():
    return Noisy(), plain()

def counted():
    return plain(), plain()

def loader():
    x, y = torch.zeros(6, 1, 2, 2), torch.arange(6) % 3
    {change}
    train, test = TensorDataset(x, y), plain()
    {later}
    return train, test
"""


def opened(folder: Path, name: str = "loader", change: str = "pass", later: str = "pass") -> Data:
    (folder / "own.py").write_text(FILE.replace("{change}", change).replace("{later}", later))
    return open_data(f"{folder / 'own.py'}:{name}")


def test_classes_are_told_or_counted(tmp_path: Path) -> None:
    told, counted = opened(tmp_path, "noisy"), opened(tmp_path, "counted")
    assert (told.train_size, told.test_size, told.classes, told.input_shape) == (9, 6, 3, (1, 2, 2))
    assert counted.classes == 3
    x, y = next(counted.test_batches(4))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert x.flatten().tolist() == list(range(16))
    assert y.tolist() == [0, 1, 2, 0]


def test_random_transformations_follow_from_seed_and_epoch(tmp_path: Path) -> None:
    data = opened(tmp_path, "noisy")
    first = torch.cat([x for x, _ in data.batches(0, 4, seed=1)])
    states = torch.get_rng_state(), str(np.random.get_state())
    assert torch.equal(torch.cat([x for x, _ in data.batches(0, 4, seed=1)]), first)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert str(np.random.get_state()) == states[1]
    assert len(first.flatten(1)[:, 1:].unique()) == 8 * 3
    second = torch.cat([x for x, _ in data.batches(1, 4, seed=1)])
    assert not set(second.flatten(1)[:, 1].tolist()) & set(first.flatten(1)[:, 1].tolist())
    halves = [next(data.batches(0, 4, seed=1, rank=rank, ranks=2))[0] for rank in range(2)]
    assert torch.equal(torch.cat(halves), first[:4])


@pytest.mark.parametrize(
    ("change", "later", "message"),
    [
        ("x[4, 0, 1, 1] = torch.nan", "pass", "training sample 4 holds NaN or infinity"),
        ("y[2] = -1", "pass", "training sample 2 has label -1; with 3 classes labels are 0 to 2"),
        (
            "pass",
            "train.classes = 2",
            "training sample 2 has label 2; with 2 classes labels are 0 to 1|training sample 5 has label 2",
        ),
        ("y = y.float()", "pass", r"training sample 0 has label tensor\(0.\); labels are whole numbers"),
        ("x = x.double()", "pass", "training sample 0 is 'torch.float64'; inputs are normalised torch.float32 tensors"),
        ("x = x.flatten(1)", "pass", r"training sample 0 has shape \(4,\); inputs are \(channels, height, width\)"),
        (
            "pass",
            "test = [(torch.zeros(1, 2, 3), 0)]",
            r"test sample 0 has shape \(1, 2, 3\), training sample 0 \(1, 2, 2\); all need one shape",
        ),
        ("x, y = x[:0], y[:0]", "pass", "the training set is empty"),
        ("pass", "test = iter(test)", "the test set is 'iterator', which has no length or cannot be indexed"),
        ("pass", "return train", "it gives 'TensorDataset', not a pair of data sets"),
        ("pass", "train = [(torch.zeros(1, 2, 2), 0), None]", "reading training sample 1 failed: TypeError"),
        (
            "pass",
            "train.classes = 2.5",
            "classes of the training set is 2.5; give their number or a list of their names",
        ),
        (
            "pass",
            "train = type('Set', (), {'__len__': lambda self: 1 // 0, '__getitem__': None})()",
            "the length of the training set: ZeroDivisionError",
        ),
        ("raise ValueError('no disk')", "pass", r"loader\(\) failed: ValueError: no disk"),
    ],
)
def test_wrong_data_are_one_line(tmp_path: Path, change: str, later: str, message: str) -> None:
    with pytest.raises(PccError, match=rf"^data '.*own.py:loader': ({message})") as caught:
        read_all(tmp_path, change, later)
    assert "\n" not in str(caught.value)


def read_all(folder: Path, change: str, later: str) -> None:
    data = opened(folder, "loader", change, later)
    list(data.batches(0, data.train_size, seed=0))
    list(data.test_batches(3))


def test_wrong_names_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(PccError, match=r"the file has no 'missing'; it defines .*counted, loader, noisy, plain"):
        opened(tmp_path, "missing")
    with pytest.raises(PccError, match=r"data 'nowhere.py:loader': there is no file 'nowhere.py'"):
        open_data("nowhere.py:loader")
    with pytest.raises(PccError, match="how the samples are augmented is the loader's business"):
        opened(tmp_path, "noisy").augmented("shift")

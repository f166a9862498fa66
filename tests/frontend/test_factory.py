"""``FILE.py:factory``."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pcc.errors import PccError
from pcc.frontend import load_factory

SOURCE = """
import torch
from torch import nn
from helper import width

print("reading", width)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(width, 2)

ready = nn.ReLU()

def build():
    return Net()

def talks():
    print("making")
    return Net()

program = torch.export.export(nn.ReLU(), (torch.ones(2),))

def exported():
    return program.module()

def lazy():
    return nn.LazyLinear(3)

def number():
    return 3

def broken():
    raise RuntimeError("no such layer")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("width = 7\n")
    path = tmp_path / "my_model.py"
    path.write_text(SOURCE)
    return path


def test_files_as_people_write_them(tmp_path: Path) -> None:
    """Annotations that are texts, a data class, and a module beside it that the function imports."""
    (tmp_path / "beside_it.py").write_text(
        "from torch import nn\n\ndef layer(width):\n    return nn.Linear(width, 2)\n"
    )
    (tmp_path / "json.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n@dataclass\nclass Sizes:\n"
        "    width: int = 5\n\ndef make():\n    from beside_it import layer\n    return layer(Sizes().width)\n"
    )
    assert load_factory(f"{tmp_path / 'json.py'}:make").in_features == 5
    assert sys.modules["json"] is json, "a module that is there already stays"


@pytest.mark.parametrize("name", ["Net", "build"])
def test_functions_and_classes(file: Path, name: str) -> None:
    module = load_factory(f"{file}:{name}")
    assert isinstance(module.fc, nn.Linear)
    assert module.fc.in_features == 7


def test_a_module_that_is_there(file: Path) -> None:
    assert isinstance(load_factory(f"{file}:ready"), nn.ReLU)


def test_what_a_file_prints_goes_to_standard_error(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_factory(f"{file}:talks")
    assert capsys.readouterr() == ("", "reading 7\nmaking\n")


@pytest.mark.parametrize("name", ["program", "exported"])
def test_what_torch_export_made(file: Path, name: str) -> None:
    assert load_factory(f"{file}:{name}").eval()(torch.tensor([-1.0, 2.0])).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lazy", "'weight' has no shape yet"),
        ("builder", "has no 'builder'; it defines Net, broken, build, exported, lazy, number, talks"),
        ("number", "number gives 'int', not an nn.Module"),
        ("broken", "broken.. failed: RuntimeError: no such layer"),
    ],
)
def test_wrong_names(file: Path, name: str, words: str) -> None:
    with pytest.raises(PccError, match=words):
        load_factory(f"{file}:{name}")


def test_wrong_files(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(PccError, match="running the file failed: ModuleNotFoundError"):
        load_factory(f"{tmp_path}/bad.py:net")
    with pytest.raises(PccError, match="there is no file"):
        load_factory(f"{tmp_path}/gone.py:net")
    with pytest.raises(PccError, match=r"expected FILE.py:factory"):
        load_factory("resnet:50")

import pytest

from pcc.errors import PccError
from pcc.sparsity import structures
from pcc.sparsity.compose import Composition
from pcc.sparsity.filters import Filter
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.levels import Binary, UniformLevels
from pcc.sparsity.tetris import Tetris
from pcc.sparsity.unstructured import Unstructured


def test_every_name_is_its_class():
    for name in structures.names():
        assert structures.kind(name).name == name
    assert structures.kind("composition") is Composition


def test_fields_as_yaml_gives_them():
    assert structures.structure("unstructured", rate=3) == Unstructured(3)
    assert structures.structure("kernels", patterns="designed", rate=3.6) == Kernels("designed", 3.6)
    assert structures.structure("kernels", patterns=[[0, 4], [1, 4]]) == Kernels(((0, 4), (1, 4)))
    assert structures.structure("tetris", rate=2, block=[8, 8]) == Tetris(2, (8, 8))
    assert structures.structure("binary", per="filter", keep_zeros=True) == Binary("filter", True)
    hash(structures.structure("kernels", patterns=[[0, 4], [1, 4]]))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("unstructurd", {}, "unknown structure 'unstructurd': did you mean unstructured?"),
        ("zzz", {}, "unknown structure 'zzz': choose one of kernels, unstructured, window,"),
        ("composition", {}, "a composition is written as a list of structures"),
        ("unstructured", {}, "structure unstructured needs the option 'rate': give a number"),
        ("unstructured", {"rate": 2, "share": 2}, "structure unstructured has no option 'share': choose one of rate"),
        ("ternary", {"bits": 2}, "ternary has no option 'bits': there are none"),
        ("unstructured", {"rate": "fast"}, "unstructured: rate cannot be 'fast': give a number"),
        ("unstructured", {"rate": 0.5}, "a pruning rate of 0.5"),
        ("levels", {"bits": 2.5}, r"levels: bits cannot be 2\.5: give a whole number"),
        ("levels", {"bits": True}, "levels: bits cannot be True"),
        ("binary", {"keep_zeros": 1}, "binary: keep_zeros cannot be 1: give true or false"),
        (
            "tetris",
            {"rate": 2, "block": [8]},
            r"tetris: block cannot be \[8\]: give a list: a whole number, a whole number",
        ),
        ("kernels", {"patterns": [1, 2]}, r"kernels: patterns cannot be \[1, 2\]"),
    ],
)
def test_wrong_use_is_one_clear_line(name: str, fields: dict[str, object], message: str):
    with pytest.raises(PccError, match=message):
        structures.structure(name, **fields)


def test_compose():
    assert structures.compose([Unstructured(2)]) == Unstructured(2)
    assert structures.compose([Unstructured(2), UniformLevels(3)]) == Composition((Unstructured(2), UniformLevels(3)))
    thin = structures.compose([Filter(2), Unstructured(2)])
    assert structures.compose([thin, UniformLevels(3)]) == Composition((Filter(2), Unstructured(2), UniformLevels(3)))

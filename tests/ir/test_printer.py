"""The graph's text: readable, complete, the same for the same graph."""

from pathlib import Path

import pytest
import torch

from pcc.errors import PccError
from pcc.frontend.torch_module import import_module
from pcc.ir.annotations import Skipped, annotate
from pcc.ir.dump import dump_graph
from pcc.ir.printer import print_graph
from pcc.passes.canonicalize import Canonicalize
from pcc.sparsity.kernels import Kernels
from tests.nets import make


def test_two_imports_print_the_same(golden) -> None:
    texts = []
    for _ in range(2):
        net, inputs = make("squeeze_excite")
        graph_module = import_module(net, inputs)
        Canonicalize()(graph_module)
        conv = next(node for node in graph_module.graph.nodes if node.name == "depthwise_0")
        annotate(conv, Kernels(((0, 1, 3, 4),), 1.2))
        annotate(conv, Skipped("reorder-kernels", "groups=6 (depthwise)"))
        texts.append(print_graph(graph_module))
    assert texts[0] == texts[1]
    golden(texts[0], "annotated")


def test_imported_graph_prints_too(golden) -> None:
    net, inputs = make("shuffle")
    golden(print_graph(import_module(net, inputs)), "imported")


def test_dump_names_the_file_after_the_pass(tmp_path: Path) -> None:
    net, inputs = make("shuffle")
    graph_module = import_module(net, inputs)
    path = dump_graph(tmp_path / "ir", 3, "fold-batchnorm", graph_module)
    assert path == tmp_path / "ir" / "003_fold-batchnorm.txt"
    assert path.read_text() == print_graph(graph_module)


def test_dump_into_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    graph_module = import_module(torch.nn.ReLU(), (torch.ones(1, 2),))
    with pytest.raises(PccError, match="cannot write the dump"):
        dump_graph(tmp_path / "taken", 0, "import", graph_module)

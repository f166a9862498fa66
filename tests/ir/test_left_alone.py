"""What passes left alone, in a few lines."""

from pcc.frontend.torch_module import import_module
from pcc.ir.annotations import Skipped, annotate
from pcc.ir.left_alone import LeftAlone, by_reason, left_alone
from tests.nets import make
from tests.passes.find import calls


def test_notes_of_a_graph_with_their_layers() -> None:
    graph_module = import_module(*make("squeeze_excite"))
    first, second, _ = calls(graph_module, "aten.conv2d")
    annotate(first, Skipped("fold", "it is the first"))
    annotate(second, Skipped("prune", "too small"))
    annotate(second, Skipped("fold", "too small"))
    assert left_alone(graph_module) == [
        LeftAlone("fold", "depthwise.0", "it is the first"),
        LeftAlone("prune", "reduce", "too small"),
        LeftAlone("fold", "reduce", "too small"),
    ]


def test_a_line_for_each_reason() -> None:
    layers = [LeftAlone("prune", f"conv{i}", f"{i} of {8 * i} filters are dead, not 3x{i}") for i in (2, 1)]
    layers += [
        LeftAlone(name, f"block.{i}", f"in node conv{i % 2}_1: {1 + i / 10:g}x the time of 3x3")
        for i in range(5)
        for name in ("fold", "select")
    ]
    layers += [LeftAlone("fold", "fc", "nothing to do"), LeftAlone("fold", "fc", "nothing to do")]
    assert by_reason(layers) == [
        "prune: 1 layer (conv2): 2 of 16 filters are dead, not 3x2",
        "prune: 1 layer (conv1): 1 of 8 filters are dead, not 3x1",
        "fold, select: 3 layers (block.0, block.2, block.4): in node conv0_1: 1 to 1.4x the time of 3x3",
        "fold, select: 2 layers (block.1, block.3): in node conv1_1: 1.1 to 1.3x the time of 3x3",
        "fold: 1 layer (fc): nothing to do",
    ]
    counts = [LeftAlone("drop", f"conv{i}", f"{i} of 64 filters are dead") for i in (10, 9, 30, 2)]
    assert by_reason(counts) == ["drop: 4 layers (conv10, conv9, conv30, ...): 2 to 30 of 64 filters are dead"]
    assert by_reason([]) == []

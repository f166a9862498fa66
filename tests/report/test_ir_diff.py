"""Dumps compared by layer."""

from pcc.ir.printer import print_graph
from pcc.report.ir_diff import TOTALS, diff_ir
from tests.passes.prunable import mixed, run


def test_equal_dumps_have_no_differences() -> None:
    text = print_graph(mixed()[0])
    found = diff_ir(text, text)
    assert not found.layers
    assert found.equal > 8


def test_a_pruned_layer_differs_and_the_others_do_not() -> None:
    before = print_graph(mixed()[0])
    after = print_graph(run(mixed()[0], "prune-connectivity{rate=1,layers={expand=4}}"))
    changed = {layer.layer: layer for layer in diff_ir(before, after).layers}
    assert TOTALS in changed
    assert "expand" in changed
    assert "classifier" not in changed
    assert any("kernels{rate=4" in line for line in changed["expand"].added)


def test_layers_that_only_one_has() -> None:
    first = (
        "# 2 calls\n%x: f32[1] = input\n%a: f32[1] = aten.relu(self=%x)\n%b: f32[1] = aten.relu(self=%a)  # of "
        "block.b; why(a; b)\nreturn output=%b\n"
    )
    second = first.replace("%b", "%c").replace("block.b", "block.c").replace("(self=%x)", "(self=%x)  # note")
    found = {layer.layer: layer for layer in diff_ir(first, second).layers}
    assert (found["block_b"].where, found["block_c"].where, found["a"].where) == ("first", "second", "both")
    assert found["a"].added == ["    # note"]
    assert found["block_b"].removed == ["%b: f32[1] = aten.relu(self=%a)", "    # of block.b", "    # why(a; b)"], (
        "a note with a ; in parentheses is one"
    )


def test_constants_are_their_readers() -> None:
    text = (
        "# 1 calls\n%w: f32[2] = constant conv.weight\n%x: f32[1] = input\n%conv: f32[1] = pcc.conv2d(x=%x, "
        "weight=%w)\nreturn output=%conv\n"
    )
    (layer,) = diff_ir(text, text.replace("f32[2]", "f32[3]")).layers
    assert (layer.layer, layer.removed) == ("conv", ["%w: f32[2] = constant conv.weight"])


def test_programs_are_aligned_by_layer_whatever_the_numbers_of_their_calls() -> None:
    calls = [
        "{0:03d} pcc_copy(x=%x[4], y=&%y[4]) for 4 items  # stem",
        "{0:03d} pcc_conv(x=%y[4]) for 1 items  # conv1, 12 of 24 MACs",
    ]
    first = "\n".join(line.format(number) for number, line in enumerate(calls))
    second = "\n".join(line.format(number + 3) for number, line in enumerate(calls)).replace("12 of", "6 of")
    (layer,) = diff_ir(first, second).layers
    assert (layer.layer, layer.added) == ("conv1", ["pcc_conv(x=%y[4]) for 1 items, 6 of 24 MACs"])

"""Reports of layers: graph, choice and calls of a compiled network joined, the same in the manifest and on every
target."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pcc
from pcc.compile_report import CompileReport
from pcc.package import open_package
from pcc.package.layer_report import LayerReport, layer_reports
from pcc.target import target_named
from tests.toy import toy_program


class Twice(nn.Module):
    """A dense convolution, a large one, and one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.wide = nn.Conv2d(64, 64, 3, padding=1)
        self.again = nn.Conv2d(64, 64, 1)
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.wide(self.stem(x)))
        return self.head(self.again(self.again(x)).amax((2, 3)))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> CompileReport:
    torch.manual_seed(0)
    targets = [target_named("x86_64-linux"), target_named("aarch64-linux", "cortex-a76")]
    prune = "pattern,connectivity{rate=4}"
    return pcc.compile(
        Twice().eval(), torch.zeros(2, 3, 28, 28), tmp_path_factory.mktemp("twice") / "net", target=targets, prune=prune
    )


def layers(report: CompileReport) -> dict[str, LayerReport]:
    return {layer.node: layer for layer in report.targets[0].layers}


def test_every_call_belongs_to_one_layer_in_order(report: CompileReport) -> None:
    for target in report.manifest.targets:
        program = (report.package / "ir" / target.name / "program.txt").read_text()
        called = [line.split()[1].split("(")[0] for line in program.splitlines() if line[:3].isdigit()]
        assert [call.kernel for call in target.calls] == called
        assert all(call.layer == layer.layer for layer in target.layers for call in layer.calls)


def test_a_sparse_layer(report: CompileReport) -> None:
    wide = layers(report)["wide"]
    assert (wide.layer, wide.operator, wide.shape) == ("wide", "pcc.conv2d", (2, 64, 28, 28))
    assert wide.format == "fkw"
    assert wide.structure is not None
    assert wide.structure.kind == "Kernels"
    kept = round(4096 / wide.structure.fields["rate"])
    assert kept == 1024
    assert wide.structure.text == "kernels{patterns=4x4, rate=4}"
    assert wide.counts is not None
    assert (wide.counts.parameters, wide.counts.nonzeros) == (64 * 64 * 9 + 64, 4 * kept + 64)
    assert (
        (wide.counts.macs, wide.counts.kept_macs)
        == (wide.dense_macs, wide.macs)
        == (2 * 28 * 28 * 64 * 64 * 9, 2 * 28 * 28 * 4 * kept)
    )
    assert wide.choice is not None
    assert wide.choice.family.startswith("conv-sparse")
    assert wide.choice.schedule.fields
    dense = next(other for other in wide.choice.rejected if other.family == "conv-dense")
    assert dense.cost is not None
    assert dense.cost > wide.choice.cost
    assert any(name.startswith(("pcc_conv_sparse", "pcc_conv_interleaved")) for name in wide.kernels)
    assert wide.weight_bytes >= 4 * 4 * kept


def test_dense_layers_say_why(report: CompileReport) -> None:
    stem = layers(report)["stem"]
    assert stem.choice is not None
    assert stem.choice.family.startswith("conv-dense")
    assert stem.format == "dense"
    assert any(reason.pass_name == "select-kernels" for reason in stem.left_alone)


def test_a_module_that_is_used_twice_is_two_layers(report: CompileReport) -> None:
    assert [layer.layer for layer in report.targets[0].layers if layer.layer == "again"] == ["again", "again"]
    assert len(layers(report)) == len(report.targets[0].layers)


def test_families_are_counted_from_the_layers(report: CompileReport) -> None:
    for target in report.targets:
        assert sum(target.families.values()) == 5


def test_the_manifest_gives_back_what_was_written(report: CompileReport) -> None:
    manifest = open_package(report.package).manifest
    # What JSON has no tuples for comes back as lists.
    assert json.loads(manifest.model_dump_json()) == json.loads(report.manifest.model_dump_json())


def test_a_program_without_a_graph() -> None:
    program = toy_program(depth=2)
    found = layer_reports(program)
    assert [layer.layer for layer in found] == ["scale.0", "mix.0", "scale.1", "mix.1"]
    assert [call.kernel for layer in found for call in layer.calls] == [call.kernel.name for call in program.calls]
    assert found[0].choice is None
    assert (found[0].macs, found[0].dense_macs, found[0].weight_bytes) == (37 * 13, 2 * 37 * 13, 37 * 4)


def test_a_copy_into_an_output_is_no_layer_of_the_graph(tmp_path: Path) -> None:
    report = pcc.compile(lambda x: x[:, 1:3], torch.zeros(2, 4, 3), tmp_path / "part")
    assert [layer.node for layer in report.targets[0].layers] == [""]

"""``pcc inspect``, ``explain``, ``dump`` and ``diff-ir``, of models and of packages."""

import json
from pathlib import Path

import onnx
import pytest

from pcc.cli.app import COMMANDS
from tests.cli.conftest import SHAPE


@pytest.fixture(scope="module")
def package(factory: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pcc.cli.app import run

    path = tmp_path_factory.mktemp("package") / "net"
    assert run(["compile", factory, "--input-shape", SHAPE, "-o", str(path), "--prune", "connectivity{rate=2}"]) == 0
    return path


def test_inspect_counts_what_there_is(pcc, factory: str, package: Path) -> None:
    of_model = json.loads(pcc("inspect", factory, "--input-shape", SHAPE, "--json").out)
    assert of_model["inputs"] == {"x": {"shape": [2, 3, 13, 11], "dtype": "f32"}}
    layers = {layer["layer"]: layer for layer in of_model["layers"]}
    assert layers["conv2"]["counts"]["parameters"] == 8 * 8 * 9 + 8
    assert of_model["totals"]["macs"] == sum(2 * macs for macs in (8 * 3 * 9 * 7 * 6, 8 * 8 * 9 * 7 * 6, 8 * 4))
    of_package = json.loads(pcc("inspect", package, "--json").out)
    pruned = {layer["layer"]: layer for layer in of_package["layers"]}["conv2"]
    assert pruned["counts"]["kept_macs"] == pruned["counts"]["macs"] // 2
    assert pruned["structure"]["kind"] == "Kernels"
    text = pcc("inspect", package).out
    assert "kernels{rate=2}" in text
    assert "lib/" in text


def test_explain_a_model_before_any_training(pcc, factory: str) -> None:
    found = json.loads(pcc("explain", factory, "--input-shape", SHAPE, "--cpu", "x86-64-v3", "--json").out)
    layers = {layer["layer"]: layer for layer in found["layers"] if layer["choice"]}
    assert list(layers) == ["conv1", "conv2", "fc"]
    assert layers["conv2"]["gain"] == 1
    assert [price["rate"] for price in layers["conv2"]["pruned"]["prices"]] == [1, 1.25, 2, 4, 8, 16]
    assert layers["fc"]["pruned"]["reason"] == "the passes that prune cut convolutions"
    assert all(layer["choice"]["rejected"] for layer in layers.values())
    assert found["pruning"] == "prune-pattern,prune-connectivity"


def test_explain_says_what_pruning_brings(pcc, factory: str) -> None:
    outcome = pcc("explain", factory, "--input-shape", SHAPE, "--cpu", "x86-64-v3", "--prune", "connectivity{rate=4}")
    assert outcome.status == 0, outcome.err
    (row,) = [line for line in outcome.out.splitlines() if line.startswith("conv2 ")]
    assert "kernels{rate=" in row
    assert "25.0" in row
    assert "conv1: the first convolution is spared" not in outcome.out, "it would pay or not, spared or not"
    assert "(conv1): the first convolution is spared" in outcome.out
    assert "prune-connectivity{rate=4.0} from which on" in outcome.out


def test_explain_a_package_is_what_it_was_compiled_with(pcc, factory: str, package: Path) -> None:
    found = json.loads(pcc("explain", package, "--json").out)
    manifest = json.loads((package / "manifest.json").read_text())["targets"][0]
    assert [layer["choice"] for layer in found["layers"]] == [layer["choice"] for layer in manifest["layers"]]
    assert found["cpu"] == manifest["cpu"]
    assert "pays from" not in pcc("explain", package).out
    assert "has no code for sparc, only for" in pcc("explain", package, "--target", "sparc").error


def test_explain_a_package_of_another_pcc(pcc, package: Path, tmp_path: Path) -> None:
    """Its costs may be of other kinds."""
    manifest = json.loads((package / "manifest.json").read_text())
    manifest["targets"][0]["profile"]["costs"] = {"fma": 1}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    outcome = pcc("explain", tmp_path)
    assert (outcome.status, outcome.err) == (0, "")
    assert "; costs by " in outcome.out


def test_dump_of_a_model_is_that_of_its_package(pcc, factory: str, package: Path, tmp_path: Path) -> None:
    for stage in ("import", "prune-connectivity", "program"):
        of_package = pcc("dump", package, "--after", stage).out
        assert (
            pcc("dump", factory, "--input-shape", SHAPE, "--prune", "connectivity{rate=2}", "--after", stage).out
            == of_package
        )
    assert pcc("dump", package).out == next((package / "ir").glob("*_select-kernels.txt")).read_text()
    assert pcc("dump", package, "-o", tmp_path / "net.txt").out == ""
    assert (tmp_path / "net.txt").read_text() == pcc("dump", package / "ir").out


def test_a_view_has_what_is_known_as_metadata(pcc, factory: str, tmp_path: Path) -> None:
    view = tmp_path / "net.onnx"
    assert pcc("dump", factory, "--input-shape", SHAPE, "--prune", "connectivity{rate=2}", "-o", view).status == 0
    model = onnx.load(view)
    onnx.checker.check_model(model)
    nodes = {node.name: {entry.key: entry.value for entry in node.metadata_props} for node in model.graph.node}
    assert nodes["conv2"]["pcc.Kernels"] == "kernels{rate=2}"
    assert nodes["conv2"]["pcc.KernelChoice"].startswith("kernel(conv-")
    assert nodes["conv1"]["skipped.prune-connectivity"].startswith("the first convolution is spared")
    assert int(nodes["conv2"]["count.macs"]) == 2 * 8 * 8 * 9 * 7 * 6
    assert [value.name for value in model.graph.input] == ["x"]


def test_diff_ir_by_layer(pcc, factory: str, package: Path, tmp_path: Path) -> None:
    assert pcc("dump", factory, "--input-shape", SHAPE, "-o", tmp_path / "dense.txt").status == 0
    outcome = pcc("diff-ir", tmp_path / "dense.txt", package)
    assert outcome.status == 1
    assert "conv2\n" in outcome.out
    assert "+     # kernels{rate=2}" in outcome.out
    assert "\nfc\n" not in outcome.out
    same = pcc("diff-ir", package, package / "ir", "--after", "program")
    assert (same.status, same.out.startswith("0 layers differ")) == (0, True)
    as_json = pcc("diff-ir", factory, package, "--input-shape", SHAPE, "--json")
    assert as_json.status == 1
    assert "conv2" in [layer["layer"] for layer in json.loads(as_json.out)["layers"]]
    assert pcc("diff-ir", package, package, "--json").status == 0
    assert "goes with a model" in pcc("diff-ir", package, tmp_path / "dense.txt", "--input-shape", SHAPE).error
    texts = ["diff-ir", tmp_path / "dense.txt", tmp_path / "dense.txt"]
    assert "are texts of one stage" in pcc(*texts, "--after", "program").error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "vgg17"], "vgg16"),
        (["explain", "vgg17"], "vgg16"),
        (["explain", "lenet5", "--cpu", "generic"], "explain for one processor at a time, not for --cpu generic"),
        (["explain", "lenet5", "--prune", "patern"], "--prune takes"),
        (["explain", "lenet5", "--weights", "none", "-p", "canonicalize"], "no select-kernels"),
        (["explain", "{package}", "--prune", "pattern"], "--prune goes with a model, and"),
        (["inspect", "{package}", "--weights", "none"], "--weights goes with a model, and"),
        (
            ["dump", "{package}", "--after", "selectkernels"],
            "has no stage 'selectkernels': choose one of import, decompose",
        ),
        (["dump", "lenet5", "--weights", "none", "--after", "selectkernels"], "did you mean select-kernels?"),
        (["dump", "lenet5", "-o", "net.dot"], "give a file that ends in .txt or .onnx"),
        (
            ["dump", "lenet5", "--weights", "none", "--after", "program", "-o", "net.onnx"],
            "the kernel program is no graph",
        ),
        (["dump", "{package}", "-o", "net.onnx"], "holds stages as text: a view is made of the model"),
        (["dump", "{empty}"], "has no dumps"),
        (["diff-ir", "{package}", "gone.txt"], "gone.txt: no such file"),
        (["diff-ir", "{empty}/hello.txt", "{empty}/hello.txt"], "hello.txt is no text of pcc dump"),
        (["diff-ir", "{empty}/nothing.txt", "{empty}/nothing.txt"], "nothing.txt is no text of pcc dump"),
        (["diff-ir", "{package}", "{empty}"], "has no dumps"),
    ],
)
def test_wrong_use_is_one_line(
    pcc, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "hello.txt").write_text("hello world\n")
    (tmp_path / "empty" / "nothing.txt").touch()
    assert message in pcc(*(argument.format(package=package, empty=tmp_path / "empty") for argument in arguments)).error
    assert not [path for path in tmp_path.iterdir() if path.name != "empty"]


def test_help_is_not_cut(pcc) -> None:
    commands = pcc("--help").out.partition("Commands:")[2]
    assert "..." not in commands
    assert " ".join(commands.split()).count("whether pruning would pay.") == 1, "the end of a long sentence"
    assert all(f"\n  {name} " in commands for name in COMMANDS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--weights", "nones"],
            "there is no file 'nones': give a checkpoint (FILE or FILE:KEY), 'none', or for a zoo model 'trained'",
        ),
        (
            ["--machine-profile", "zen9"],
            "processor profile zen9: no such file; give one that pcc tune --calibrate wrote, or 'built-in'",
        ),
        (["--target", "sparc"], "choose one of x86_64-linux"),
        (["--cpu", "z80"], "choose native, generic or one of x86-64-v3"),
        (["--prune", "patern"], "--prune takes pattern, "),
        (["-p", "zzz"], "choose one of decompose"),
        (["--prune", "connectivity{layers={conv9=3}}"], "no layer that can be pruned is called 'conv9': did you mean"),
    ],
)
def test_a_wrong_name_says_which_are_right(pcc, options: list[str], message: str) -> None:
    weights = [] if "--weights" in options else ["--weights", "none"]
    assert message in pcc("explain", "lenet5", *weights, *options).error


def test_a_damaged_package_is_one_line(pcc, package: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(package, tmp_path / "net")
    (tmp_path / "net" / "ir" / "000_import.txt").write_bytes(b"\xff\xfe")
    assert "000_import.txt is damaged" in pcc("dump", tmp_path / "net").error
    (tmp_path / "net" / "manifest.json").write_text("{")
    for command in ("inspect", "explain", "dump"):
        assert "manifest.json is damaged" in pcc(command, tmp_path / "net").error

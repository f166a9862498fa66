"""Networks that come in as files, compiled and compared: ``python -m tests.frontend.imported_networks [PATTERN]``
prints a table, a file a row.

Each network of the zoo is written as ONNX by both exporters of PyTorch and as ``.pt2``, dense, pruned by pcc in one
shot, and with filters that are dropped, and each of `tests.public` by one of them; compiled from the file for x86-64
and for arm64; and run here and under emulation, against ONNX Runtime (PyTorch for ``.pt2``) on the file.
"""

import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch._ops import OpOverload

import pcc
from pcc.deploy import Qemu
from pcc.exporter import export_model
from pcc.frontend.imported import import_model
from pcc.models import create, entry
from pcc.models.registry import names
from pcc.package import open_package
from pcc.passes.pipeline import insert_pruning
from tests.frontend.onnx.models import export, run_onnxruntime
from tests.public import KINDS, make
from tools.table import table

LEFT_OUT = ("vgg16", "vgg16_bn", "vgg8-pruned")
"""The same operators as smaller ones have, in files of half a gigabyte; and a checkpoint of vgg8."""

SMALL = 96
"""Photos are this wide, at most: emulation is slow."""

EMULATED = "cortex-a76"

TOLERANCE = 2e-4
"""fp32 rounds to 0.3e-4 in fifty layers of random weights, and Winograd's forms, which not every processor gets, to
1.1e-4 (ResNet-50)."""

EXPORTERS: dict[str, dict[str, Any]] = {
    "onnx-11": {"dynamo": False, "opset": 11},
    "onnx-17": {"dynamo": False, "opset": 17},
    "onnx-dynamo": {"dynamo": True, "opset": 18},
}
ORIGINS = ("onnx-11", "onnx-dynamo", "pt2")
"""Of the zoo's networks; PyTorch does not write many of the others in opset 11."""
PUBLIC_ORIGINS = ("onnx-17", "onnx-dynamo", "pt2")
STATES = ("dense", "pruned", "dropped")
PRUNE = "pattern{patterns=8,spare_first=false},connectivity{rate=2,spare_first=false}"


@dataclass(frozen=True)
class Case:
    """A file to compile."""

    network: str
    origin: str
    state: str

    def __str__(self) -> str:
        return f"{self.network}-{self.origin}-{self.state}"


@dataclass(frozen=True)
class Result:
    """What came of it; errors are relative to the largest number."""

    operators: Counter[str]
    x86_64: float
    arm64: float | None
    """None where it was not run."""


class NotExported(Exception):  # no error of pcc
    """PyTorch does not write a network by one of its ways."""


def cases() -> list[Case]:
    """Every network by every way dense; pruned and dropped by one way each, in turn."""
    chosen = [name for name in names() if name not in LEFT_OUT]
    dense = [Case(name, origin, "dense") for name in chosen for origin in ORIGINS]
    others = [
        Case(name, ORIGINS[(place + shift) % 3], state)
        for place, name in enumerate(chosen)
        for shift, state in enumerate(STATES[1:])
    ]
    public = [Case(name, PUBLIC_ORIGINS[place % 3], "dense") for place, name in enumerate(KINDS)]
    return dense + others + public


def network(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A network with random weights and statistics, and inputs for it."""
    if name in KINDS:
        return make(name)
    torch.manual_seed(0)
    module = create(name, None).eval()
    n, c, h, w = entry(name).input_shape
    return module, (torch.randn(n, c, min(h, SMALL), min(w, SMALL)),)


def write(case: Case, folder: Path) -> tuple[Path, tuple[Tensor, ...]]:
    """The case's file and inputs. A pruned network, and one with dropped filters, is what `pcc.exporter` makes of it
    first."""
    module, inputs = network(case.network)
    path = folder / f"net.{'pt2' if case.origin == 'pt2' else 'onnx'}"
    if case.state == "dense":
        _export(module, inputs, path, case.origin)
    elif case.state == "pruned":
        _export(
            _after(
                module, inputs, folder, insert_pruning("decompose,canonicalize,fold-constants,fold-batchnorm", PRUNE)
            ),
            inputs,
            path,
            case.origin,
        )
    else:
        _silence(module)
        _export(
            _after(module, inputs, folder, "decompose,canonicalize,fold-constants,fold-batchnorm,drop-filters"),
            inputs,
            path,
            case.origin,
        )
    return path, inputs


def _after(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path, pipeline: str) -> nn.Module:
    export_model(module, inputs, out=folder / "after.pt2", pipeline=pipeline)
    return torch.export.load(folder / "after.pt2").module()


def _silence(module: nn.Module) -> None:
    """A third of each convolution's filters are 0, with their bias and what a batch norm behind makes of them: so
    drop-filters can drop them."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
                layer.weight[: len(layer.weight) // 3] = 0
                if layer.bias is not None:
                    layer.bias[: len(layer.weight) // 3] = 0


def _export(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, origin: str) -> None:
    if origin == "pt2":
        torch.export.save(torch.export.export(module, inputs), path)
        return
    try:
        export(module, inputs, path, **EXPORTERS[origin])
    except Exception as error:  # the exporter's own
        raise NotExported(f"not exported: {str(error).split(chr(10), 1)[0]}") from error


def expected(path: Path, inputs: tuple[Tensor, ...]) -> list[np.ndarray]:
    """What the file computes, by those who defined its format."""
    if path.suffix == ".pt2":
        with torch.no_grad():
            return _arrays(torch.export.load(path).module()(*inputs))
    return _arrays(run_onnxruntime(path, inputs))


def operators(path: Path) -> Counter[str]:
    if path.suffix == ".onnx":
        return Counter(node.op_type for node in onnx.load(path).graph.node)
    calls = [node.target for node in import_model(path).graph.graph.nodes if node.op == "call_function"]
    return Counter(str(target).split(".")[1] if isinstance(target, OpOverload) else target.__name__ for target in calls)  # type: ignore[union-attr]


def check(case: Case, emulated: bool = True) -> Result:
    """Compiles a case and runs it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, inputs = write(case, folder)
        wanted = expected(path, inputs)
        images = [
            x.numpy().view(np.uint8) if x.dtype == torch.bool else x.numpy() for x in inputs
        ]  # truth values are bytes in a library
        targets = ["x86_64-linux", *(["aarch64-linux"] if emulated else [])]
        pcc.compile(path, None, folder / "package", target=targets, name="net")
        with pcc.load(folder / "package", threads=1) as model:
            native = _arrays(model(*images))
        there = Qemu(EMULATED).run(open_package(folder / "package"), images, threads=2) if emulated else None
        return Result(operators(path), _error(native, wanted), None if there is None else _error(there, wanted))


def _arrays(values: Any) -> list[np.ndarray]:
    return [
        np.asarray(value)
        for value in (
            values if isinstance(values, tuple | list) else values.values() if isinstance(values, dict) else (values,)
        )
    ]


def _error(got: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    assert [value.shape for value in got] == [value.shape for value in wanted]
    return max(
        float(np.abs(have.astype(np.float64) - want).max() / max(1e-6, np.abs(want).max()))
        for have, want in zip(got, wanted, strict=True)
    )


@click.command()
@click.argument("pattern", default="")
def main(pattern: str) -> None:
    """Compile and run the networks whose NETWORK-ORIGIN-STATE contains PATTERN, a regular expression."""
    rows, failed = [], 0
    for case in cases():
        if not re.search(pattern, str(case)):
            continue
        try:
            result = check(case)
            kinds = ", ".join(f"{name} {count}" for name, count in sorted(result.operators.items()))
            rows.append(
                (
                    case.network,
                    case.origin,
                    case.state,
                    kinds,
                    f"{result.x86_64:.1e}",
                    "-" if result.arm64 is None else f"{result.arm64:.1e}",
                )
            )
            failed += max(result.x86_64, result.arm64 or 0) > TOLERANCE
        except NotExported as error:
            rows.append((case.network, case.origin, case.state, str(error), "-", "-"))
        except (pcc.PccError, AssertionError) as error:
            rows.append((case.network, case.origin, case.state, f"failed: {error}", "-", "-"))
            failed += 1
        click.echo(" | ".join(rows[-1]), err=True)
    click.echo(table(("network", "origin", "state", "operators", "error, x86-64", "error, arm64"), rows))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

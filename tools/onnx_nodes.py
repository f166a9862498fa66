"""ONNX's own tests of its operators, run through pcc's importer: ``python -m tools.onnx_nodes [PATTERN]`` prints
passed, refused and wrong by operator.

A test is a model of one node (or of the nodes that define it) with inputs and outputs. Its inputs are the graph's
inputs, except where an operator needs some to be known (axes, shapes, weights): then those are initializers, as
exporters write them. The graph is run by PyTorch; with ``--compiled``, what has static inputs and outputs is compiled,
too, and the library is run, whose truth values are bytes.
"""

import re
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from pcc.errors import PccError
from pcc.frontend.onnx.importer import build_graph
from pcc.frontend.onnx.read import read_model
from pcc.ir.verify import run_graph
from tools.table import table


@dataclass(frozen=True)
class Outcome:
    """What came of one test."""

    test: str
    operator: str
    verdict: str
    """``passed``, ``refused``, ``wrong`` or ``crashed``."""
    reason: str = ""


def run_tests(pattern: str = "", compiled: bool = False) -> Iterator[Outcome]:
    """The outcomes of ONNX's node tests whose names contain a regular expression."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [case for case in collect_testcases(None) if re.search(pattern, case.name)]  # type: ignore[arg-type]  # None: all operators
    for case in cases:
        model = case.model
        assert model is not None
        assert case.data_sets is not None
        inputs, outputs = case.data_sets[0]
        tolerance = max(case.rtol, 1e-3), max(case.atol, 1e-6)
        yield _outcome(
            case.name,
            _operator(case.name, model),
            model,
            inputs,
            outputs,
            tolerance,
            _compiled if compiled else _interpreted,
        )


def _operator(name: str, model: onnx.ModelProto) -> str:
    operators = list(dict.fromkeys(node.op_type for node in model.graph.node))
    return operators[0] if len(operators) == 1 else f"({name.removeprefix('test_').split('_')[0]}, as its function)"


def _outcome(
    test: str,
    operator: str,
    model: onnx.ModelProto,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    tolerance: tuple[float, float],
    run: Any,
) -> Outcome:
    try:
        arrays = [_array(value) for value in inputs]
        expected = [_array(value) for value in outputs]
    except PccError as error:
        return Outcome(test, operator, "refused", str(error))
    refusal = ""
    for known in _choices(arrays):
        if run is _compiled and len(known) == len(arrays):
            continue  # nothing would be left to compile
        try:
            results = run(
                _with_known(model, arrays, known), [array for place, array in enumerate(arrays) if place not in known]
            )
            if operator == "NonMaxSuppression":
                results = [
                    results[0][: int(results[1][0])]
                ]  # the second output counts the rows, behind which stands -1
        except PccError as error:
            refusal = refusal or str(error)
            continue
        except Exception as error:
            return Outcome(test, operator, "crashed", f"{type(error).__name__}: {error}")
        difference = _difference(results, expected, *tolerance)
        return Outcome(test, operator, "wrong" if difference else "passed", difference)
    return Outcome(test, operator, "refused", refusal)


def _choices(arrays: Sequence[np.ndarray]) -> list[set[int]]:
    """Which inputs are known: none; else the integers and small ones behind the first; else all behind the first; else
    all."""
    small = {place for place, array in enumerate(arrays) if place and (array.dtype.kind in "iub" or array.size <= 8)}
    behind = set(range(1, len(arrays)))
    return [
        set(),
        *({frozenset(choice): choice for choice in (small, behind, set(range(len(arrays)))) if choice}.values()),
    ]


def _with_known(model: onnx.ModelProto, arrays: Sequence[np.ndarray], known: set[int]) -> onnx.ModelProto:
    """The model with some of its inputs as initializers."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    inputs = list(changed.graph.input)
    del changed.graph.input[:]
    changed.graph.input.extend(value for place, value in enumerate(inputs) if place not in known)
    changed.graph.initializer.extend(
        numpy_helper.from_array(arrays[place], inputs[place].name) for place in sorted(known)
    )
    return changed


def _interpreted(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The graph's outputs, by PyTorch."""
    parsed, name = read_model(model)
    tensors = [torch.from_numpy(np.array(array)) for array in inputs]
    return [value.numpy() for value in run_graph(build_graph(parsed, name, tensors), tensors)]


def _compiled(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The compiled library's outputs."""
    import pcc

    with tempfile.TemporaryDirectory() as folder:
        pcc.compile(
            model, tuple(torch.from_numpy(np.array(array)) for array in inputs), Path(folder) / "net", name="net"
        )
        results = pcc.load(Path(folder) / "net")(
            *(array.view(np.uint8) if array.dtype == np.bool_ else array for array in inputs)
        )
        return [
            np.array(value)
            for value in (
                results.values() if isinstance(results, dict) else results if isinstance(results, tuple) else (results,)
            )
        ]


_TYPES = [
    np.dtype(name) for name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
]


def _array(value: Any) -> np.ndarray:
    """An input or output as an array that PyTorch takes; `PccError` for text, sequences and small floats."""
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    array = np.asarray(value) if not isinstance(value, list) else None
    if array is None or array.dtype not in _TYPES:
        raise PccError(f"values of type {type(value).__name__ if array is None else array.dtype}")
    return array


def _difference(results: Sequence[np.ndarray], expected: Sequence[np.ndarray], relative: float, absolute: float) -> str:
    if len(results) != len(expected):
        return f"{len(results)} outputs, not {len(expected)}"
    for have, want in zip(results, expected, strict=True):
        if want.dtype == np.bool_ and have.dtype == np.uint8:
            have = have.astype(np.bool_)
        if (have.dtype, have.shape) != (want.dtype, want.shape):
            return f"{have.dtype}{list(have.shape)}, not {want.dtype}{list(want.shape)}"
        absolute = max(absolute, 1e-3) if want.dtype == np.float16 else absolute
        if not np.allclose(have.astype(np.float64), want.astype(np.float64), relative, absolute, equal_nan=True):
            return f"differs by {np.nanmax(np.abs(have.astype(np.float64) - want.astype(np.float64))):.3g}"
    return ""


@click.command()
@click.argument("pattern", default="")
@click.option("--compiled", is_flag=True, help="Compile each test and run the library.")
@click.option("--all", "everything", is_flag=True, help="Print each test that did not pass, and why.")
def main(pattern: str, compiled: bool, everything: bool) -> None:
    """Run ONNX's node tests whose names contain PATTERN, a regular expression."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in run_tests(pattern, compiled):
        counts[outcome.operator][outcome.verdict] += 1
        if outcome.verdict in ("wrong", "crashed") or (everything and outcome.verdict == "refused"):
            click.echo(f"{outcome.verdict} {outcome.test}: {outcome.reason}")
    total: Counter[str] = Counter()
    for count in counts.values():
        total.update(count)
    verdicts = ("passed", "refused", "wrong", "crashed")
    rows = [
        (operator, *(str(count[verdict]) for verdict in verdicts))
        for operator, count in [*sorted(counts.items()), ("total", total)]
    ]
    click.echo(table(("operator", *verdicts), rows))
    sys.exit(1 if total["wrong"] or total["crashed"] else 0)


if __name__ == "__main__":
    main()

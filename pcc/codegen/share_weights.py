"""One constant for weights that a processor's kernels and a GPU's read: the GPU's program prepares its own from the
processor's. (Constants of equal bytes are one in a library anyhow: weights of sparse windows of several taps are.)"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pcc.codegen.packing import weight_digest
from pcc.codegen.program import Buffer, Call, Program, View, contiguous_strides
from pcc.dtype import dtype_of


def share_weights(program: Program[Any], others: Iterable[Program[Any]]) -> Program[Any]:
    """The program, its preparation reading weights as constants of ``others`` have them, where one of these holds the
    same weight; and its sparse weights made of the lists of ``others``, where these have them."""
    others = list(others)
    shipped = {
        packing.digest: (other.constants[name], packing.rows)
        for other in others
        for name, packing in other.packings.items()
        if packing.rows is not None
    }
    sharing = _Sharing(program)
    preparation = []
    for call in program.preparation:
        weight = call.args["weight"]
        assert isinstance(weight, View)
        found = shipped.get(weight_digest(program.constants[weight.buffer]))
        preparation.append(call if found is None else sharing.reading(call, *found))
    calls = sharing.unlisting(others, preparation)
    program = replace(
        program,
        calls=tuple(calls),
        preparation=tuple(preparation),
        buffers=sharing.buffers,
        constants=sharing.constants,
    )
    return _without_unread(program)


class _Sharing:
    """The constants of a program, and those that come to it."""

    def __init__(self, program: Program[Any]) -> None:
        self.program, self.buffers, self.constants = program, dict(program.buffers), dict(program.constants)

    def reading(self, call: Call[Any], weight: np.ndarray, rows: np.ndarray) -> Call[Any]:
        """A call that prepares from a weight whose numbers lie where rows say."""
        tables = {"weight": weight, "rows": rows}
        name = call.args["weight"]
        assert isinstance(name, View)
        views = {what: self._constant(f"{name.buffer}.shared.{what}", values) for what, values in tables.items()}
        return replace(call, args={**call.args, **views})

    def unlisting(self, others: Sequence[Program[Any]], preparation: list[Call[Any]]) -> list[Call[Any]]:
        """The program's calls, reading tables that calls at the end of ``preparation`` make of lists."""
        known = {listed.digest: (listed, other) for other in others for listed in other.listed.values()}
        unlisted: dict[tuple[str, str], dict[str, str]] = {}
        for pair, tables in self.program.from_lists.items():
            if found := known.get(tables.digest):
                listed, other = found
                views = {
                    "entries": self._constant(f"{tables.weights}.entries", other.constants[listed.entries]),
                    "lists": self._constant(f"{tables.weights}.lists", other.constants[listed.lists]),
                    "weight": self._prepared(tables.weights),
                    "places": self._prepared(tables.places),
                }
                preparation.append(tables.call(listed, views))
                unlisted[pair] = {
                    name: views[what].buffer for name, what in zip(pair, ("weight", "places"), strict=True)
                }
        return [_reading_unlisted(call, unlisted) for call in self.program.calls]

    def _prepared(self, constant: str) -> View:
        """A buffer like a constant, which is filled when the library is loaded."""
        name, values = f"{constant}.made", self.constants[constant]
        while name in self.buffers:  # the places of several weights may be one constant
            name += "+"
        dtype = dtype_of(values.dtype)
        self.buffers[name] = Buffer(name, "prepared", values.size, dtype)
        return View(name, values.shape, contiguous_strides(values.shape), dtype=dtype)

    def _constant(self, name: str, values: np.ndarray) -> View:
        dtype = dtype_of(values.dtype)
        self.buffers[name] = Buffer(name, "constant", values.size, dtype)
        self.constants[name] = values
        return View(name, values.shape, contiguous_strides(values.shape), dtype=dtype)


def _reading_unlisted(call: Call[Any], unlisted: Mapping[tuple[str, str], Mapping[str, str]]) -> Call[Any]:
    """A call with its tables where these say, by the names of the constants that they replace."""
    read = {value.buffer for value in call.args.values() if isinstance(value, View)}
    names = next((names for pair, names in unlisted.items() if read.issuperset(pair)), {})
    args = {
        name: replace(value, buffer=names[value.buffer]) if isinstance(value, View) and value.buffer in names else value
        for name, value in call.args.items()
    }
    return replace(call, args=args) if names else call


def _without_unread(program: Program[Any]) -> Program[Any]:
    """The program without constants that no call reads."""
    calls = (*program.preparation, *program.calls)
    read = {value.buffer for call in calls for value in call.args.values() if isinstance(value, View)}
    unread = program.constants.keys() - read - {port.buffer for port in program.outputs}
    return replace(
        program,
        buffers={name: buffer for name, buffer in program.buffers.items() if name not in unread},
        constants={name: values for name, values in program.constants.items() if name not in unread},
    )

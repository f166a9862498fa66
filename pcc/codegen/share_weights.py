"""One constant for weights that a processor's kernels and a GPU's read: the GPU's program prepares its own from the
processor's."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from pcc.codegen.packing import weight_digest
from pcc.codegen.program import Buffer, Call, Program, View, contiguous_strides
from pcc.dtype import dtype_of


def share_weights(program: Program[Any], others: Iterable[Program[Any]]) -> Program[Any]:
    """The program, its preparation reading weights as constants of ``others`` have them, where one of these holds the
    same weight."""
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
    program = replace(program, preparation=tuple(preparation), buffers=sharing.buffers, constants=sharing.constants)
    return _without_unread(program)


class _Sharing:
    """The constants of a program, and those that come to it."""

    def __init__(self, program: Program[Any]) -> None:
        self.buffers, self.constants = dict(program.buffers), dict(program.constants)

    def reading(self, call: Call[Any], weight: np.ndarray, rows: np.ndarray) -> Call[Any]:
        """A call that prepares from a weight whose numbers lie where rows say."""
        tables = {"weight": weight, "rows": rows}
        name = call.args["weight"]
        assert isinstance(name, View)
        views = {what: self._constant(f"{name.buffer}.shared.{what}", values) for what, values in tables.items()}
        return replace(call, args={**call.args, **views})

    def _constant(self, name: str, values: np.ndarray) -> View:
        dtype = dtype_of(values.dtype)
        self.buffers[name] = Buffer(name, "constant", values.size, dtype)
        self.constants[name] = values
        return View(name, values.shape, contiguous_strides(values.shape), dtype=dtype)


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

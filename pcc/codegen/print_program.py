"""The kernel program as text: ports, calls with their arguments, and where each buffer lies. Stable, so that two of
them compare with diff."""

from collections.abc import Iterator
from typing import Any

from pcc.codegen.plan_memory import buffer_lifetimes, memory_lower_bound
from pcc.codegen.program import Call, Port, Program, View


def print_program(program: Program[Any]) -> str:
    """The text of ``program.txt``."""
    return "\n".join([*_header(program), "", *_calls(program), "", *_buffers(program), ""])


def _header(program: Program[Any]) -> Iterator[str]:
    yield f"program {program.name}"
    weights = f"weights {sum(values.nbytes for values in program.constants.values())} bytes"
    weights += f", prepared {program.prepared_bytes} bytes" if program.prepared_bytes else ""
    planned = _memory(program) if program.arena_bytes else "memory not planned"
    macs = sum(call.macs for call in program.calls)
    yield f"# {len(program.calls)} calls, {len(program.kernels)} kernels, {macs} MACs, {weights}, {planned}"
    yield from _left(program)
    if program.max_batch:
        yield f"# of one image, for batches of up to {program.max_batch}"
    yield from (_port("input", port) for port in program.inputs)
    yield from (_port("output", port) for port in program.outputs)


def _left(program: Program[Any]) -> Iterator[str]:
    """What a GPU's program leaves to the processor."""
    left = [call for call in program.calls if call.is_on_host]
    if left:
        copies = [value for call in left if call.kernel.step is None for value in [call.args["x"]]]
        moved = sum(value.nbytes for value in copies if isinstance(value, View))
        steps = len(left) - len(copies)
        yield f"# {steps} of them on the processor, with {len(copies)} copies of {moved} bytes"


def _memory(program: Program[Any]) -> str:
    of_threads = f", {program.thread_bytes} bytes for each thread" if program.thread_bytes else ""
    return f"arena {program.arena_bytes} bytes, lower bound {memory_lower_bound(program)}{of_threads}"


def _port(kind: str, port: Port) -> str:
    return f"{kind} {port.name}: {port.dtype.short}{_sizes(port.shape)} in %{port.buffer}"


def _calls(program: Program[Any]) -> Iterator[str]:
    stages = {stage.begin: stage for stage in program.batch_stages}
    yield from (
        f"once {call.kernel.name}({_arguments(program, call)}) for {call.range or f'{call.work} items'}  # {call.layer}"
        for call in program.preparation
    )
    for index, call in enumerate(program.calls):
        if index in stages:
            yield f"# {'all images at once' if stages[index].at_once else 'one image after the other'}"
        macs = f", {call.macs} of {call.dense_macs} MACs" if call.dense_macs else ""
        work = _on_host(call) if call.is_on_host else f"for {call.range or f'{call.work} items{_together(call)}'}"
        yield f"{index:03d} {call.kernel.name}({_arguments(program, call)}) {work}  # {call.layer}{macs}"


def _on_host(call: Call[Any]) -> str:
    return "on the processor" + ("" if call.kernel.step is None else f", its call {call.kernel.step:03d}")


def _together(call: Call[Any]) -> str:
    return f" for each {call.together.images} images" if call.together else ""


def _arguments(program: Program[Any], call: Call[Any]) -> str:
    writes = {param.name for param in call.kernel.params if param.writes}
    return ", ".join(
        f"{name}={'&' if name in writes else ''}{_value(program, value)}" for name, value in call.args.items()
    )


def _value(program: Program[Any], value: View | int | float) -> str:
    if not isinstance(value, View):
        return f"{value:g}" if isinstance(value, float) else str(value)
    start = f"+{value.offset}" if value.offset else ""
    strides = "" if value.is_contiguous else f":{_sizes(value.strides)}"
    mark = "@" if program.buffers[value.buffer].is_weight else "%"
    return f"{mark}{value.buffer}{start}{_sizes(value.shape)}{strides}"


def _sizes(sizes: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, sizes))}]"


def _buffers(program: Program[Any]) -> Iterator[str]:
    lifetimes = buffer_lifetimes(program)
    for name, life in lifetimes.items():
        buffer = program.buffers[name]
        place = (
            "unplaced"
            if buffer.offset is None
            else f"at {buffer.offset}{' of each thread' if buffer.role == 'thread' else ''}"
        )
        images = f" for each of {buffer.images} images" if buffer.images > 1 else ""
        size = f"{buffer.nbytes} bytes{images}"
        yield f"%{name}: {buffer.dtype.short}[{buffer.elements}] {place}, {size}, calls {life.first}..{life.last}"
    for name, buffer in program.buffers.items():
        if buffer.role == "host":
            yield f"%{name}: {buffer.dtype.short}[{buffer.elements}] at {buffer.offset} of the processor's arena"
    for name, values in program.constants.items():
        yield f"@{name}: {program.buffers[name].dtype.short}{_sizes(values.shape)}, {values.nbytes} bytes"
    for name, buffer in program.buffers.items():
        if buffer.role == "prepared":
            place = "unplaced" if buffer.offset is None else f"at {buffer.offset} of what is prepared"
            yield f"@{name}: {buffer.dtype.short}[{buffer.elements}] {place}, {buffer.nbytes} bytes"

"""``include/<name>.h``: pcc.h, and the model's sizes as constants of the preprocessor."""

import re
from math import prod
from zlib import crc32

from pcc.codegen.c_text import c_comment
from pcc.codegen.program import Program


def model_header(program: Program) -> str:
    """The text of the header. Constants are named after the model, in capitals, with ``_`` for what C does not allow.

    Two models that become the same name ('toy-net' and 'Toy_net') are an error of the C compiler where one file
    includes both.
    """
    prefix = _macro(program.name)
    guard = f"{prefix}_{crc32(program.name.encode()):08X}_H"
    lines = [
        f"/* The model '{c_comment(program.name)}': include this, link lib{program.name}.so. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        '#include "pcc.h"',
        "",
        f"#ifdef {prefix}_INPUTS",
        f'#error "two models are both {prefix}_ in C: compile one of them under another name"',
        "#endif",
    ]
    if program.max_batch:
        lines.append(f"#define {prefix}_MAX_BATCH {program.max_batch} /* of pcc_run_batch; tensors are of this size */")
    for kind, ports in (("INPUT", program.inputs), ("OUTPUT", program.outputs)):
        lines.append(f"#define {prefix}_{kind}S {len(ports)}")
        for index, port in enumerate(ports):
            sizes = program.largest_shape(port)
            shape = " x ".join(map(str, sizes)) or "scalar"
            lines.append(
                f"#define {prefix}_{kind}_{index}_ELEMENTS {prod(sizes)} /* '{c_comment(port.name)}': {shape}, "
                f"{port.dtype.c} */"
            )
    return "\n".join([*lines, "", "#endif", ""])


def _macro(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name).upper()

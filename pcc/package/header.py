"""``include/<name>.h``: pcc.h, and the model's sizes as constants of the preprocessor."""

import re
from math import prod

from pcc.codegen.program import Program


def model_header(program: Program) -> str:
    """The text of the header. Names are the model's and the ports', in capitals, with ``_`` for what C does not allow."""
    prefix = _macro(program.name)
    lines = [
        f"/* The model '{program.name}': include this, link lib{program.name}.so. */",
        f"#ifndef {prefix}_H",
        f"#define {prefix}_H",
        "",
        '#include "pcc.h"',
        "",
    ]
    for kind, ports in (("INPUT", program.inputs), ("OUTPUT", program.outputs)):
        lines.append(f"#define {prefix}_{kind}S {len(ports)}")
        for index, port in enumerate(ports):
            shape = " x ".join(map(str, port.shape)) or "scalar"
            lines.append(f"#define {prefix}_{kind}_{index}_ELEMENTS {prod(port.shape)} /* '{port.name}': {shape}, float */")
    return "\n".join([*lines, "", "#endif", ""])


def _macro(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name).upper()

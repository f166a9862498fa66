"""``include/<name>.h``: pcc.h, the model's sizes as constants of the preprocessor, and its functions under names of its
own."""

import re
from functools import cache
from math import prod
from pathlib import Path
from zlib import crc32

from pcc.codegen.c_text import c_comment
from pcc.codegen.program import Program

INTERFACE = Path(__file__).parents[1] / "runtime" / "pcc.h"


@cache
def declarations() -> dict[str, str]:
    """The functions of pcc.h, and how each is declared."""
    found = re.finditer(r"^[a-z].*\b(pcc_\w+)\(.*\);", INTERFACE.read_text(), re.MULTILINE)
    return {match[1]: match[0] for match in found}


def own_name(model: str, function: str) -> str:
    """What a function of pcc.h is called in one model's library, besides its name in all of them."""
    return f"{_identifier(model)}_{function}"


def model_header(program: Program) -> str:
    """The text of the header. Constants are named after the model, in capitals, with ``_`` for what C does not allow.
    In a file that includes one model, ``pcc_run`` is that model's; one that includes several has to say whose it means,
    ``toy_net_pcc_run``: there ``pcc_run`` is an error of the C compiler.

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
    return "\n".join([*lines, "", *_functions(program.name), "", "#endif", ""])


def _functions(model: str) -> list[str]:
    functions = declarations()
    return [
        "/* pcc.h's functions, of this model. */",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "#pragma GCC visibility push(default)",
        *(line.replace(f"{name}(", f"{own_name(model, name)}(") for name, line in functions.items()),
        "#pragma GCC visibility pop",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#ifndef PCC_ONE_MODEL /* in a file with no other, they are meant by pcc.h's names */",
        "#define PCC_ONE_MODEL",
        *(f"#define {name} {own_name(model, name)}" for name in functions),
        f"#elif !defined PCC_SEVERAL_MODELS /* in one with several, say whose: {own_name(model, 'pcc_run')} */",
        "#define PCC_SEVERAL_MODELS",
        *(f"#undef {name}" for name in functions),
        f"#pragma GCC poison {' '.join(functions)}",
        "#endif",
    ]


def _identifier(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name)


def _macro(name: str) -> str:
    return _identifier(name).upper()

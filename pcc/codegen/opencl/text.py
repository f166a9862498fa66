"""The OpenCL C of a kernel: what TVM prints, put right, behind the macros that it uses."""

import re
from functools import cache
from typing import Any

from pcc.cache import writing_cache
from pcc.codegen.kernel_cache import entry_of, is_intact, make_entry, use_generation
from pcc.codegen.opencl.kernel import DeviceKernel
from pcc.dtype import FLOAT16, DType

_FILE = "kernel.cl"

_ARITHMETIC = {
    "float32": "#define LOW(v) (v).lo\n#define HIGH(v) (v).hi\n#define SPLAT(a) (float4)(a)\n"
    "#define VECTOR(a, b, c, d) (float4)((a), (b), (c), (d))\n"
    "#define FIRST_LANES(v, n) select((float4)(0.0f), (v), (int4)(0, 1, 2, 3) < (int4)(n))\n",
    "float16": "#pragma OPENCL EXTENSION cl_khr_fp16 : enable\n"
    "#define LOW(v) (v).lo\n#define HIGH(v) (v).hi\n#define SPLAT(a) (half4)(a)\n"
    "#define VECTOR(a, b, c, d) (half4)((a), (b), (c), (d))\n"
    "#define FIRST_LANES(v, n) select((half4)(0.0h), (v), (short4)(0, 1, 2, 3) < (short4)(n))\n",
}
"""Macros by what a kernel computes in."""

_ORDER = """\
#define LARGER(a, b) (isnan(a) || (a) > (b) ? (a) : (b))
#define SMALLER(a, b) (isnan(a) || (a) < (b) ? (a) : (b))
"""
"""Of numbers, a NaN if either is."""

_WORDS = "#define LOAD4_i32(p) (*(const __global int4*)(p))\n"

_WHOLE = """\
#define LOAD_{s}(p) (*(p))
#define LOAD4_{s}(p) (*(const __global {c}4*)(p))
#define LOAD4_ANYWHERE_{s}(p) vload4(0, (p))
#define LOAD8_{s}(p) {eight}
#define STORE_{s}(v, p) (*(p) = (v))
#define STORE4_{s}(v, p) (*(__global {c}4*)(p) = (v))
"""
"""Macros for tensors of the type that the kernel computes in."""

_EIGHT_HALVES = "as_half8(*(const __global uint4*)(p))"
"""Eight numbers of fp16 as one load of 16 bytes: compilers split half8 in two."""

_STORE_EIGHT_HALVES = "#define STORE8_f16(a, b, p) (*(__global uint4*)(p) = as_uint4((half8)((a), (b))))\n"

_HALF_IN_FLOAT = """\
#define LOAD_f16(p) vload_half(0, (p))
#if defined(cl_khr_fp16) && !defined(FP16_IN_MEMORY_ONLY)
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#define LOAD4_f16(p) convert_float4(*(const __global half4*)(p))
#define LOAD8_f16(p) convert_float8({eight})
#define STORE8_f16(a, b, p) (*(__global uint4*)(p) = as_uint4(convert_half8((float8)((a), (b)))))
#else
#define LOAD8_f16(p) vload_half8(0, (p))
#define STORE8_f16(a, b, p) vstore_half8((float8)((a), (b)), 0, (p))
#define LOAD4_f16(p) vload_half4(0, (p))
#endif
#define LOAD4_ANYWHERE_f16(p) vload_half4(0, (p))
#define STORE_f16(v, p) vstore_half((v), 0, (p))
#define STORE4_f16(v, p) vstore_half4((v), 0, (p))
"""
"""fp16 in memory only, which every device has. Where it has fp16 at all, four numbers that are aligned are one load;
FP16_IN_MEMORY_ONLY is for the tests' interpreter, which has it in memory only."""

_FLOAT_IN_HALF = """\
#define LOAD_f32(p) convert_half(*(p))
#define LOAD4_f32(p) convert_half4(*(const __global float4*)(p))
"""
"""Of biases and parameters, which stay fp32; tensors are of the type that is computed in."""


def macros(held: DType, arithmetic: DType) -> str:
    """Loads and stores of tensors that hold one type in a kernel that computes in another."""
    if held == arithmetic:
        if held == FLOAT16:
            return _WHOLE.format(s=held.short, c="half", eight=f"({_EIGHT_HALVES})") + _STORE_EIGHT_HALVES
        return _WHOLE.format(s=held.short, c="float", eight="(*(const __global float8*)(p))")
    return _HALF_IN_FLOAT.format(eight=_EIGHT_HALVES) if held == FLOAT16 else _FLOAT_IN_HALF


@cache
def opencl_text(kernel: DeviceKernel) -> str:
    """A program of one kernel, in OpenCL C 1.2; from the cache on disk when it is there."""
    folder = entry_of(f"opencl|{kernel!r}")
    if not is_intact(folder):
        with writing_cache():
            use_generation()
            make_entry(folder, lambda fresh: (fresh / _FILE).write_text(_write(kernel), encoding="ascii"))
    return (folder / _FILE).read_text(encoding="ascii")


def _write(kernel: DeviceKernel) -> str:
    import tvm

    from pcc.codegen.opencl.builder import build_device_function

    target = tvm.target.Target("opencl")
    module = _lower(tvm.IRModule({kernel.name: build_device_function(kernel)}), target)
    printed = tvm.get_global_func("target.build.opencl")(module, target).inspect_source()
    held = {param.dtype for param in kernel.params if param.is_pointer and param.dtype.is_float}
    head = (
        _ORDER
        + _WORDS
        + _ARITHMETIC[kernel.arithmetic.name]
        + "".join(macros(dtype, kernel.arithmetic) for dtype in sorted(held, key=lambda dtype: dtype.short))
    )
    text = _put_right(printed, {param.name for param in kernel.params if param.writes})
    used = [
        line
        for line in re.findall(r"(?:#(?!define).*|#define .*)\n", head)
        if (name := re.match(r"#define (\w+)", line)) is None or re.search(rf"\b{name[1]}\(", text)
    ]
    return "".join(used) + "\n" + text


def _put_right(text: str, written: set[str]) -> str:
    """What TVM's printer leaves out or adds: ``const``, prototypes, what it asks of the device."""
    text = text[text.index("__kernel void") :]
    text = re.sub(r"__kernel void [^;{]*;\n", "", text)
    text = re.sub(
        r"__global (\w+)\* restrict (\w+)",
        lambda match: match[0] if match[2] in written else f"const __global {match[1]}* restrict {match[2]}",
        text,
    )
    text = re.sub(r"\(\(__global \w+ \*\)(\w+) \+", r"(\1 +", text)
    text = re.sub(r"\b_ptr(_\d+)?\[[01]\]", lambda match: f"held{match[1] or ''}", text)
    text = re.sub(r"\n *if \(!\(\(bool\)1\)\) \{ break; \}", "", text)
    return text.replace("END_ITEM()", "return").replace("break;;", "break;").strip() + "\n"


def _lower(module: Any, target: Any) -> Any:
    import tvm
    from tvm import s_tir, tirx

    s, t = s_tir.transform, tirx.transform
    passes = [
        t.BindTarget(target),
        s.CanonicalizeLoop(),
        s.LowerInitBlock(),
        s.PlanAndUpdateBufferAllocationLocation(),
        s.ConvertBlocksToOpaque(),
        s.LowerMatchBuffer(),
        s.LowerOpaqueBlock(),
        t.FlattenBuffer(),
        t.NarrowDataType(32),
        t.LowerIntrin(),
    ]
    with tvm.transform.PassContext(opt_level=3):
        return tvm.transform.Sequential(passes)(module)

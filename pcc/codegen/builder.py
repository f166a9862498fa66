"""A thin layer over TVM's IRBuilder in which kernels are written: loads, stores, loops and lets, scalar or vector."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tvm
import tvm.tirx.script.builder
from tvm.script.ir_builder import IRBuilder

from pcc.codegen.isa import Isa
from pcc.codegen.kernel import Kernel, Param
from pcc.dtype import FLOAT32, INT32, INT64, DType

# TVM's annotations are narrower than what it accepts (numbers for expressions, tuples for lists).
tirx: Any = tvm.tirx
T: Any = tvm.tirx.script.builder

Expr = Any
"""A TIR expression or a Python number."""
Buffer = Any
"""A TIR buffer: an argument or a local array."""

_UNBOUNDED = 1 << 30

_HIGH_LOCALITY, _DATA_CACHE = 3, 1
"""Of LLVM's prefetch: into the nearest cache, and not that of instructions."""


class KernelBuilder:
    """Hands a kernel's body its arguments (``k["x"]``), its range (`work`) and the words to write it with."""

    def __init__(self, isa: Isa, arguments: dict[str, Any], begin: Expr, end: Expr) -> None:
        self.isa = isa
        self.lanes = isa.lanes(FLOAT32)
        """Elements in a vector of the type that kernels compute in."""
        self._arguments = arguments
        self.begin, self._end = begin, end

    def __getitem__(self, name: str) -> Any:
        """The argument of that name: a buffer for a pointer, a variable for a number."""
        return self._arguments[name]

    @contextmanager
    def work(self) -> Iterator[Expr]:
        """The loop over this call's work items."""
        with T.serial(self.begin, self._end) as item:
            yield item

    @contextmanager
    def loop(self, begin: Expr, end: Expr) -> Iterator[Expr]:
        """A serial loop over ``[begin, end)``. Bodies stay rolled; unroll in Python what should be unrolled."""
        with T.serial(begin, end) as index:
            yield index

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """Statements under a condition."""
        with T.If(condition), T.Then():
            yield

    @contextmanager
    def when_else(self, condition: Expr) -> Iterator[tuple[Any, Any]]:
        """``with k.when_else(c) as (then, otherwise): with then: ...; with otherwise: ...``"""
        with T.If(condition):
            yield T.Then(), T.Else()

    def let(self, value: Expr) -> Expr:
        """Computes a value once, here."""
        if isinstance(value, int | float):
            return value
        dtype = value.ty.dtype
        if str(dtype) in (INT32.name, INT64.name) or isinstance(value, tvm.ir.TensorLoad | tvm.tirx.Broadcast):
            return T.bind(value)
        # TVM's simplifier copies pure values into their uses, so that a chain of them doubles in size again and again: past memory it does not, and
        # LLVM turns the memory into registers.
        held = T.alloc_buffer((dtype.lanes,), str(dtype.with_lanes(1)), scope="local")  # of any type, those of no tensor too
        self.store(held, 0, value, dtype.lanes)
        return T.bind(self.load(held, 0, dtype.lanes))

    def wide(self, index: Expr) -> Expr:
        """An index for an inner loop: int64 where loads step their pointers, which 32-bit sums, widened again each time, would prevent.

        Not for loops that only copy or fill: LLVM sees through them and calls memcpy, which objects must not need.
        """
        return tirx.Cast(INT64.tir(), index) if self.isa.post_increment else index

    def pointer(self, buffer: Buffer, index: Expr) -> Buffer:
        """The buffer from an element on. What is added to its indices becomes part of an address, where sums of 32 bits are instructions of their own."""
        dtype = str(buffer.dtype)
        return T.decl_buffer((_UNBOUNDED,), dtype, data=T.bind(T.address_of(buffer[index])))

    def local(self, size: int, dtype: DType = FLOAT32) -> Buffer:
        """An array on the stack (or, small and fully unrolled, in registers)."""
        return T.alloc_buffer((size,), dtype.tir(), scope="local")

    def load(self, buffer: Buffer, index: Expr, lanes: int = 1) -> Expr:
        """``buffer[index]``, or ``lanes`` consecutive elements as a vector (unaligned)."""
        return tirx.BufferLoad(buffer, [index if lanes == 1 else T.Ramp(index, 1, lanes)])

    def store(self, buffer: Buffer, index: Expr, value: Expr, lanes: int = 1) -> None:
        T.buffer_store(buffer, value, [index if lanes == 1 else T.Ramp(index, 1, lanes)])

    def prefetch(self, buffer: Buffer, index: Expr, *, write: bool) -> None:
        """Asks for the cache line of an element that is soon read, or written. The address may be any."""
        T.evaluate(tirx.call_intrin("void", "tirx.prefetch", T.address_of(buffer[index]), int(write), _HIGH_LOCALITY, _DATA_CACHE))

    def splat(self, value: Expr, lanes: int) -> Expr:
        """A vector of ``lanes`` copies of a scalar; the scalar for 1. Python numbers become fp32."""
        scalar = tirx.const(value, FLOAT32.tir()) if isinstance(value, float | int) else value
        return scalar if lanes == 1 else T.Broadcast(scalar, lanes)

    def lane(self, vector: Expr, lane: int, lanes: int) -> Expr:
        """One lane of a vector copied to ``lanes`` lanes: NEON folds it into ``fmla v, v, v.s[lane]``."""
        return T.Broadcast(T.Shuffle([vector], [lane]), lanes)

    def divide(self, a: Expr, b: Expr) -> tuple[Expr, Expr]:
        """Quotient and remainder of numbers known to be non-negative: one instruction. ``//`` and ``%`` by variables also look at signs,
        and a few of them in nested loops take TVM half a minute to lower."""
        quotient = self.let(tirx.truncdiv(a, b))
        return quotient, self.let(a - quotient * b)

    def shuffle(self, vectors: list[Expr], indices: list[int]) -> Expr:
        """Chosen lanes of vectors that lie one after the other."""
        return T.Shuffle(vectors, indices)

    def concat(self, vectors: list[Expr]) -> Expr:
        """Vectors of one width as one vector."""
        return vectors[0] if len(vectors) == 1 else T.Shuffle(vectors, list(range(len(vectors) * vectors[0].ty.dtype.lanes)))

    def part(self, vector: Expr, first: int, lanes: int) -> Expr:
        """``lanes`` neighbouring lanes of a vector."""
        return vector if vector.ty.dtype.lanes == lanes else T.Shuffle([vector], list(range(first, first + lanes)))

    def mask(self, vector: Expr, mask: Expr, lanes: int) -> Expr:
        """fp32 lanes where the int32 mask is -1, zero where it is 0, whatever stands there (a NaN, too)."""
        kept = tirx.reinterpret(INT32.tir(lanes), vector) & mask
        return tirx.reinterpret(FLOAT32.tir(lanes), kept)

    def every_second(self, low: Expr, high: Expr, lanes: int) -> Expr:
        """The even lanes of two vectors that lie one after the other."""
        return T.Shuffle([low, high], list(range(0, 2 * lanes, 2)))


def _type(param: Param) -> Any:
    return T.handle(param.dtype.tir()) if param.is_pointer else getattr(T, param.dtype.tir())()


def build_function(kernel: Kernel, isa: Isa) -> Any:
    """The TIR of a kernel for an instruction set."""
    with IRBuilder() as ib:
        with T.prim_func(s_tir=True):
            T.func_name(kernel.name)
            T.func_attr({"tirx.noalias": True})
            arguments: dict[str, Any] = {param.name: T.arg(param.name, _type(param)) for param in kernel.params}
            begin, end = (T.arg(name, getattr(T, INT32.tir())()) for name in ("begin", "end"))
            for param in kernel.params:
                if param.is_pointer:
                    arguments[param.name] = T.decl_buffer((_UNBOUNDED,), param.dtype.tir(), data=arguments[param.name])
            kernel.body(KernelBuilder(isa, arguments, begin, end))
    function: Any = ib.get()
    return function.with_attr("global_symbol", kernel.name)

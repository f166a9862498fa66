"""A thin layer over TVM's IRBuilder in which kernels are written: loads, stores, loops and lets, scalar or vector."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import tvm
import tvm.tirx.script.builder
from tvm.script.ir_builder import IRBuilder

from pcc.codegen.in_type import InType
from pcc.codegen.isa import Isa
from pcc.codegen.kernel import Kernel, Param, symbol
from pcc.codegen.program import line_elements
from pcc.dtype import DTYPES, FLOAT32, INT8, INT32, INT64, DType

# TVM's annotations are narrower than what it accepts (numbers for expressions, tuples for lists).
tirx: Any = tvm.tirx
T: Any = tvm.tirx.script.builder

Expr = Any
"""A TIR expression or a Python number."""
Buffer = Any
"""A TIR buffer: an argument or a local array."""

_UNBOUNDED = 1 << 30

_L1, _L2, _DATA_CACHE = 3, 2, 1
"""Of LLVM's prefetch: into the first cache or the second, and not that of instructions."""


class KernelBuilder:
    """Hands a kernel's body its arguments (``k["x"]``), its range (`work`) and the words to write it with."""

    def __init__(self, isa: Isa, real: DType, arguments: dict[str, Any], begin: Expr, end: Expr) -> None:
        self.isa = isa
        self.real = real
        """The type that the kernel computes in."""
        self.lanes = isa.lanes(real)
        """Elements of it in a vector."""
        self._arguments = arguments
        self.begin, self._end = begin, end

    def __getitem__(self, name: str) -> Any:
        """The argument of that name: a buffer for a pointer, a variable for a number."""
        return self._arguments[name]

    @contextmanager
    def work(self) -> Generator[Expr]:
        """The loop over this call's work items."""
        with T.serial(self.begin, self._end) as item:
            yield item

    @contextmanager
    def loop(self, begin: Expr, end: Expr) -> Generator[Expr]:
        """A serial loop over ``[begin, end)``. Bodies stay rolled; unroll in Python what should be unrolled."""
        with T.serial(begin, end) as index:
            yield index

    @contextmanager
    def when(self, condition: Expr) -> Generator[None]:
        """Statements under a condition."""
        with T.If(condition), T.Then():
            yield

    @contextmanager
    def when_else(self, condition: Expr) -> Generator[tuple[Any, Any]]:
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
        # TVM's simplifier copies pure values into their uses, so that a chain of them doubles in size again and again:
        # past memory it does not, and LLVM turns the memory into registers.
        held = T.alloc_buffer(
            (dtype.lanes,), str(dtype.with_lanes(1)), scope="local"
        )  # of any type, those of no tensor too
        self.store(held, 0, value, dtype.lanes)
        return T.bind(self.load(held, 0, dtype.lanes))

    def wide(self, index: Expr) -> Expr:
        """An index for an inner loop: int64 where loads step their pointers, which 32-bit sums, widened again each
        time, would prevent.

        Not for loops that only copy or fill: LLVM sees through them and calls memcpy, which objects must not need.
        """
        return tirx.Cast(INT64.tir(), index) if self.isa.post_increment else index

    def pointer(self, buffer: Buffer, index: Expr, dtype: DType | None = None) -> Buffer:
        """The buffer from an element on, where ``dtype`` says so as elements of another type.

        What is added to its indices becomes part of an address, where sums of 32 bits are instructions of their own.
        LLVM takes what lies behind different pointers to be apart: stores that overlap go through one.
        """
        element = str(buffer.dtype) if dtype is None else dtype.tir()
        return T.decl_buffer((_UNBOUNDED,), element, data=T.bind(T.address_of(buffer[index])))

    def local(self, size: int, dtype: DType | None = None) -> Buffer:
        """An array on the stack (or, small and fully unrolled, in registers), of the type that the kernel computes in
        if none is named."""
        return T.alloc_buffer((size,), (dtype or self.real).tir(), scope="local")

    def load(self, buffer: Buffer, index: Expr, lanes: int = 1) -> Expr:
        """``buffer[index]``, or ``lanes`` consecutive elements as a vector (unaligned). Numbers stored as another
        floating-point type are converted."""
        return self.load_at(buffer, index if lanes == 1 else T.Ramp(index, 1, lanes), lanes)

    def load_at(self, buffer: Buffer, places: Expr, lanes: int = 1) -> Expr:
        """As `load`, from each of the places in a vector."""
        value = tirx.BufferLoad(buffer, [places])
        return value if buffer.scope() == "local" else self.converted(value, self.real)

    def converted(self, value: Expr, dtype: DType) -> Expr:
        """Values of a floating-point type in another."""
        held = value.ty.dtype
        return (
            tirx.Cast(dtype.tir(held.lanes), value)
            if held.is_float and str(held.with_lanes(1)) != dtype.name
            else value
        )

    @contextmanager
    def computing_in(self, dtype: DType) -> Generator[None]:
        """Code that computes in another type than the rest of the kernel."""
        real, self.real = self.real, dtype
        yield
        self.real = real

    def store(self, buffer: Buffer, index: Expr, value: Expr, lanes: int = 1) -> None:
        """Stores an element or a vector; rounded to what the buffer holds, where that is another floating-point
        type."""
        if str(buffer.dtype) in DTYPES and not isinstance(value, int | float):
            value = self.converted(value, DTYPES[str(buffer.dtype)])
        T.buffer_store(buffer, value, [index if lanes == 1 else T.Ramp(index, 1, lanes)])

    def gather(self, buffer: Buffer, places: Expr, lanes: int) -> Expr:
        """Elements of a buffer from the ``places`` in an int32 vector."""
        if not self.isa.gathers or lanes != self.lanes or str(buffer.dtype) != FLOAT32.name:
            return self.load_at(buffer, places, lanes)  # one by one
        nothing, start, result = self.splat(0.0, lanes), T.address_of(buffer[0]), FLOAT32.tir(lanes)
        if self.isa.expands:
            everywhere = T.Broadcast(tirx.const(True, "bool"), lanes)
            return tirx.call_llvm_intrin(
                result,
                "llvm.x86.avx512.mask.gather.dps.512",
                nothing,
                start,
                places,
                everywhere,
                tirx.const(4, INT32.tir()),
            )
        everywhere = tirx.reinterpret(result, T.Broadcast(tirx.const(-1, INT32.tir()), lanes))
        return tirx.call_llvm_intrin(
            result, "llvm.x86.avx2.gather.d.ps.256", nothing, start, places, everywhere, tirx.const(4, INT8.tir())
        )

    def expand(self, buffer: Buffer, index: Expr, mask: Expr, lanes: int) -> Expr:
        """A vector whose lanes that have their bit in an integer ``mask`` hold consecutive elements from
        ``buffer[index]`` on, and the others zero. ``lanes`` elements may be read."""
        bits = tirx.reinterpret(f"uint1x{lanes}", tirx.Cast(f"uint{lanes}", mask))
        zeros, result = self.splat(0.0, lanes), FLOAT32.tir(lanes)
        return tirx.call_llvm_intrin(
            result, f"llvm.x86.avx512.mask.expand.v{lanes}f32", self.load(buffer, index, lanes), zeros, bits
        )

    def prefetch(self, buffer: Buffer, index: Expr, *, write: bool, soon: bool = True) -> None:
        """Asks for the cache line of an element that is read, or written: into the L1 cache, or the L2 cache if not
        ``soon``. The address may be any."""
        T.evaluate(
            tirx.call_intrin(
                "void", "tirx.prefetch", T.address_of(buffer[index]), int(write), _L1 if soon else _L2, _DATA_CACHE
            )
        )

    def ahead(self, buffer: Buffer, index: Expr, distance: int, count: int) -> None:
        """Asks for the cache lines of ``count`` elements that begin ``distance`` bytes behind an element."""
        held = DTYPES[str(buffer.dtype)]
        for line in range(0, count, line_elements(held)):
            self.prefetch(buffer, index + (distance // held.bytes + line), write=False)

    def splat(self, value: Expr, lanes: int) -> Expr:
        """A vector of ``lanes`` copies of a scalar; the scalar for 1. Python numbers become what the kernel computes
        in."""
        scalar = tirx.const(value, self.real.tir()) if isinstance(value, float | int) else value
        return scalar if lanes == 1 else T.Broadcast(scalar, lanes)

    def lane(self, vector: Expr, lane: int, lanes: int) -> Expr:
        """One lane of a vector copied to ``lanes`` lanes: NEON folds it into ``fmla v, v, v.s[lane]``."""
        return T.Broadcast(T.Shuffle([vector], [lane]), lanes)

    def divide(self, a: Expr, b: Expr) -> tuple[Expr, Expr]:
        """Quotient and remainder of numbers known to be non-negative: one instruction. ``//`` and ``%`` by variables
        also look at signs, and a few of them in nested loops take TVM half a minute to lower."""
        quotient = self.let(tirx.truncdiv(a, b))
        return quotient, self.let(a - quotient * b)

    def shuffle(self, vectors: list[Expr], indices: list[int]) -> Expr:
        """Chosen lanes of vectors that lie one after the other."""
        return T.Shuffle(vectors, indices)

    def concat(self, vectors: list[Expr]) -> Expr:
        """Vectors of one width as one vector."""
        return (
            vectors[0]
            if len(vectors) == 1
            else T.Shuffle(vectors, list(range(len(vectors) * vectors[0].ty.dtype.lanes)))
        )

    def part(self, vector: Expr, first: int, lanes: int) -> Expr:
        """``lanes`` neighbouring lanes of a vector."""
        return vector if vector.ty.dtype.lanes == lanes else T.Shuffle([vector], list(range(first, first + lanes)))

    def mask(self, vector: Expr, mask: Expr, lanes: int) -> Expr:
        """The lanes where the int32 mask is -1, zero where it is 0, whatever stands there (a NaN, too)."""
        bits = f"int{8 * self.real.bytes}x{lanes}"
        kept = tirx.reinterpret(bits, vector) & tirx.Cast(bits, mask)
        return tirx.reinterpret(self.real.tir(lanes), kept)

    def every_second(self, low: Expr, high: Expr, lanes: int) -> Expr:
        """The even lanes of two vectors that lie one after the other."""
        return T.Shuffle([low, high], list(range(0, 2 * lanes, 2)))


def _type(param: Param) -> Any:
    return T.handle(param.dtype.tir()) if param.is_pointer else getattr(T, param.dtype.tir())()


def build_function(kernel: Kernel, isa: Isa) -> Any:
    """The TIR of a kernel for an instruction set."""
    real = kernel.arithmetic if isinstance(kernel, InType) else FLOAT32
    with IRBuilder() as ib:
        with T.prim_func(s_tir=True):
            T.func_name(symbol(kernel, isa.name))
            T.func_attr({"tirx.noalias": True})
            arguments: dict[str, Any] = {param.name: T.arg(param.name, _type(param)) for param in kernel.params}
            begin, end = (T.arg(name, getattr(T, INT32.tir())()) for name in ("begin", "end"))
            for param in kernel.params:
                if param.is_pointer:
                    arguments[param.name] = T.decl_buffer((_UNBOUNDED,), param.dtype.tir(), data=arguments[param.name])
            k = KernelBuilder(isa, real, arguments, begin, end)
            for param in kernel.params:
                if param.dtype.is_float and not param.is_pointer:
                    arguments[param.name] = k.let(k.converted(arguments[param.name], real))
            kernel.body(k)
    function: Any = ib.get()
    return function.with_attr("global_symbol", symbol(kernel, isa.name))

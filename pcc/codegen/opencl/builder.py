"""A thin layer over TVM's IRBuilder in which device kernels are written: what OpenCL C has words for is said by them.

Loads, stores, conversions and multiply-adds are OpenCL's own functions, or macros of `pcc.codegen.opencl.text` that
differ by what a tensor holds. Vectors are of four numbers.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

import tvm
import tvm.tirx.script.builder
from tvm.script.ir_builder import IRBuilder

from pcc.codegen.kernel import Param
from pcc.codegen.opencl.kernel import LANES, DeviceKernel
from pcc.dtype import DTYPES, FLOAT16, FLOAT32, INT32, DType

tirx: Any = tvm.tirx
T: Any = tvm.tirx.script.builder

Expr = Any
"""A TIR expression or a Python number."""
Buffer = Any

_UNBOUNDED = 1 << 30


class Accumulator:
    """A variable of a work-item: a vector, or a number."""

    def __init__(self, type_name: str, value: Expr) -> None:
        self._buffer = T.alloc_buffer((1,), type_name, scope="local")
        self.value = value

    @property
    def value(self) -> Expr:
        return self._buffer[0]

    @value.setter
    def value(self, value: Expr) -> None:
        T.buffer_store(self._buffer, value, [0])


class DeviceKernelBuilder:
    """Hands a kernel's body its arguments (``k["x"]``), and the words to write it with."""

    def __init__(self, arithmetic: DType, arguments: dict[str, Any]) -> None:
        self.arithmetic = arithmetic
        self.vector = arithmetic.tir(LANES)
        self._arguments = arguments

    def __getitem__(self, name: str) -> Any:
        """The argument of that name: a buffer for a pointer, a variable for a number."""
        return self._arguments[name]

    def item(self, dimension: int) -> Expr:
        """The work-item's place in the range."""
        return self.let(T.Cast(INT32.tir(), T.call_pure_extern(INT32.tir(), "get_global_id", dimension)))

    def let(self, value: Expr) -> Expr:
        """Computes a value once, here."""
        return value if isinstance(value, int | float) else T.bind(value)

    def variable(self, value: Expr) -> Accumulator:
        """A variable with a first value."""
        return Accumulator(str(value.ty.dtype), value)

    @contextmanager
    def loop(self, end: Expr, begin: Expr = 0) -> Generator[Expr]:
        """A serial loop over ``[begin, end)``, which are computed once.

        It asks at the end of a turn whether another follows: that leaves one branch of a turn's two, and compilers for
        GPUs keep fewer values in registers."""
        first, end = (
            self.let(tirx.const(edge, INT32.tir()) if isinstance(edge, int) else edge) for edge in (begin, end)
        )
        with T.If(first < end), T.Then():
            index = self.variable(first)
            with T.While(tirx.const(1, "bool")):
                yield self.let(index.value)
                index.value = index.value + 1
                with T.If(index.value >= end), T.Then():
                    T.evaluate(T.break_loop())

    @contextmanager
    def when_all(self, *conditions: Expr) -> Generator[None]:
        """Statements under conditions, of which there may be none."""
        if not conditions:
            yield
            return
        with T.If(reduce(tirx.And, conditions)), T.Then():
            yield

    def end_unless(self, condition: Expr) -> None:
        """Ends the work-item where a condition does not hold."""
        with T.If(tirx.Not(condition)), T.Then():
            T.evaluate(T.call_extern("void", "END_ITEM"))

    def both(self, a: Expr, b: Expr) -> Expr:
        return tirx.And(a, b)

    def either(self, a: Expr, b: Expr) -> Expr:
        return tirx.Or(a, b)

    def word(self, table: Buffer, index: Expr) -> Expr:
        """An entry of an int32 table."""
        return self.let(table[index])

    def load(self, tensor: Buffer, index: Expr) -> Expr:
        """A number."""
        return self.let(self._access(self.arithmetic.tir(), "LOAD", tensor, index))

    def load_vector(self, tensor: Buffer, index: Expr, *, aligned: bool = True) -> Expr:
        """Four neighbours; ``aligned``: the index is known to be a multiple of four."""
        return self.let(self._access(self.vector, "LOAD4" if aligned else "LOAD4_ANYWHERE", tensor, index))

    def load_pair(self, tensor: Buffer, index: Expr) -> tuple[Expr, Expr]:
        """Eight neighbours as two vectors, by one load where the device can; the index is a multiple of eight."""
        eight = self.let(self._access(self.arithmetic.tir(2 * LANES), "LOAD8", tensor, index))
        low, high = (self.let(T.call_pure_extern(self.vector, half, eight)) for half in ("LOW", "HIGH"))
        return low, high

    def words(self, table: Buffer, index: Expr) -> list[Expr]:
        """Four neighbours of an int32 table, by one load; the index is a multiple of four. (vload4, which takes any
        index, is four loads on Mali, each with an address of 64 bits.)"""
        four = self.let(self._access(INT32.tir(LANES), "LOAD4", table, index))
        return [T.Shuffle([four], [lane]) for lane in range(LANES)]

    def store_vector(self, tensor: Buffer, index: Expr, value: Expr) -> None:
        """To an index that is a multiple of four."""
        T.evaluate(T.call_extern("void", f"STORE4_{_short(tensor)}", value, T.address_of(tensor[index])))

    def store_pair(self, tensor: Buffer, index: Expr, low: Expr, high: Expr) -> None:
        """Two vectors beside each other, by one store where the device can; the index is a multiple of eight."""
        T.evaluate(T.call_extern("void", f"STORE8_{_short(tensor)}", low, high, T.address_of(tensor[index])))

    def store(self, tensor: Buffer, index: Expr, value: Expr) -> None:
        T.evaluate(T.call_extern("void", f"STORE_{_short(tensor)}", value, T.address_of(tensor[index])))

    def _access(self, result: str, macro: str, tensor: Buffer, index: Expr) -> Expr:
        return T.call_pure_extern(result, f"{macro}_{_short(tensor)}", T.address_of(tensor[index]))

    def lane(self, vector: Expr, lane: int) -> Expr:
        return T.Shuffle([vector], [lane])

    @property
    def lanes(self) -> int:
        return LANES

    def divide(self, a: Expr, b: Expr) -> tuple[Expr, Expr]:
        """Quotient and remainder of a number that is not negative."""
        quotient = self.let(tirx.truncdiv(a, b))
        return quotient, self.let(a - quotient * b)

    def select(self, condition: Expr, then: Expr, otherwise: Expr) -> Expr:
        """One of two numbers."""
        return tirx.Select(condition, then, otherwise)

    def equal(self, a: Expr, b: Expr) -> Expr:
        """Whether two numbers are equal."""
        return tirx.EQ(a, b)

    def larger(self, a: Expr, b: Expr) -> Expr:
        """The larger of two numbers; NaN if either is."""
        return T.call_pure_extern(str(a.ty.dtype), "LARGER", a, b)

    def smaller(self, a: Expr, b: Expr) -> Expr:
        """The smaller of two numbers; NaN if either is."""
        return T.call_pure_extern(str(a.ty.dtype), "SMALLER", a, b)

    def whole_within(self, value: Expr, last: Expr) -> Expr:
        """A number as a whole one of ``[0, last]``, a NaN as 0."""
        within = self.call("fmin", self.call("fmax", value, self.splat(0.0, 1)), tirx.Cast(str(value.ty.dtype), last))
        return self.let(tirx.Cast(INT32.tir(), within))

    def power_of_two(self, exponent: Expr) -> Expr:
        """2^exponent, a whole number."""
        return tirx.const(1, INT32.tir()) << exponent

    def bits_set(self, value: Expr) -> Expr:
        """How many bits of a whole number are one."""
        return T.call_pure_extern(INT32.tir(), "popcount", value)

    def float_of_word(self, table: Buffer, index: Expr) -> Expr:
        """The fp32 number whose bits are an entry of an int32 table."""
        return self.let(T.call_pure_extern(FLOAT32.tir(), "as_float", table[index]))

    def store_word(self, table: Buffer, index: Expr, value: Expr) -> None:
        """To an int32 table."""
        T.buffer_store(table, value, [index])

    def number(self, value: Expr) -> Expr:
        """A whole number as one of what the kernel computes in."""
        return tirx.Cast(self.arithmetic.tir(), value)

    def store_converted(self, y: Buffer, y_index: Expr, x: Buffer, x_index: Expr) -> None:
        """Copies an element into a buffer of another type, of which one is no floating-point type or both are the
        same."""
        held = str(x.dtype)
        value = self.load(x, x_index) if held == FLOAT16.name else x[x_index]
        if str(y.dtype) == FLOAT16.name:
            self.store(y, y_index, tirx.Cast(self.arithmetic.tir(), value))
        else:
            T.buffer_store(y, tirx.Cast(str(y.dtype), value), [y_index])

    def least(self, a: Expr, b: Expr) -> Expr:
        """The smaller of two whole numbers."""
        return tirx.Min(a, b)

    def splat(self, value: Expr, lanes: int = LANES) -> Expr:
        """So many copies of a number: four, or the number for 1."""
        scalar = tirx.const(value, self.arithmetic.tir()) if isinstance(value, int | float) else value
        return scalar if lanes == 1 else T.call_pure_extern(self.vector, "SPLAT", scalar)

    def joined(self, numbers: Sequence[Expr]) -> Expr:
        """Four numbers as a vector; one as it is."""
        return numbers[0] if len(numbers) == 1 else T.call_pure_extern(self.vector, "VECTOR", *numbers)

    def mad(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """``a * b + c``, vectors or numbers."""
        return T.call_pure_extern(str(c.ty.dtype), "mad", a, b, c)

    def call(self, function: str, *values: Expr) -> Expr:
        """A built-in function of numbers or vectors, that gives what its first argument is."""
        return T.call_pure_extern(str(values[0].ty.dtype), function, *values)

    def first_lanes(self, vector: Expr, count: Expr) -> Expr:
        """A vector whose lanes from ``count`` on are zero."""
        return T.call_pure_extern(self.vector, "FIRST_LANES", vector, count)


def _short(tensor: Buffer) -> str:
    return DTYPES[str(tensor.dtype)].short


def _type(param: Param) -> Any:
    return T.handle(param.dtype.tir()) if param.is_pointer else getattr(T, param.dtype.tir())()


def build_device_function(kernel: DeviceKernel) -> Any:
    """The TIR of a kernel."""
    with IRBuilder() as ib:
        with T.prim_func(s_tir=True):
            T.func_name(kernel.name)
            T.func_attr({"tirx.noalias": True, "calling_conv": 2, "tirx.is_global_func": True})
            arguments: dict[str, Any] = {param.name: T.arg(param.name, _type(param)) for param in kernel.params}
            for param in kernel.params:
                if param.is_pointer:
                    data = arguments[param.name]
                    arguments[param.name] = T.decl_buffer((_UNBOUNDED,), param.dtype.tir(), data=data)
            kernel.body(DeviceKernelBuilder(kernel.arithmetic, arguments))
    function: Any = ib.get()
    return function.with_attr("global_symbol", kernel.name)

"""The kernel program: calls of kernels on views of buffers, with nothing left to decide but where the buffers lie in
the arena."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from math import prod
from typing import Any, ClassVar, Generic, Literal

import numpy as np
from typing_extensions import TypeVar

from pcc.codegen.host_kernel import HostKernel
from pcc.codegen.in_type import in_type
from pcc.codegen.isa import Isa
from pcc.codegen.kernel import Kernel, KernelHead
from pcc.codegen.listed_weight import FromLists, ListedWeight
from pcc.codegen.packing import Packing
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32, INT32, DType, dtype_of
from pcc.errors import PccError

ALIGNMENT = 64
"""Bytes to which every buffer's start is aligned."""

K = TypeVar("K", bound=KernelHead, default=Kernel)
"""The kind of kernels that a program calls: a CPU's where nothing is said."""

BufferRole = Literal["input", "output", "scratch", "thread", "constant", "prepared", "host"]


@dataclass(frozen=True)
class Buffer:
    """Storage. Constants live in the package's weights; everything else at ``offset`` bytes, once memory is planned: in
    the arena; for role ``thread`` in memory that each thread has of its own, whose contents last from one item to the
    next of the same range; for role ``prepared`` in memory that all contexts share, which `Program.preparation` fills
    once. Role ``host`` is, in a GPU's program, a buffer of the processor's program, which placed it.

    Inputs are copied into their buffers before the first call of their stage, outputs out of theirs after the last.
    """

    name: str
    role: BufferRole
    elements: int
    dtype: DType = FLOAT32
    offset: int | None = None
    images: int = 1
    """How many images of a batch have a place of their own, ``image_bytes`` apart; 1 where they take turns in one."""

    @property
    def is_weight(self) -> bool:
        """Whether a run finds its contents there, and leaves them."""
        return self.role in ("constant", "prepared")

    @property
    def is_of_run(self) -> bool:
        """Whether a run fills it, and the program says where it lies."""
        return not self.is_weight and self.role != "host"

    @property
    def nbytes(self) -> int:
        """Bytes of one image."""
        return self.elements * self.dtype.bytes

    @property
    def image_bytes(self) -> int:
        """How far the places of two images are apart, 0 where there is one place."""
        return -(-self.nbytes // ALIGNMENT) * ALIGNMENT if self.images > 1 else 0

    @property
    def all_bytes(self) -> int:
        """Bytes of all images."""
        return self.nbytes + (self.images - 1) * self.image_bytes


@dataclass(frozen=True)
class View:
    """A tensor in a buffer: where its first element lies and how far apart its neighbours are, both in elements.

    The last dimension of an activation is always contiguous; the others may be strided (a padded plane, a slice of a
    concat).
    """

    buffer: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    dtype: DType = FLOAT32

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, without what lies between them."""
        return prod(self.shape) * self.dtype.bytes

    @property
    def is_contiguous(self) -> bool:
        return self.strides == contiguous_strides(self.shape)

    @property
    def batch_stride(self) -> int:
        """Elements from one of the first dimension to the next; 0 where there is no next, so that one serves all."""
        return self.strides[0] if self.shape[0] > 1 else 0


def line_elements(dtype: DType) -> int:
    """Elements of a cache line."""
    return ALIGNMENT // dtype.bytes


def whole_lines(positions: int, dtype: DType) -> int:
    """The elements that a plane of so many positions takes where planes start at cache lines; planes smaller than a
    line lie side by side."""
    line = line_elements(dtype)
    return positions if positions < line else -(-positions // line) * line


def plane_strides(shape: tuple[int, ...], dtype: DType) -> tuple[int, ...]:
    """Strides of (N, C, H, W) with planes of `whole_lines`."""
    plane = whole_lines(prod(shape[2:]), dtype)
    return shape[1] * plane, plane, shape[3], 1


def has_whole_lines(view: View) -> bool:
    """Whether planes are one row after the other, and the rest of a plane's last cache line is the plane's."""
    (_, _, height, width), (_, plane, pitch, _), line = view.shape, view.strides, line_elements(view.dtype)
    lines = whole_lines(height * width, view.dtype)
    is_apart = (pitch == width or height == 1) and lines <= plane
    return is_apart and lines % line == plane % line == view.offset % line == 0


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


@dataclass(frozen=True)
class Together:
    """How one call computes several images of a batch, each of them a row: ``images`` of them in each of ``call.work``
    items."""

    images: int
    count: str
    """The number argument that is how many images there are."""
    tiles: str
    """The one that is for how many times ``images`` they are enough."""
    strides: Mapping[str, str]
    """Those that are how many elements the images of a tensor argument are apart."""

    def numbers(self, call: "Call[Any]", buffers: Mapping[str, Buffer], count: int) -> dict[str, int]:
        """The arguments that are others for ``count`` images."""
        tensors = {number: call.args[tensor] for number, tensor in self.strides.items()}
        apart = {
            number: buffers[view.buffer].image_bytes // view.dtype.bytes
            for number, view in tensors.items()
            if isinstance(view, View)
        }
        return {**apart, self.count: count, self.tiles: -(-count // self.images)}


@dataclass(frozen=True)
class Call(Generic[K]):
    """One kernel over ``work`` independent items of an image; threads take ranges of them. Pointers are views, numbers
    are numbers."""

    kernel: K
    args: Mapping[str, View | int | float]
    work: int
    layer: str
    """The layer this call belongs to, as the model's author names it; several calls may share one."""
    macs: int = 0
    """Multiply-accumulates this call does on kept weights."""
    dense_macs: int = 0
    """What the dense layer would need."""
    node: str = ""
    """The graph's node that it computes, in part or whole."""
    together: Together | None = None
    """How it computes several images at once, if it can."""
    range: Range | None = None
    """Of a call of a device's kernel: its work-items, which ``work`` counts."""

    @property
    def is_on_host(self) -> bool:
        """Whether it is the processor's, in a GPU's program."""
        return isinstance(self.kernel, HostKernel)

    def items(self, images: int) -> int:
        """Work items of several images at once."""
        return self.work * (-(-images // self.together.images) if self.together else images)


@dataclass(frozen=True)
class Stage:
    """Calls ``[begin, end)``: all of them for one image of a batch after the other, or each of them for all images
    ``at_once``."""

    begin: int
    end: int
    at_once: bool = True


@dataclass(frozen=True)
class Port:
    """An input or output of the model as its user sees it: name, contiguous shape (of one image, in a program for any
    batch), element type."""

    name: str
    buffer: str
    shape: tuple[int, ...]
    dtype: DType = FLOAT32

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.bytes


@dataclass(frozen=True)
class Program(Generic[K]):
    """Calls in order, the buffers they use, and the constants' values.

    ``preparation`` is what runs once, before the first run of all contexts: it puts constants into the form that the
    calls read, where that takes more bytes than are worth shipping.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    calls: tuple[Call[K], ...]
    buffers: Mapping[str, Buffer]
    constants: Mapping[str, np.ndarray]
    arena_bytes: int = 0
    """Size of the arena, 0 before plan-memory."""
    thread_bytes: int = 0
    """Size of each thread's own memory."""
    prepared_bytes: int = 0
    """Size of what contexts share besides the constants."""
    preparation: tuple[Call[K], ...] = ()
    packings: Mapping[str, Packing] = field(default_factory=dict[str, Packing])
    """Of constants that are weights in an order of a kernel's: which weights, and in which order."""
    listed: Mapping[str, ListedWeight] = field(default_factory=dict[str, ListedWeight])
    """Sparse weights that lie in lists, by the constant of their entries."""
    from_lists: Mapping[tuple[str, str], FromLists] = field(default_factory=dict[tuple[str, str], FromLists])
    """Pairs of constants that can be made of lists instead."""
    max_batch: int = 0
    """The program is one image's, and runs for up to so many; 0 for a program that runs as it is."""
    batch_stages: tuple[Stage, ...] = ()
    """How it goes through the calls with several images."""
    values: Mapping[str, View] = field(default_factory=dict[str, View])
    """Where the values of the graph's nodes lie, by the nodes' names: from the call that writes one to the last that
    reads it."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.batch_stages or (Stage(0, len(self.calls)),)

    def touched_stages(self) -> dict[str, list[int]]:
        """In which stages each buffer of the arena is used, in order. Inputs are copied to theirs before the first,
        outputs from theirs after the last."""
        touched: dict[str, dict[int, None]] = {port.buffer: {} for port in (*self.inputs, *self.outputs)}
        for place, stage in enumerate(self.stages):
            for call in self.calls[stage.begin : stage.end]:
                for value in call.args.values():
                    if (
                        isinstance(value, View)
                        and self.buffers[value.buffer].is_of_run
                        and self.buffers[value.buffer].role != "thread"
                    ):
                        touched.setdefault(value.buffer, {})[place] = None
        return {name: list(places) or [0] for name, places in touched.items()}

    def largest_shape(self, port: Port) -> tuple[int, ...]:
        """The shape of an input or output for the largest batch."""
        return (port.shape[0] * self.max_batch, *port.shape[1:]) if self.max_batch else port.shape

    @property
    def kernels(self) -> tuple[K, ...]:
        """The distinct kernels, in the order of their names, without what a GPU's program leaves to the processor.
        Raises ValueError for different kernels of one name: only one of them would be linked."""
        found: dict[str, K] = {}
        for call in (*self.preparation, *self.calls):
            if call.is_on_host:
                continue
            if found.setdefault(call.kernel.name, call.kernel) != call.kernel:
                raise ValueError(
                    f"two different kernels are named {call.kernel.name}: {found[call.kernel.name]!r} and "
                    f"{call.kernel!r}"
                )
        return tuple(found[name] for name in sorted(found))

    def constants_of(self, call: Call[K]) -> set[str]:
        """The constants that a call reads, or that what it reads is prepared from."""
        read = {value.buffer for value in call.args.values() if isinstance(value, View)}
        for preparing in self.preparation:
            views = {name: value for name, value in preparing.args.items() if isinstance(value, View)}
            if any(
                param.writes and views[param.name].buffer in read
                for param in preparing.kernel.params
                if param.name in views
            ):
                read |= {view.buffer for view in views.values()}
        return read & self.constants.keys()


@dataclass
class ProgramWriter(Generic[K]):
    """What lowering writes a program with, for whatever machine: makes buffers, names them, holds calls."""

    name: str
    _: KW_ONLY
    buffers: dict[str, Buffer] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    calls: list[Call[K]] = field(default_factory=list[Call[K]])
    preparation: list[Call[K]] = field(default_factory=list[Call[K]])
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    layer: str = ""
    """The layer that calls now being recorded belong to."""
    node: str = ""
    """The graph's node that they compute."""
    stored: dict[tuple[DType, bytes], str] = field(default_factory=dict)
    """The constant that holds some bytes of a type."""
    packings: dict[str, Packing] = field(default_factory=dict[str, Packing])
    listed: dict[str, ListedWeight] = field(default_factory=dict[str, ListedWeight])
    from_lists: dict[tuple[str, str], FromLists] = field(default_factory=dict[tuple[str, str], FromLists])
    shared: dict[Any, View] = field(default_factory=dict)
    """Tensors that a later layer may use again, by what they hold (a staged input, a prepared weight)."""

    def _add(self, name: str, role: BufferRole, elements: int, dtype: DType) -> Buffer:
        unique, count = name, 1
        while unique in self.buffers:
            count += 1
            unique = f"{name}.{count}"
        self.buffers[unique] = Buffer(unique, role, elements, dtype)
        return self.buffers[unique]

    def tensor(self, name: str, shape: tuple[int, ...], dtype: DType = FLOAT32) -> View:
        """A contiguous tensor in a new arena buffer."""
        return View(self._add(name, "scratch", prod(shape), dtype).name, shape, contiguous_strides(shape), dtype=dtype)

    def planes(self, name: str, shape: tuple[int, ...], dtype: DType = FLOAT32) -> View:
        """A tensor (N, C, H, W) in a new arena buffer whose planes start at cache lines. The rest of a plane's last
        line is its writer's, too."""
        strides = plane_strides(shape, dtype)
        return self.strided(name, shape, strides, 0, shape[0] * strides[0], dtype)

    def strided(
        self,
        name: str,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        offset: int,
        elements: int,
        dtype: DType = FLOAT32,
    ) -> View:
        """A strided tensor in a new arena buffer of that many elements (a padded plane)."""
        return View(self._add(name, "scratch", elements, dtype).name, shape, strides, offset, dtype)

    def thread_tensor(self, name: str, shape: tuple[int, ...], dtype: DType = FLOAT32) -> View:
        """A contiguous tensor in each thread's own memory, for one call."""
        return View(self._add(name, "thread", prod(shape), dtype).name, shape, contiguous_strides(shape), dtype=dtype)

    def constant(self, name: str, values: np.ndarray) -> View:
        """A constant of the array's element type; `PccError` for one that pcc does not have. Equal values are stored
        once, under their first name."""
        dtype, values = dtype_of(values.dtype), np.asarray(values, order="C")
        content = dtype, hashlib.sha256(values.tobytes()).digest()
        if content not in self.stored:
            self.stored[content] = self._add(name, "constant", values.size, dtype).name
            self.constants[self.stored[content]] = values
        return View(self.stored[content], values.shape, contiguous_strides(values.shape), dtype=dtype)

    def packed(self, name: str, weight: np.ndarray, pack: Callable[[np.ndarray], np.ndarray]) -> View:
        """A constant that has the numbers of a weight (O, I, ...) in the order that ``pack`` puts them in, zeros
        between them."""
        view = self.constant(name, pack(weight))
        self.packings.setdefault(view.buffer, Packing(weight, pack))
        return view

    def named_constants(self, layer: str, arrays: Mapping[str, np.ndarray]) -> dict[str, View]:
        """Those of a layer, each called ``LAYER.NAME``."""
        return {name: self.constant(f"{layer}.{name}", values) for name, values in arrays.items()}

    def table(self, name: str, values: np.ndarray) -> View:
        """A constant of places and counts, which kernels take as int32; `PccError` where one does not fit."""
        stored = values.astype(INT32.numpy)
        if (stored != values).any():
            raise PccError(
                f"layer '{self.layer}': {name} holds {int(np.abs(values).max())}, which does not fit {INT32}; the "
                "tensors are too large"
            )
        return self.constant(name, stored)

    def input(self, name: str, shape: tuple[int, ...], dtype: DType = FLOAT32) -> View:
        """A model input."""
        buffer = self._add(name, "input", prod(shape), dtype).name
        self.inputs.append(Port(name, buffer, shape, dtype))
        return View(buffer, shape, contiguous_strides(shape), dtype=dtype)

    def output(self, name: str, view: View) -> None:
        """Declares a contiguous tensor as a model output."""
        self.buffers[view.buffer] = replace(self.buffers[view.buffer], role="output")
        self.outputs.append(Port(name, view.buffer, view.shape, view.dtype))

    def build(self) -> Program[K]:
        ports = tuple(self.inputs), tuple(self.outputs)
        return Program(
            self.name,
            *ports,
            tuple(self.calls),
            dict(self.buffers),
            dict(self.constants),
            preparation=tuple(self.preparation),
            packings=dict(self.packings),
            listed=dict(self.listed),
            from_lists=dict(self.from_lists),
        )


@dataclass
class ProgramBuilder(ProgramWriter[Kernel]):
    """Writes a program for a CPU."""

    backend: ClassVar[str] = "llvm"

    isa: Isa
    """The instruction set, for kernels that are made for a number of lanes."""

    def prepared(
        self,
        name: str,
        shape: tuple[int, ...],
        kernel: Kernel,
        result: str,
        args: Mapping[str, View | int | float],
        work: int,
    ) -> View:
        """A contiguous fp32 tensor that a kernel makes of constants, once for all contexts, and writes through its
        parameter ``result``. What is made of the same constants in the same way is there once."""
        known = kernel, tuple(args.items())
        if known not in self.shared:
            tensor = View(self._add(name, "prepared", prod(shape), FLOAT32).name, shape, contiguous_strides(shape))
            self.preparation.append(self._recorded(kernel, {**args, result: tensor}, work))
            self.shared[known] = tensor
        return self.shared[known]

    def call(
        self,
        kernel: Kernel,
        args: Mapping[str, View | int | float],
        work: int,
        macs: int = 0,
        dense_macs: int | None = None,
        together: Together | None = None,
        arithmetic: DType = FLOAT32,
    ) -> None:
        """Records a call. ``args`` must name exactly the kernel's parameters; `PccError` for a tensor of another
        element type than the kernel takes.

        A kernel of fp32 tensors takes those of any floating-point type, and may compute in another ``arithmetic`` than
        fp32.
        """
        self.calls.append(
            self._recorded(kernel, args, work, macs, macs if dense_macs is None else dense_macs, together, arithmetic)
        )

    def _recorded(
        self,
        kernel: Kernel,
        args: Mapping[str, View | int | float],
        work: int,
        macs: int = 0,
        dense_macs: int = 0,
        together: Together | None = None,
        arithmetic: DType = FLOAT32,
    ) -> Call:
        expected = [param.name for param in kernel.params]
        if sorted(expected) != sorted(args):
            raise ValueError(f"{kernel.name}: arguments {sorted(args)} do not fit parameters {sorted(expected)}")
        kernel = in_type(
            kernel, {name: view.dtype for name, view in args.items() if isinstance(view, View)}, arithmetic
        )
        for param in kernel.params:
            if isinstance(view := args[param.name], View) and view.dtype != param.dtype:
                raise PccError(
                    f"layer '{self.layer}': {kernel.name} takes {param.dtype} as {param.name}, {view.buffer} is "
                    f"{view.dtype}"
                )
        ordered = {name: args[name] for name in expected}
        return Call(kernel, ordered, work, self.layer, macs, dense_macs, self.node, together)

"""Pickles read as data: what is in them without running or importing anything.

A pickle is a program for a small machine with a stack; what makes it dangerous are names of functions and classes that
the machine imports and calls. `DataUnpickler` is that machine without imports: a name stays a `Name`, and what a call
would make is an `Inert` object that remembers the name, the arguments and what was put into it. The exceptions are
plain containers (dicts, tuples, sizes) and tensors, which become `pcc.frontend.stored.Stored`.
"""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch

from pcc.frontend.stored import Storage, Stored

MOST_STEPS = 10_000_000
"""Of the machine. A checkpoint takes some 40 for each tensor; a million take about a second and, at most, 100 MB."""

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
"""What the classes of storages hold; others (``UntypedStorage``) hold bytes, and the tensor says its type."""

_DICTS = {("collections", "OrderedDict"), ("collections", "defaultdict"), ("builtins", "dict"), ("__builtin__", "dict")}


@dataclass(frozen=True)
class Name:
    """Of a function, class or constant that a pickle mentions."""

    module: str
    name: str


_TENSORS = (Name("torch", "Tensor"), Name("torch.nn.parameter", "Parameter"))


@dataclass(eq=False)
class Inert:
    """What a pickle would have made by a call."""

    name: Name | None
    arguments: tuple[Any, ...] = ()
    state: Any = None
    """What its ``__setstate__`` would have got, mostly a dict of attributes."""
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)

    def append(self, item: Any) -> None:
        self.items.append(item)

    def extend(self, items: list[Any]) -> None:
        self.items.extend(items)


class SavedDict(dict[Any, Any]):
    """A dict of a class that has attributes, as ``OrderedDict`` has."""

    attributes: Any = None
    """What its ``__setstate__`` would have got: PyTorch keeps the names of the modules there."""


class DataUnpickler(pickle._Unpickler):
    """Reads one pickle from a file, from where that stands to the pickle's end.

    ``storage`` gives the numbers that a persistent id (the tuple that PyTorch writes) stands for. Raises
    `pickle.UnpicklingError` for what no checkpoint needs, and whatever damaged bytes raise (`ValueError`, `KeyError`,
    `IndexError`, `EOFError`, `TypeError`, `AttributeError`, ...).
    """

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    """The first two are pickle's, and set while it loads; the third is its method."""

    def __init__(self, file: BinaryIO, storage: Callable[[tuple[Any, ...]], Storage] | None = None) -> None:
        super().__init__(file, encoding="latin1")  # as PyTorch reads what Python 2 wrote
        self._storage = storage
        self._steps = 0

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and pid[:1] == ("module",):
            return pid[1]  # a class beside its source, as PyTorch before 1.6 wrote modules
        if self._storage is None or not isinstance(pid, tuple) or not pid or pid[0] != "storage":
            raise pickle.UnpicklingError(f"a persistent id {pid!r:.40}")
        return self._storage(pid[1:])

    def find_class(self, module: str, name: str) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        if module == "torch" and isinstance(constant := torch.__dict__.get(name), torch.dtype):
            return constant
        return Name(module, name)

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError("a code of copyreg's registry")

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(_call(klass, tuple(args)))

    def load_newobj(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        self.append(_call(name, arguments))

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # by keyword
        self.load_newobj()

    def load_reduce(self) -> None:
        self.load_newobj()

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif isinstance(target, SavedDict):
            target.attributes = state

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def load_setitems(self) -> None:
        self._put(self.pop_mark())

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._put(items)

    def _put(self, items: list[Any]) -> None:
        target = self.stack[-1]
        entries = target.entries if isinstance(target, Inert) else target
        if not isinstance(entries, dict):
            raise pickle.UnpicklingError("entries for what is no dict")
        entries.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))

    def load_frozenset(self) -> None:
        self.append(Inert(Name("builtins", "frozenset"), items=self.pop_mark()))

    def load_empty_set(self) -> None:
        self.append(Inert(Name("builtins", "set")))

    def load_additems(self) -> None:
        items = self.pop_mark()
        self.stack[-1].extend(items)

    def load_bytearray8(self) -> None:
        raise pickle.UnpicklingError("a byte array, whose length is believed before it is read")

    def _count(self) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise pickle.UnpicklingError(f"more than {MOST_STEPS:,} steps")


def _counted(load: Callable[[Any], None]) -> Callable[[DataUnpickler], None]:
    """The step of this class that has the name of pickle's, counted."""
    name = load.__name__

    def step(machine: DataUnpickler) -> None:
        machine._count()
        getattr(machine, name)()

    return step


DataUnpickler.dispatch = {  # pyright: ignore[reportAttributeAccessIssue]  # steps of this class
    code: _counted(load) for code, load in pickle._Unpickler.dispatch.items()
}


def _key(key: Any) -> Any:
    """A key, which must be simple: hashing a tuple of tuples of tuples ... would overflow Python's stack."""
    simple = (str, bytes, int, float, bool, type(None), Inert, Name, torch.dtype)
    if not isinstance(key, simple) and not (isinstance(key, tuple) and all(isinstance(item, simple) for item in key)):
        raise pickle.UnpicklingError(f"a {type(key).__name__} as a key")
    return key


def _call(function: Any, arguments: Any) -> Any:
    """What a call makes: a plain container, a tensor that is not read yet, or an inert object."""
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        return Inert(None, ())
    if (function.module, function.name) in _DICTS:
        items = arguments[0] if arguments and isinstance(arguments[0], list) else []
        return SavedDict((_key(key), value) for key, value in items)
    if function.name in ("set", "frozenset") and arguments and isinstance(arguments[0], list):
        return Inert(function, items=arguments[0])  # as protocols before 4 write it
    if (function.module, function.name) == ("torch", "Size"):
        return tuple(arguments[0])
    if function.module == "torch._utils":
        if function.name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            storage, offset, size, stride = arguments[:4]
            typed = function.name == "_rebuild_tensor_v3"
            bits = arguments[7 if typed else 6 :]
            negative = bool(bits) and isinstance(bits[0], Mapping) and bool(bits[0].get("neg"))
            return Stored(
                storage, arguments[6] if typed else storage.dtype, offset, tuple(size), tuple(stride), negative
            )
        if function.name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return arguments[0]
    if (function.module, function.name) == ("torch._tensor", "_rebuild_from_type_v2") and arguments[1] in _TENSORS:
        return _call(arguments[0], arguments[2])  # a tensor that has attributes, which are the last argument
    return Inert(function, arguments)

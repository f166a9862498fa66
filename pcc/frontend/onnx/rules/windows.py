"""Sliding windows, as convolutions and poolings of ONNX say them."""

from collections.abc import Sequence
from dataclasses import dataclass

from pcc.frontend.onnx.emitter import Refused, Value, rank, shape


@dataclass(frozen=True)
class Window:
    """A window over the spatial axes of an image, each list an axis an element."""

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    pads: list[tuple[int, int]]
    """What is padded before and after."""

    @property
    def axes(self) -> int:
        return len(self.kernel)

    @property
    def before(self) -> list[int]:
        return [before for before, _ in self.pads]

    @property
    def is_even(self) -> bool:
        """Whether as much is padded before as after, and nothing cropped."""
        return all(before == after and before >= 0 for before, after in self.pads)


def window(
    x: Value,
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    auto_pad: str = "NOTSET",
    pads: Sequence[int] | None = None,
) -> Window:
    """The window of a node's attributes. `Refused` where it has other axes than its input."""
    size = shape(x)[2:]
    if not 1 <= len(size) <= 3 or len(kernel) != len(size):
        raise Refused(f"a window of {list(kernel)} over {shape(x)}")
    stride, dilation = ([1] * len(size) if numbers is None else list(numbers) for numbers in (strides, dilations))
    return Window(list(kernel), stride, dilation, _amounts(auto_pad, pads, size, kernel, stride, dilation))


def _amounts(
    auto_pad: str,
    pads: Sequence[int] | None,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> list[tuple[int, int]]:
    """What is padded before and after each axis, of the four ways to say it."""
    axes = len(kernel)
    match auto_pad:
        case "NOTSET":
            amounts = list(pads) if pads is not None else [0] * (2 * axes)
            if len(amounts) != 2 * axes:
                raise Refused(f"pads={amounts} for {axes} spatial axes")
            return list(zip(amounts[:axes], amounts[axes:], strict=True))
        case "VALID":
            return [(0, 0)] * axes
        case "SAME_UPPER" | "SAME_LOWER":
            total = [
                max(0, (-(-have // step) - 1) * step + (taps - 1) * apart + 1 - have)
                for have, taps, step, apart in zip(size, kernel, stride, dilation, strict=True)
            ]
            return [split(amount, auto_pad) for amount in total]
        case _:
            raise Refused(f"auto_pad={auto_pad}")


def split(amount: int, auto_pad: str) -> tuple[int, int]:
    """Half of it before and half after; the odd one after only for ``SAME_UPPER``."""
    return (amount // 2, amount - amount // 2) if auto_pad == "SAME_UPPER" else (amount - amount // 2, amount // 2)


def kernel_of(weight: Value, kernel_shape: Sequence[int] | None, x: Value) -> Sequence[int]:
    """The window of a convolution's weight, which an attribute may say, too."""
    kernel = shape(weight)[2:]
    if rank(weight) != rank(x):
        raise Refused(f"a convolution of {shape(x)} with a weight of {shape(weight)}")
    if kernel_shape is not None and tuple(kernel_shape) != kernel:
        raise Refused(f"kernel_shape={list(kernel_shape)} of a weight of {shape(weight)}")
    return kernel


def pad_list(pads: Sequence[tuple[int, int]]) -> list[int]:
    """As ``aten.pad`` has it: the last axis first."""
    return [amount for pair in reversed(pads) for amount in pair]

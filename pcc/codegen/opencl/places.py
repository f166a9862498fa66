"""Where the planes of two tensors (N, C, H, W) of any strides lie, as numbers of a kernel whose range's third dimension
counts planes."""

from typing import TYPE_CHECKING

from pcc.codegen.program import View

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder, Expr

PLANE_NUMBERS = ("channels", *(f"{name}_{word}" for name in "xy" for word in ("offset", "image", "plane", "pitch")))


def plane_numbers(x: View, y: View) -> dict[str, int]:
    """The values of `PLANE_NUMBERS`; ``channels`` are those of ``y``."""
    return {
        "channels": y.shape[1],
        **{
            f"{name}_{word}": value
            for name, view in (("x", x), ("y", y))
            for word, value in zip(("offset", "image", "plane", "pitch"), (view.offset, *view.strides), strict=False)
        },
    }


def plane_at(k: "DeviceKernelBuilder", plane: "Expr") -> "tuple[Expr, Expr]":
    """The first element of a plane of ``x`` and of ``y``."""
    image, channel = k.divide(plane, k["channels"])
    x, y = (k.let(k[f"{t}_offset"] + image * k[f"{t}_image"] + channel * k[f"{t}_plane"]) for t in "xy")
    return x, y

"""What device kernels' numpy references have in common."""

from collections.abc import Mapping

import numpy as np

from pcc.codegen.kernel import Argument
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.opencl.kernels.numbers import elements, whole_numbers


def plane_index(start: int, pitch: int, stride: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """The elements (rows, columns) of a strided window into a plane."""
    rows, columns = np.arange(size[0]) * stride[0] * pitch, np.arange(size[1]) * stride[1]
    return start + rows[:, None] + columns


def store_reference(args: Mapping[str, Argument], epilogue: Epilogue, sums: np.ndarray, place: int) -> None:
    """Finishes sums (filters, rows, columns) of filters from a place on, and stores them."""
    y = np.asarray(args["y"])
    bias, filters = np.asarray(args["bias"]), np.asarray(args["filters"])
    for value, p in zip(sums, range(place, place + len(sums)), strict=True):
        size, plane = value.shape, int(filters[p])
        residual = None
        if epilogue.residual:
            first = int(args["residual_offset"]) + plane * int(args["residual_plane"])
            index = plane_index(first, int(args["residual_pitch"]), (1, 1), size)
            residual = np.asarray(args["residual"])[index].astype(np.float32)
        start = int(args["y_offset"]) + plane * int(args["y_plane"])
        index = plane_index(start, int(args["y_pitch"]), (1, 1), size)
        finished = epilogue.reference(value + np.float32(bias[p]), residual, epilogue.reference_parameter(args, p))
        y[index] = finished.astype(y.dtype)


def store_rows_reference(
    args: Mapping[str, Argument], epilogue: Epilogue, sums: np.ndarray, outputs: np.ndarray, places: np.ndarray
) -> None:
    """Finishes sums (rows, outputs) of a linear layer, and stores them: which outputs they are, and where their
    parameters lie."""
    n, y = whole_numbers(args), np.asarray(args["y"])

    def at(name: str) -> np.ndarray:
        return elements(n[f"{name}_offset"], (len(sums),), (n[f"{name}_row"],))[:, None] + outputs

    residual = np.asarray(args["residual"])[at("residual")].astype(np.float32) if epilogue.residual else None
    finished = epilogue.reference(sums, residual, epilogue.reference_parameter(args, places))
    y[at("y")] = finished.astype(y.dtype)

"""Runs device kernels on an OpenCL driver for processors: PoCL for results, oclgrind for what is read and written."""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcc.codegen.kernel import Argument
from pcc.codegen.opencl.kernel import DeviceKernel
from pcc.codegen.opencl.text import opencl_text
from pcc.codegen.range import Range
from tests.pocl import LIBRARIES, pocl_driver

POCL, OCLGRIND = "Portable Computing Language", "Oclgrind"

_OPTIONS = {POCL: [], OCLGRIND: ["-DFP16_IN_MEMORY_ONLY"]}
"""oclgrind 19.10 reports cl_khr_fp16 and has no conversions of it."""


def pocl_environment(folder: Path, *, drivers: bool = True) -> dict[str, str]:
    """The variables with which a process finds PoCL by the name of the system's OpenCL library, links to it in the
    folder; without ``drivers`` a library that has no device. Skips the test where PoCL is not installed."""
    loaders, driver = sorted(LIBRARIES.glob("libOpenCL*.so*")), pocl_driver()
    if not loaders or driver is None:
        pytest.skip("not run: PoCL is not installed (pip install pyopencl pocl-binary-distribution)")
    vendors = folder / ("vendors" if drivers else "none")
    vendors.mkdir(parents=True)
    if drivers:
        (vendors / "pocl.icd").write_text(str(driver))
    (folder / "libOpenCL.so").symlink_to(loaders[0])
    return {
        "LD_LIBRARY_PATH": str(folder),
        "OCL_ICD_VENDORS": str(vendors),
        "POCL_CACHE_DIR": str(folder / "pocl"),
        "PYOPENCL_HOME": str(folder),  # pyopencl's loader reads it, and more drivers there
    }


@cache
def _queue(platform: str) -> Any:
    import pyopencl as cl

    with pytest.MonkeyPatch.context() as patch:
        if platform == POCL and (driver := pocl_driver()):
            patch.setenv("OCL_ICD_VENDORS", str(driver))  # in the place of the drivers that pyopencl's loader finds
        found = [each for each in cl.get_platforms() if each.name == platform]
    return cl.CommandQueue(cl.Context(next(filter(_compiles, found)).get_devices()))


def _compiles(platform: Any) -> bool:
    """Whether a driver's compiler knows the processor."""
    import pyopencl as cl

    try:
        cl.Program(cl.Context(platform.get_devices()), "kernel void nothing() {}").build()
    except cl.RuntimeError:
        return False
    return True


@cache
def _compiled(kernel: DeviceKernel, platform: str) -> Any:
    import pyopencl as cl

    program = cl.Program(_queue(platform).context, opencl_text(kernel)).build(_OPTIONS[platform])
    return cl.Kernel(program, kernel.name)


def run(
    kernel: DeviceKernel, args: Mapping[str, Argument], range: Range, platform: str = POCL
) -> dict[str, np.ndarray]:
    """What the kernel leaves in the buffers that it writes; arguments stay as they are."""
    import pyopencl as cl

    os.environ.setdefault("PYOPENCL_NO_CACHE", "1")
    queue, flags = _queue(platform), cl.mem_flags
    bound, written = [], {}
    for param in kernel.params:
        value = args[param.name]
        if not param.is_pointer:
            bound.append((np.float32 if param.dtype.is_float else np.int32)(value))
            continue
        held = np.ascontiguousarray(value)
        assert held.dtype == param.dtype.numpy, f"{param.name} is {held.dtype}, not {param.dtype}"
        bound.append(cl.Buffer(queue.context, flags.READ_WRITE | flags.COPY_HOST_PTR, hostbuf=held))
        if param.writes:
            written[param.name] = (bound[-1], np.empty_like(held))
    _compiled(kernel, platform)(queue, range.global_size, range.local_size, *bound)
    for buffer, result in written.values():
        cl.enqueue_copy(queue, result, buffer)
    queue.finish()
    return {name: result for name, (_, result) in written.items()}


def run_reference(kernel: DeviceKernel, args: Mapping[str, Argument], range: Range) -> dict[str, np.ndarray]:
    """What the kernel's own numpy meaning leaves there."""
    copies = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in args.items()}
    kernel.reference(copies, range)
    return {param.name: np.asarray(copies[param.name]) for param in kernel.params if param.writes}

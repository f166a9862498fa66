"""Kernels to machine code: our short TVM pass list, LLVM, one object file a kernel, kept in the cache on disk.

The list leaves out packed functions and TVM's runtime calls, so that an object defines one plain C function and needs
nothing.
"""

import os
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from pcc.cache import writing_cache
from pcc.codegen.isa import isa_named
from pcc.codegen.kernel import Kernel, symbol
from pcc.codegen.kernel_cache import entry_of, is_intact, make_entry, use_generation
from pcc.codegen.machine import machine_of
from pcc.target import Target

TEXTS = ("tir", "ll", "s")

_WORTH_A_PROCESS = 12
"""Kernels to compile before more processes pay: each imports TVM for some seconds first."""


@dataclass(frozen=True)
class CompiledKernel:
    """A kernel's object file, and the texts it went through."""

    name: str
    object: Path
    texts: dict[str, Path]
    """``tir``, ``ll`` and ``s`` (assembly)."""
    from_cache: bool


def _entry(kernel: Kernel, target: Target) -> CompiledKernel:
    """A kernel where the cache keeps it for a target; ``from_cache`` says whether it is there."""
    folder = entry_of(f"{target}|{kernel!r}")
    texts = {text: folder / f"kernel.{text}" for text in TEXTS}
    return CompiledKernel(kernel.name, folder / "kernel.o", texts, from_cache=is_intact(folder))


def compile_kernel(kernel: Kernel, target: Target) -> CompiledKernel:
    """The kernel's object for the target, from the cache when it is there."""
    compiled = _entry(kernel, target)
    if not compiled.from_cache:
        with writing_cache():
            make_entry(compiled.object.parent, partial(_build, kernel, target))
    return compiled


def _begin_worker() -> None:
    """Ctrl-C reaches the process that waits, too, which stops its workers; where that one is killed they end by
    themselves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def compile_kernels(kernels: Sequence[Kernel], target: Target, workers: int = 1) -> list[CompiledKernel]:
    """Each kernel's object, in order; ``workers`` processes share those that the cache does not have."""
    with writing_cache():
        use_generation()
    missing = [kernel for kernel in kernels if not _entry(kernel, target).from_cache]
    if workers > 1 and len(missing) >= _WORTH_A_PROCESS:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin_worker) as pool:
            compiled_now = {compiled.name for compiled in pool.map(partial(compile_kernel, target=target), missing)}
        return [
            replace(compile_kernel(kernel, target), from_cache=kernel.name not in compiled_now) for kernel in kernels
        ]
    return [compile_kernel(kernel, target) for kernel in kernels]


def _build(kernel: Kernel, target: Target, folder: Path) -> None:
    import tvm

    from pcc.codegen.builder import build_function

    function = build_function(kernel, isa_named(target.isa))
    (folder / "kernel.tir").write_text(str(function.script()) + "\n")
    machine = machine_of(target)
    features = [*isa_named(target.isa).llvm_features, *machine.llvm_features]
    host = tvm.target.Target(
        {"kind": "llvm", "mtriple": target.triple, "mcpu": machine.llvm_cpu or target.cpu, "mattr": features}
    )
    module = _lower(tvm.IRModule({symbol(kernel, target.isa): function}), host)
    library = tvm.get_global_func("target.build.llvm")(module, host)
    for suffix in ("o", "s", "ll"):
        library.write_to_file(str(folder / f"kernel.{suffix}"))


def _lower(module: Any, host: Any) -> Any:
    import tvm
    from tvm import s_tir, tirx

    s, t = s_tir.transform, tirx.transform
    passes = [
        t.BindTarget(host.with_host(host)),
        s.CanonicalizeLoop(),
        s.LowerInitBlock(),
        s.PlanAndUpdateBufferAllocationLocation(),
        s.ConvertBlocksToOpaque(),
        s.LowerMatchBuffer(),
        t.StmtSimplify(),
        s.LowerOpaqueBlock(),
        t.FlattenBuffer(),
        t.NarrowDataType(32),
        s.LoopPartition(),
        t.VectorizeLoop(True),
        t.StorageRewrite(),
        t.UnrollLoop(),
        t.StmtSimplify(),
        t.CommonSubexprElim(),
        t.prim_func_pass(_truncate_divisions, opt_level=0),
        t.LowerIntrin(),
    ]
    with tvm.transform.PassContext(opt_level=3):
        return tvm.transform.Sequential(passes)(module)


def _truncate_divisions(function: Any, module: Any, context: Any) -> Any:
    """Integer ``//`` and ``%`` by unknown numbers, of which kernels' operands are never negative, as the machine's
    division.

    TVM would correct the sign of the result in nested lets and selects, on which LLVM code generation spends seconds a
    kernel.
    """
    import tvm_ffi
    from tvm import tirx

    def unless_constant(make: Any) -> Any:
        return lambda node: node if isinstance(node.b, tirx.IntImm) else make(node.a, node.b)

    rules = ((tirx.FloorDiv, unless_constant(tirx.truncdiv)), (tirx.FloorMod, unless_constant(tirx.truncmod)))
    return tvm_ffi.structural_map(function, rules)

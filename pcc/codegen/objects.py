"""Kernels to machine code: our short TVM pass list, LLVM, one object file a kernel, and a cache of them on disk.

The list leaves out packed functions and TVM's runtime calls, so that an object defines one plain C function and needs nothing.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pcc.cache import cache_root
from pcc.codegen.isa import isa_named
from pcc.codegen.kernel import Kernel
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


@cache
def _codegen_fingerprint() -> str:
    """Changes whenever a source file under ``codegen/`` or TVM does: objects made by other code are never taken from the cache."""
    digest = hashlib.sha256(version("apache-tvm").encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _folder(kernel: Kernel, target: Target) -> Path:
    """Where the cache keeps a kernel for a target."""
    key = hashlib.sha256(f"{_codegen_fingerprint()}|{target}|{kernel!r}".encode()).hexdigest()[:32]
    return cache_root() / "kernels" / key[:2] / key


def compile_kernel(kernel: Kernel, target: Target) -> CompiledKernel:
    """The kernel's object for the target, from the cache when it is there."""
    folder = _folder(kernel, target)
    compiled = CompiledKernel(kernel.name, folder / "kernel.o", {text: folder / f"kernel.{text}" for text in TEXTS}, from_cache=folder.is_dir())
    if compiled.from_cache:
        return compiled
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        _build(kernel, target, Path(made))
        try:
            os.rename(made, folder)
        except OSError:  # another process made the same kernel meanwhile
            if not folder.is_dir():
                raise
        else:
            os.mkdir(made)  # so that the context manager finds what it removes
    return compiled


def compile_kernels(kernels: Sequence[Kernel], target: Target, workers: int = 1) -> list[CompiledKernel]:
    """Each kernel's object, in order; ``workers`` processes share those that the cache does not have."""
    missing = [kernel for kernel in kernels if not _folder(kernel, target).is_dir()]
    if workers > 1 and len(missing) >= _WORTH_A_PROCESS:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            made = {compiled.name for compiled in pool.map(partial(compile_kernel, target=target), missing)}
        return [replace(compile_kernel(kernel, target), from_cache=kernel.name not in made) for kernel in kernels]
    return [compile_kernel(kernel, target) for kernel in kernels]


def _build(kernel: Kernel, target: Target, folder: Path) -> None:
    import tvm

    from pcc.codegen.builder import build_function

    function = build_function(kernel, isa_named(target.isa))
    (folder / "kernel.tir").write_text(str(function.script()) + "\n")
    host = tvm.target.Target({"kind": "llvm", "mtriple": target.triple, "mcpu": target.cpu, "mattr": list(isa_named(target.isa).llvm_features)})
    module = _lower(tvm.IRModule({kernel.name: function}), host)
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
    """Integer ``//`` and ``%`` by unknown numbers, of which kernels' operands are never negative, as the machine's division.

    TVM would correct the sign of the result in nested lets and selects, on which LLVM code generation spends seconds a kernel.
    """
    import tvm_ffi
    from tvm import tirx

    def unless_constant(make: Any) -> Any:
        return lambda node: node if isinstance(node.b, tirx.IntImm) else make(node.a, node.b)

    rules = ((tirx.FloorDiv, unless_constant(tirx.truncdiv)), (tirx.FloorMod, unless_constant(tirx.truncmod)))
    return tvm_ffi.structural_map(function, rules)

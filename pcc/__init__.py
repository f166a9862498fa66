"""pcc: the compiler that makes pruned CNNs fast on phones. This is the public API; importing it imports neither PyTorch
nor TVM."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcc.errors import PccError
from pcc.passes.registry import contribute
from pcc.progress import Watch, quiet
from pcc.target import Target, host_target, target_named

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto  # noqa: TID251  # a name for type checkers
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from pcc.compile_report import CompileReport
    from pcc.compression.report import CompressReport
    from pcc.models.preprocess import Preprocessing
    from pcc.passes.manager import PassManager
    from pcc.runtime.loader import Model

# Passes that know kernels and kernel programs. They are named here, at the top of the house: pcc.passes is below
# pcc.codegen and must not know it.
contribute(
    {"select-kernels": "pcc.codegen.select_kernels:SelectKernels", "plan-memory": "pcc.codegen.plan_memory:PlanMemory"}
)

__all__ = ["PassManager", "PccError", "Target", "compile", "compress", "load", "target_named"]


def compile(
    model: "str | PathLike[str] | nn.Module | ExportedProgram | ModelProto | Callable[..., Any]",
    example_inputs: "Tensor | np.ndarray | Sequence[Tensor | np.ndarray] | Mapping[str, Tensor | np.ndarray] | None",
    out: str | PathLike[str],
    *,
    target: str | Target | Sequence[str | Target] | None = None,
    pipeline: str | None = None,
    prune: str | None = None,
    dtype: str = "fp32",
    port_dtype: str = "fp32",
    weight_dtype: str = "fp32",
    gpu: str | None = None,
    on_cpu: Sequence[str] | None = None,
    name: str | None = None,
    **options: Any,
) -> "CompileReport":
    """Compiles a model for inputs of exactly the examples' shapes and types into a package folder at ``out``.

    With ``max_batch=N`` the package runs any first dimension from 1 to N, whatever it is in the examples.

    ``model`` is an ``nn.Module``, what ``torch.export`` gives, a function of tensors, an ``onnx.ModelProto``, or the
    path of an ONNX file or of an archive of ``torch.export.save``. ``example_inputs`` are tensors or NumPy arrays: one,
    a tuple or list of them, or a dict by the names of ``forward`` or of the file's inputs; None for a file that says
    all its shapes. ``target`` is a target's name or a `Target` (`target_named` takes a processor, too), or several;
    this machine if None (x86-64: all that it can do; arm64: as a Cortex-A53). ``pipeline`` is a pass pipeline as text,
    ``prune`` what to prune before it (``"pattern,connectivity{rate=3.6}"``). ``dtype`` ``"fp16"`` makes activations,
    weights and arithmetic fp16 on processors that have it, ``port_dtype`` inputs and outputs, too; ``weight_dtype``
    ``"fp16"`` stores weights of linear layers so. ``gpu`` adds code for a GPU to each library, which is used where one
    can be trusted: ``"opencl"``, or for families of GPUs ``"opencl:adreno-6xx,mali-g7x"``; ``on_cpu`` names the layers
    that this code leaves to the processor, by globs, or is ``["none"]``; if None, costs choose. ``name`` (the class's,
    function's or file's, in small letters) names the library. ``threads`` (1) kernels are compiled at once. Other
    options are those of `pcc.compiler.compile_model`. Raises `PccError` for what cannot be compiled or written.
    """
    from pcc.compiler import compile_model
    from pcc.frontend.inputs import model_name
    from pcc.passes.pipeline import chosen_pipeline

    wanted = host_target() if target is None else target
    several = [wanted] if isinstance(wanted, str | Target) else list(wanted)
    targets = [target_named(each) if isinstance(each, str) else each for each in several]
    if gpu is None and on_cpu is not None:
        raise PccError("on_cpu says what a GPU leaves to the processor: give gpu, too")
    if gpu is not None:
        from pcc.codegen.gpu_backend import gpu_named

        targets = [replace(each, gpu=gpu_named(gpu, on_cpu)) for each in targets]
    text = chosen_pipeline(pipeline, prune, dtype=dtype, port_dtype=port_dtype, weight_dtype=weight_dtype)
    return compile_model(
        model, example_inputs, out=Path(out), targets=targets, pipeline=text, name=name or model_name(model), **options
    )


def compress(
    model: "str | PathLike[str] | nn.Module",
    images: "str | PathLike[str] | Tensor",
    out: str | PathLike[str],
    *,
    faster: float | None = None,
    macs: float | None = None,
    size: float | None = None,
    keep: float | None = None,
    target: str | Target | None = None,
    input_shape: tuple[int, int, int] | None = None,
    preprocessing: "Preprocessing | None" = None,
    photos: int = 256,
    minutes: float | None = None,
    resume: bool = False,
    name: str | None = None,
    watch: Watch | None = None,
) -> "CompressReport":
    """Prunes a trained network until a wish comes true, without labels, into a folder with its package, checkpoint,
    recipe and report.

    ``model`` is an ``nn.Module`` or the path of an ONNX file or a ``.pt2`` archive, of one image input ``input_shape``,
    (C, H, W), which a file may say itself. ``images`` are its inputs, fp32 (N, C, H, W), or a folder of photos, which
    ``preprocessing`` makes inputs (as ImageNet's usual one if None). One wish: ``faster`` than dense, so many times, on
    ``target`` (this machine if None; times are measured where it executes the target's code, else the cost model's);
    ``macs`` or ``size``, the share of multiply-accumulates or of the weights' bytes that is left; ``keep``, the share
    of photos on which the class stays, as fast as that allows. ``photos`` is how many are fitted on at most; with
    ``minutes`` the network then learns its dense self's outputs on them for so long. ``watch`` is told what is done and
    the part that is over, 0..1. Raises `PccError` for what cannot be compressed, and for a wish that cannot come true.
    """
    from pcc.compression.compress import compress_network
    from pcc.compression.network import open_subject
    from pcc.compression.photos import open_photos, split
    from pcc.compression.wish import chosen_wish

    wish = chosen_wish(faster, macs, size, keep)
    chosen = host_target() if target is None else target_named(target) if isinstance(target, str) else target
    subject = open_subject(model, input_shape, preprocessing, name)
    inputs = split(open_photos(images, subject.input_shape, subject.preprocessing), photos)
    return compress_network(subject, inputs, wish, Path(out), chosen, minutes, resume, watch or quiet)


def load(
    package: str | PathLike[str], threads: int = 1, device: str = "auto", cache: str | PathLike[str] | None = None
) -> "Model":
    """A compiled package as a callable on arrays (numpy, or anything with ``__dlpack__``), run by this process on
    ``threads`` threads, or on a GPU (``device``, ``cache``: `pcc.runtime.loader.load`)."""
    from pcc.runtime.loader import load as load_package

    return load_package(Path(package), threads, device, None if cache is None else Path(cache))


def __getattr__(name: str) -> Any:
    if name == "PassManager":
        from pcc.passes.manager import PassManager

        return PassManager
    raise AttributeError(f"module 'pcc' has no attribute '{name}'")

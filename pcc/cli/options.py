"""Options that several commands share, and what they choose: passes, targets, devices."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pcc.cli.shapes import InputShape, input_shapes_option
from pcc.errors import PccError
from pcc.target import ARM_CPUS, GENERIC, X86_CPUS, Gpu, Target, host_target, target_named

if TYPE_CHECKING:
    from pcc.deploy import Device


MOST_THREADS = 256
"""As the runtime has it."""
QEMU_CPUS = ("max", "cortex-a35", "cortex-a53", "cortex-a55", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1")
"""Processors that QEMU emulates and pcc compiles for, and ``max``, which has whatever QEMU can do."""


DTYPE_OPTIONS = {
    "--dtype": "What activations and weights are, and what is computed in.",
    "--port-dtype": "What floating-point inputs and outputs are; fp16 needs --dtype fp16.",
    "--weight-dtype": "What weights of linear layers are stored as.",
}


def dtype_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`DTYPE_OPTIONS`, parameters of `pcc.passes.pipeline.chosen_pipeline`."""
    for name, text in reversed(DTYPE_OPTIONS.items()):
        function = click.option(
            name, type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True, help=text
        )(function)
    return function


pipeline_option = click.option(
    "-p",
    "--pipeline",
    metavar="PIPELINE",
    help="The passes, in order, as in 'canonicalize,prune-pattern{patterns=8},...' (pcc passes).",
)
prune_option = click.option(
    "--prune",
    metavar="WHAT",
    help="Prune first: 'pattern,connectivity' or with options, 'pattern,connectivity{rate=3.6}'.",
)
weights_option = click.option(
    "--weights",
    metavar="WHAT",
    help="'trained' (zoo models, the default), a checkpoint (FILE or FILE:KEY), or 'none': random numbers.",
)
machine_profile_option = click.option(
    "--machine-profile",
    metavar="FILE",
    help="Costs to choose kernels by: a file of pcc tune, or 'built-in'. Default: those saved for the processor.",
)
tuning_records_option = click.option(
    "--tuning-records",
    metavar="FILE",
    help="What pcc tune found, or 'none'. Default: where pcc tune keeps it.",
)
threads_option = click.option(
    "--threads", type=click.IntRange(1, MOST_THREADS), default=1, show_default=True, help="Threads the network runs on."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


def folder_option(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``-o`` for the folder that a command makes; ``what`` says what goes there."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        required=True,
        metavar="DIR",
        help=f"Where {what}.",
    )


def written(options: Mapping[str, object]) -> list[str]:
    """The names of options, as they are on a command line, that are not left at their defaults."""
    return [name for name, value in options.items() if value not in (None, (), "fp32")]


def model_only(what: str, options: Mapping[str, object]) -> None:
    """`PccError` for an option that goes with a model, where a command was given a package; options by their names on
    the command line."""
    if used := written(options):
        raise PccError(
            f"{used[0]} goes with a model, and {what} is a package, which is compiled: give the model that it was made "
            "from"
        )


@dataclass(frozen=True)
class ModelOptions:
    """How a MODEL is read and what passes and costs it gets, as `model_options` takes it from a command line."""

    pipeline: str | None
    prune: str | None
    input_shapes: tuple[InputShape, ...]
    weights: str | None
    machine_profile: str | None
    tuning_records: str | None
    dtype: str
    port_dtype: str
    weight_dtype: str

    @property
    def by_name(self) -> dict[str, object]:
        """Values by the names that the options have on a command line."""
        return {
            {"pipeline": "-p", "input_shapes": "--input-shape"}.get(name, f"--{name.replace('_', '-')}"): value
            for name, value in vars(self).items()
        }

    @property
    def costs(self) -> dict[str, str | None]:
        """What chooses kernels, as `pcc.compiler.compile_model` and `pcc.planner.plan_stage` take it."""
        return {"machine_profile": self.machine_profile, "tuning_records": self.tuning_records}

    def pipeline_text(self) -> str:
        """The pipeline that is asked for, checked: every pass exists with its options."""
        from pcc.passes.pipeline import chosen_pipeline, parse_pipeline

        text = chosen_pipeline(
            self.pipeline, self.prune, dtype=self.dtype, port_dtype=self.port_dtype, weight_dtype=self.weight_dtype
        )
        parse_pipeline(text)
        return text


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `ModelOptions`, which the command gets as ``options``."""

    @functools.wraps(function)
    def command(**parameters: Any) -> Any:
        options = ModelOptions(**{field.name: parameters.pop(field.name) for field in fields(ModelOptions)})
        return function(**parameters, options=options)

    decorated: Callable[..., Any] = command
    for add in (
        tuning_records_option,
        machine_profile_option,
        weights_option,
        input_shapes_option,
        dtype_options,
        prune_option,
        pipeline_option,
    ):
        decorated = add(decorated)
    return decorated


def target_options(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--target`` and ``--cpu``, which `chosen_targets` reads; ``what`` says what a target is for."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function = click.option(
            "--cpu",
            "cpus",
            multiple=True,
            metavar="CPU",
            help="The processor to use fully, of the targets of its architecture.",
        )(function)
        return click.option(
            "--target",
            "target_names",
            multiple=True,
            metavar="TARGET",
            help=f"{what} (pcc targets). Default: this machine, or Linux for --cpu.",
        )(function)

    return decorate


def device_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--device``, ``--cpu`` and ``--use``, which `chosen_device` reads."""
    function = click.option(
        "--use",
        type=click.Choice(["auto", "cpu", "gpu"]),
        default="auto",
        show_default=True,
        help="What computes there; auto: the GPU, where the package has code for it and it can be trusted.",
    )(function)
    function = click.option(
        "--cpu", metavar="CPU", help="The processor that qemu emulates: cortex-a53, cortex-a76, max (the default), ..."
    )(function)
    return click.option(
        "--device", type=click.Choice(["host", "qemu"]), default="host", show_default=True, help="Where it runs."
    )(function)


def chosen_device(device: str, cpu: str | None, use: str = "cpu") -> "Device":
    """The device of a command line; `PccError` for a processor on a device that has its own."""
    from pcc.deploy import device_named

    if cpu and device != "qemu":
        raise PccError(f"--cpu is for --device qemu; the {device} has the processor it has")
    if cpu and cpu not in QEMU_CPUS:
        raise PccError(f"unknown cpu '{cpu}' for {device}: choose one of {', '.join(QEMU_CPUS)}")
    chosen = device_named(f"{device}:{cpu}" if cpu else device)
    chosen.use = use
    return chosen


def say_why_no_gpu(used: str) -> None:
    """A line on standard error where a package has code for a GPU and the CPU computed; ``used`` is `Device.used`."""
    if used.startswith("cpu: "):
        click.echo(f"pcc: note: the GPU is not used: {used.removeprefix('cpu: ')}", err=True)


gpu_option = click.option(
    "--gpu",
    metavar="GPU",
    help="Also make code for a GPU: opencl, or opencl:PROFILE,... for families of GPUs (pcc targets).",
)


on_cpu_option = click.option(
    "--on-cpu",
    metavar="LAYER,...",
    help="The layers of the GPU's code that the processor computes: names or globs, or none. Default: by costs.",
)


def chosen_gpu(text: str | None, on_cpu: str | None = None) -> Gpu | None:
    """What ``--gpu`` and ``--on-cpu`` say; `PccError` for names that are not known."""
    from pcc.codegen.gpu_backend import gpu_named

    if text is None and on_cpu is not None:
        raise PccError(f"--on-cpu {on_cpu} says what a GPU leaves to the processor: add --gpu")
    return None if text is None else gpu_named(text, None if on_cpu is None else on_cpu.split(","))


def chosen_targets(
    names: Sequence[str], cpus: Sequence[str], gpu: str | None = None, on_cpu: str | None = None
) -> list[Target]:
    """The targets of a command line: every ``--cpu`` goes to the targets of its architecture, and none may be left
    over; ``--gpu`` and ``--on-cpu`` go to all.

    Without a target, the host. Raises `PccError` for unknown names, a processor that fits no target, and two that fit
    one.
    """
    if chosen := chosen_gpu(gpu, on_cpu):
        return [replace(target, gpu=chosen) for target in chosen_targets(names, cpus)]
    if not names and not cpus:
        return [host_target()]
    known = [cpu_architecture(cpu) for cpu in cpus if cpu != GENERIC]
    names = list(dict.fromkeys(names)) or [
        {"x86_64": "x86_64-linux", "aarch64": "aarch64-linux"}[known[0]] if known else host_target().name
    ]
    targets = []
    unused = set(cpus)
    for name in names:
        fitting = [
            cpu for cpu in dict.fromkeys(cpus) if cpu == GENERIC or cpu_architecture(cpu) == target_named(name).arch
        ]
        if len(fitting) > 1:
            raise PccError(
                f"two processors for {name}: {' and '.join(fitting)}; a package holds one library for each target"
            )
        targets.append(target_named(name, fitting[0] if fitting else None))
        unused -= set(fitting)
    if unused:
        raise PccError(f"--cpu {sorted(unused)[0]} fits none of the targets {', '.join(names)}")
    return targets


def cpu_architecture(cpu: str) -> str:
    """The architecture a processor name belongs to; raises `PccError` when it is not known."""
    if cpu == "native" or cpu in X86_CPUS:
        return "x86_64"
    if cpu in ARM_CPUS:
        return "aarch64"
    raise PccError(f"unknown cpu '{cpu}': choose native, generic or one of {', '.join([*X86_CPUS, *ARM_CPUS])}")

"""Option types that several commands share: shapes, counts, targets."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from pcc.errors import PccError
from pcc.target import ARM_CPUS, X86_CPUS, Target, host_target, target_named

if TYPE_CHECKING:
    from pcc.deploy import Device


class Shape(click.ParamType):
    """``1,3,224,224`` as a tuple of positive integers."""

    name = "N,C,H,W"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            shape = tuple(int(part) for part in str(value).replace("x", ",").split(","))
        except ValueError:
            shape = ()
        if not shape or min(shape) < 1:
            self.fail(f"'{value}' is not a shape: give positive sizes as in 1,3,224,224", param, ctx)
        return shape


threads_option = click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads the network runs on.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


def device_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--device`` and ``--cpu``, which `chosen_device` reads."""
    function = click.option("--cpu", metavar="CPU", help="The processor that qemu emulates: cortex-a53, cortex-a76, max (the default), ...")(function)
    return click.option("--device", type=click.Choice(["host", "qemu"]), default="host", show_default=True, help="Where it runs.")(function)


def chosen_device(device: str, cpu: str | None) -> "Device":
    """The device of a command line; `PccError` for a processor on a device that has its own."""
    from pcc.deploy import device_named

    if cpu and device != "qemu":
        raise PccError(f"--cpu is for --device qemu; the {device} has the processor it has")
    return device_named(f"{device}:{cpu}" if cpu else device)


def chosen_targets(names: Sequence[str], cpus: Sequence[str]) -> list[Target]:
    """The targets of a command line: every ``--cpu`` goes to the targets of its architecture, and none may be left over.

    Without a target, the host. Raises `PccError` for unknown names, a processor that fits no target, and two that fit one.
    """
    if not names and not cpus:
        return [host_target()]
    names = list(dict.fromkeys(names)) or ["x86_64-linux" if cpu_architecture(cpus[0]) == "x86_64" else "aarch64-linux"]
    targets = []
    unused = set(cpus)
    for name in names:
        fitting = [cpu for cpu in dict.fromkeys(cpus) if cpu_architecture(cpu) == target_named(name).arch]
        if len(fitting) > 1:
            raise PccError(f"two processors for {name}: {' and '.join(fitting)}; a package holds one library for each target")
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
    raise PccError(f"unknown cpu '{cpu}': choose native or one of {', '.join([*X86_CPUS, *ARM_CPUS])}")

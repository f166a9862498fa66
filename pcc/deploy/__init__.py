"""Devices: where packages run."""

from pcc.deploy.device import BenchResult, CallTime, Device, SelfTestResult
from pcc.deploy.host import Host
from pcc.deploy.qemu import Qemu
from pcc.errors import PccError

__all__ = ["BenchResult", "CallTime", "Device", "Host", "Qemu", "SelfTestResult", "device_named"]


def device_named(name: str) -> Device:
    """``host``, ``qemu``, or ``qemu:CPU`` (``qemu:cortex-a53``). `PccError` for anything else."""
    kind, _, cpu = name.partition(":")
    if kind == "host" and not cpu:
        return Host()
    if kind == "qemu":
        return Qemu(cpu or "max")
    raise PccError(f"unknown device '{name}': choose host, qemu or qemu:CPU (qemu:cortex-a53, qemu:cortex-a76)")

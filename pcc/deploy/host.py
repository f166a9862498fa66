"""This computer as a device."""

from pathlib import Path

from pcc.deploy.device import Device
from pcc.target import host_target


class Host(Device):
    """Runs the runner directly."""

    name = "host"

    def __init__(self) -> None:
        self.target = host_target().name

    def command(self, program: Path) -> list[str]:
        return [str(program)]

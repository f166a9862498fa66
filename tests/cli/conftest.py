"""The command line as a program: what it printed and its exit status."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(sys.executable).with_name("pcc")

FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.conv2(x) + x)
        return self.fc(x.mean((2, 3)))

def make():
    torch.manual_seed(0)
    return Net()
"""
SHAPE = "2,3,13,11"


@pytest.fixture(scope="session")
def factory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network in a file, as the command line names it."""
    path = tmp_path_factory.mktemp("factory") / "net.py"
    path.write_text(FACTORY)
    return f"{path}:make"


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on standard error that says what was wrong; asserts that it is one, and the status that of wrong
        use."""
        assert self.status == 2, f"status {self.status}\n{self.out}\n{self.err}"
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("pcc: error: ")
        return lines[0].removeprefix("pcc: error: ")


@pytest.fixture
def heeded_interrupts() -> Iterator[None]:
    """Ctrl-C has its ordinary meaning, here and in programs that are started, also where the tests run in the
    background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def pcc(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command line in this process."""

    def run(*args: object) -> Outcome:
        from pcc.cli.app import run as run_command

        capfd.readouterr()
        status = run_command([str(arg) for arg in args])
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


@pytest.fixture
def pcc_process() -> Callable[..., Outcome]:
    """Runs a command line as a process of its own."""

    def run(*args: object, cwd: Path | None = None) -> Outcome:
        done = subprocess.run(
            [SCRIPT, *map(str, args)], capture_output=True, text=True, cwd=cwd, check=False, timeout=300
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run

"""The peers' environments: each a venv of its own in pcc's cache, made by pip from pinned names and kept until the pins
change."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pcc.cache import cache_root


class Unavailable(Exception):
    """Why an engine does not run on this machine, as one line for the table's notes."""


@dataclass(frozen=True)
class Environment:
    """Pinned packages, and the Python that they need."""

    name: str
    requirements: tuple[str, ...]
    alone: tuple[str, ...] = ()
    """Pinned packages of which only a program is wanted, installed without what else they ask for."""
    python: str = ""
    """``3.10`` where a package needs it; empty: the Python that runs this program."""

    @property
    def folder(self) -> Path:
        return cache_root() / "peers" / self.name

    @property
    def interpreter(self) -> Path:
        return self.folder / "bin" / "python"

    def make(self) -> Path:
        """The interpreter with the packages installed; a finished environment is taken as it is. `Unavailable` where it
        cannot be made."""
        pins = "\n".join((self.python or _version(Path(sys.executable)), *self.requirements, *self.alone))
        stamp = self.folder / "pins.txt"
        if stamp.is_file() and stamp.read_text() == pins and self.interpreter.exists():
            return self.interpreter
        base = find_python(self.python)
        print(f"installing {' '.join((*self.requirements, *self.alone))}", file=sys.stderr, flush=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        _run([base, "-m", "venv", self.folder])
        pip = [self.interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, *self.requirements])
        if self.alone:
            _run([*pip, "--no-deps", *self.alone])
        stamp.write_text(pins)
        return self.interpreter


def find_python(version: str) -> Path:
    """A Python of the version (``3.10``), this one if empty: from PATH, or among the versions of pyenv. `Unavailable`
    if there is none."""
    if not version:
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    on_path = shutil.which(f"python{version}")
    for candidate in (*([Path(on_path)] if on_path else []), *sorted(pyenv.glob(f"{version}.*/bin/python{version}"))):
        if _version(candidate) == version:
            return candidate
    raise Unavailable(f"needs Python {version}, and there is none on this machine")


def _version(python: Path) -> str:
    """Major and minor version of an interpreter; empty if it does not start (pyenv's shims of versions that are
    switched off)."""
    done = subprocess.run(
        [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"could not be installed: {last_error(done.stderr)}")


def last_error(text: str) -> str:
    """The line of a program's output that says what went wrong: pip's last ERROR, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["no message"])[-1].removeprefix("ERROR:").strip()

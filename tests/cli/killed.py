"""``python -m tests.cli.killed compile|prune N``: kills a command N times at random moments (SIGKILL), and looks at
what is left each time.

The command runs in a child that is forked after everything is imported, so that most moments are of its work. After a
kill there is the old result or the new one, whole, and what the user has beside it; the next command is not disturbed
by what is left, and takes it away.
"""

import importlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import click

from pcc.cli.app import run
from tests.cli.test_prune import RECIPE, SOURCE

PRELOADED = (
    "pcc.cli.compile",
    "pcc.cli.prune",
    "pcc.compiler",
    "pcc.training.prune",
    "torch._dynamo",
    "torch.export",
    "tvm",
    "pcc.codegen.builder",
)
"""What commands import late."""


LATE = 1.3
"""Some moments are after the end, whatever else the machine does: the last steps are killed, too."""


class Killed:
    """A folder in which a command is killed again and again."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, Random(seed)
        os.chdir(folder)
        os.environ["PCC_CACHE"] = str(folder / "cache")
        Path("net.py").write_text(SOURCE)
        Path("recipe.yaml").write_text(RECIPE)
        for name in PRELOADED:
            importlib.import_module(name)

    def start(self, arguments: Sequence[str], seconds: float = 600) -> int | None:
        """The exit status of a command line; None if it was killed after so many seconds."""
        child = os.fork()
        if not child:
            os.setsid()
            quiet = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            status = 1
            try:
                status = run(arguments)
            finally:
                os._exit(status)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(min(0.002, max(0.0, end - time.monotonic())))
        os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return None if status == -signal.SIGKILL else status

    def finish(self, arguments: Sequence[str]) -> float:
        """Runs a command line to its end; how long that took, in seconds."""
        begin = time.monotonic()
        status = self.start(arguments)
        assert status == 0, Path("output.txt").read_text()
        return time.monotonic() - begin


def kill_compile(killed: Killed, count: int) -> int:
    """How often the new package was there."""
    from pcc.package.read import open_package

    command = ["compile", "net.py:make", "--input-shape", "1,3,16,16", "-o", "place/net", "--prune", "connectivity"]
    Path("place").mkdir()
    killed.finish(command)
    out, cache = Path("place/net"), Path("cache/kernels")
    (out / "notes.txt").write_text("mine")
    shutil.rmtree(cache)
    times = {True: killed.finish(command), False: killed.finish(command)}
    """With kernels to compile, and without."""
    replaced = 0
    for number in range(count):
        if is_cold := number % 3 == 0:
            shutil.rmtree(cache)
        before = (out / "manifest.json").stat().st_ino
        killed.start(command, killed.random.uniform(0, LATE * times[is_cold]))
        open_package(out).verify()
        assert (out / "notes.txt").read_text() == "mine"
        assert all(path == out or path.name.startswith(".pcc-package-") for path in Path("place").iterdir()), list(
            Path("place").iterdir()
        )
        replaced += before != (out / "manifest.json").stat().st_ino
        cache.mkdir(exist_ok=True)
    killed.finish(command)
    assert os.listdir("place") == ["net"]
    return replaced


def kill_prune(killed: Killed, count: int) -> int:
    """How often a run was complete."""
    import torch
    from safetensors.torch import load_file

    def command(out: str) -> list[str]:
        return [
            "prune",
            "net.py:make",
            "--data",
            "net.py:loader",
            "--recipe",
            "recipe.yaml",
            "-o",
            out,
            "--threads",
            "1",
        ]

    longest, done = killed.finish(command("whole")), 0
    whole = load_file("whole/model.safetensors")
    resuming = False
    for _ in range(count):
        arguments = [*command("out"), "--resume"] if resuming else command("out")
        status = killed.start(arguments, killed.random.uniform(0, LATE * longest))
        assert status in (None, 0), Path("output.txt").read_text()
        if Path("out/model.safetensors").exists():  # whole, or not there
            found = load_file("out/model.safetensors")
            assert all(torch.equal(found[name], whole[name]) for name in whole)
        if Path("out/report.json").exists():
            json.loads(Path("out/report.json").read_text())
        resuming = Path("out/resume.pt").exists()
        if status == 0:
            done += 1
            shutil.rmtree("out")
            resuming = False
    killed.finish([*command("out"), "--resume"] if resuming else command("out"))
    found = load_file("out/model.safetensors")
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    assert sorted(os.listdir("out")) == sorted(os.listdir("whole"))
    return done


@click.command(help="Kill COMMAND, compile or prune, COUNT times.")
@click.argument("command", type=click.Choice(["compile", "prune"]))
@click.argument("count", type=click.IntRange(min=1))
@click.option("--seed", type=int, default=0, show_default=True)
def main(command: str, count: int, seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="pcc-killed-") as folder:
        killed = Killed(Path(folder), seed)
        ended = {"compile": kill_compile, "prune": kill_prune}[command](killed, count)
        click.echo(
            f"pcc {command} was killed {count - ended} times and was faster {ended} times: nothing was lost, nothing "
            "was left"
        )
        os.chdir("/")


if __name__ == "__main__":
    main()

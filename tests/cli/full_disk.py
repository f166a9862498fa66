"""``unshare -rm python -m tests.cli.full_disk FOLDER``: command lines whose files lie on disks that are full at once,
soon, or late.

In a mount namespace of its own, which needs no rights, each folder is a file system of some KiB. Prints a line of JSON
for each command line: what it was, its exit status, what it said on standard error, and the names of what it left on
that disk.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

from pcc.cli.app import run
from tests.cli.test_prune import RECIPE, SOURCE

COMPILE = ("compile", "net.py:make", "--input-shape", "1,3,16,16")
PRUNE = ("prune", "net.py:make", "--data", "net.py:loader", "--recipe", "recipe.yaml", "--threads", "1")
EXPORT = ("export", "net.py:make", "--input-shape", "1,3,16,16")
KIBIBYTES = (4, 32, 200)
CASES = {
    "package": ({}, (*COMPILE, "-o", "full/net")),
    "dump": ({}, (*COMPILE, "-o", "net", "--dump-ir", "full/dump")),
    "kernels": ({"PCC_CACHE": "full"}, (*COMPILE, "-o", "net")),
    "temporary": ({"TMPDIR": "full"}, (*COMPILE, "-o", "net")),
    "onnx": ({}, (*EXPORT, "-o", "full/net.onnx")),
    "pt2": ({}, (*EXPORT, "-o", "full/net.pt2")),
    "safetensors": ({}, (*EXPORT, "-o", "full/net.safetensors")),
    "checkpoint": ({}, (*PRUNE, "-o", "full/pruned")),
    "records": (
        {},
        ("tune", "net.py:make", "--input-shape", "1,3,16,16", "--trials", "2", "--tuning-records", "full/records"),
    ),
    "output": ({}, ("run", "whole", "-i", "input.npy", "-o", "full/output.npy")),
}
"""Variables of the environment, and the command line."""


def main(folder: Path) -> None:
    import numpy as np

    os.chdir(folder)
    Path("net.py").write_text(SOURCE)
    Path("recipe.yaml").write_text(RECIPE)
    np.save("input.npy", np.zeros((1, 3, 16, 16), np.float32))
    assert run([*COMPILE, "-o", "whole"]) == 0
    for size in KIBIBYTES:
        for name, (variables, arguments) in CASES.items():
            full = folder / "full"
            full.mkdir(exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", full], check=True)
            before = {variable: os.environ.get(variable) for variable in variables}
            os.environ.update({variable: str(folder / value) for variable, value in variables.items()})
            said = io.StringIO()
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                status = run(arguments)
            for variable, value in before.items():
                os.environ.pop(variable, None)
                if value is not None:
                    os.environ[variable] = value
            left = sorted(os.listdir(full))
            subprocess.run(["umount", full], check=True)
            print(
                json.dumps({"name": name, "size": size, "status": status, "said": said.getvalue(), "left": left}),
                flush=True,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""``--dump-ir DIR``: the graph after each pass as ``NNN_pass-name.txt``."""

import re
from collections.abc import Collection
from pathlib import Path

from torch.fx import GraphModule

from pcc.errors import PccError
from pcc.files import read_limited, writing
from pcc.ir.printer import print_graph


def dump_graph(directory: Path, index: int, name: str, graph_module: GraphModule) -> Path:
    """Writes one dump, in a directory that is made if need be, and gives its path."""
    path = directory / f"{index:03d}_{name}.txt"
    with writing(f"the dump '{path}'"):
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(print_graph(graph_module), encoding="utf-8")
    return path


def remove_dumps(directory: Path, stages: Collection[str], folders: Collection[str] = ()) -> None:
    """Removes what an earlier run left, which had other passes or targets: the dumps of ``stages``, and in the folders
    of targets and of GPUs the kernel programs, too."""
    of_targets = [path for folder in folders for path in (directory / folder).rglob("*.txt")]
    for path in (*directory.glob("*.txt"), *of_targets):
        is_graph = re.match(r"\d{3}_", path.name) and path.name[4:-4] in stages
        if is_graph or (path in of_targets and path.name == "program.txt"):
            with writing(f"the dump '{path}'"):
                path.unlink()


MOST_BYTES = 256 << 20
"""Of a dump that is read."""


def stage_files(directory: Path) -> dict[str, Path]:
    """The dumps in a folder by the stages' names, in order: the graph after each pass (a pass that ran twice: after its
    last run), then the kernel program, of the first target by name, and those for GPUs, ``opencl:generic``."""
    graphs = {path.name[4:-4]: path for path in sorted(directory.glob("[0-9][0-9][0-9]_*.txt"))}
    programs = sorted(
        (*directory.glob("program.txt"), *directory.glob("*/program.txt"), *directory.glob("*/*/program.txt"))
    )
    for_gpus = {":".join(path.parts[-3:-1]): path for path in sorted(directory.glob("gpu/*/*/program.txt"))}
    return graphs | ({"program": programs[0]} if programs else {}) | for_gpus


def stage_text(directory: Path, stage: str | None = None) -> str:
    """The text of a stage in a folder of dumps; of the last of the graph if None. `PccError` for a stage that it does
    not have."""
    files = stage_files(directory)
    graphs = [name for name, path in files.items() if path.name != "program.txt"]
    if not graphs:
        raise PccError(f"{directory} has no dumps: give a folder of --dump-ir, a package or a model")
    if stage is not None and stage not in files:
        raise PccError(f"{directory} has no stage '{stage}': choose one of {', '.join(files)}")
    return read_dump(files[stage or graphs[-1]])


def read_dump(path: Path) -> str:
    """The text of a dump; `PccError` for what is no text."""
    try:
        return read_limited(path, "dump", MOST_BYTES).decode()
    except UnicodeDecodeError as error:
        raise PccError(f"dump {path} is no text: {error.reason} at byte {error.start}") from None

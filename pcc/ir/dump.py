"""``--dump-ir DIR``: the graph after each pass as ``NNN_pass-name.txt``."""

from pathlib import Path

from torch.fx import GraphModule

from pcc.errors import PccError
from pcc.ir.printer import print_graph


def dump_graph(directory: Path, index: int, name: str, graph_module: GraphModule) -> Path:
    """Writes one dump, in a directory that is made if need be, and gives its path."""
    path = directory / f"{index:03d}_{name}.txt"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(print_graph(graph_module), encoding="utf-8")
    except OSError as error:
        raise PccError(f"cannot write the dump '{path}': {error.strerror or error}") from error
    return path

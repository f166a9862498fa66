"""Where in the model's own code something comes from: ``net.py:41``."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from types import TracebackType

import torch
from torch.fx import Node

import pcc

_LIBRARIES = tuple(Path(package.__file__ or "").parent for package in (torch, pcc))


def line_of_node(node: Node) -> str:
    """The innermost line of the model that made a node, or what it reads; empty where none is known."""
    pending, seen = [node], set()
    while pending:
        current = pending.pop(0)
        frames = re.findall(r'File "([^"]+)", line (\d+)', current.meta.get("stack_trace") or "")
        if line := _innermost((file, int(number)) for file, number in frames):
            return line
        seen.add(current)
        pending += [operand for operand in current.all_input_nodes if operand not in seen]
    return ""


def line_of_error(error: BaseException) -> str:
    """The innermost line of the model that an exception passed through; empty where it passed through none."""
    return _innermost(_frames(error.__traceback__))


def _frames(traceback: TracebackType | None) -> Iterable[tuple[str, int]]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next


def _innermost(frames: Iterable[tuple[str, int]]) -> str:
    lines = [f"{PurePath(file).name}:{number}" for file, number in frames if not _is_library(file)]
    return lines[-1] if lines else ""


def _is_library(file: str) -> bool:
    return file.startswith("<") or any(folder in PurePath(file).parents for folder in _LIBRARIES)

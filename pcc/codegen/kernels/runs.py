"""Runs of consecutive elements, written exactly: whole vectors, then halves, quarters, ... down to one element."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder


def exact_run(k: "KernelBuilder", count: "Expr", emit: Callable[["Expr", int], None]) -> None:
    """Emits code that covers ``[0, count)``: ``emit(offset, lanes)`` does ``lanes`` elements from ``offset`` on, each
    element once.

    ``count`` must not be negative: its low bits would still be obeyed.
    """
    with k.loop(0, count // k.lanes) as vector:
        emit(vector * k.lanes, k.lanes)
    run_tail(k, count, emit, k.lanes)


def run_tail(k: "KernelBuilder", count: "Expr", emit: Callable[["Expr", int], None], lanes: int) -> None:
    """The last ``count % lanes`` elements of a run: the bits of ``count`` say which of the smaller vectors are
    needed."""
    lanes //= 2
    while lanes:
        with k.when(count // lanes % 2 == 1):
            emit(count // (2 * lanes) * (2 * lanes), lanes)
        lanes //= 2


def run_pieces(count: int, lanes: int) -> int:
    """How many vectors, whole and smaller ones, `exact_run` takes."""
    return count // lanes + (count % lanes).bit_count()


def run_branches(lanes: int) -> int:
    """How many branches it executes beside those of whole vectors."""
    return lanes.bit_length()


def copy_run(
    k: "KernelBuilder", source: "Expr", source_at: "Expr", target: "Expr", target_at: "Expr", count: "Expr"
) -> None:
    """``target[target_at + i] = source[source_at + i]`` for ``count`` elements."""
    exact_run(k, count, lambda i, lanes: k.store(target, target_at + i, k.load(source, source_at + i, lanes), lanes))


def fill_run(k: "KernelBuilder", value: "Expr", target: "Expr", target_at: "Expr", count: "Expr") -> None:
    """``target[target_at + i] = value`` for ``count`` elements."""
    exact_run(k, count, lambda i, lanes: k.store(target, target_at + i, k.splat(value, lanes), lanes))

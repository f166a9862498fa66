"""Transposing between rows of memory and lanes of vectors, four columns at a time.

Four rows of four columns in a quarter of a vector (128 bits) change places in two steps of interleaving, which are one
instruction each on every instruction set; all quarters at once. So four vectors become four columns of all lanes, or
back.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder

QUARTER = 4
"""Columns that are transposed at a time."""


def transpose_quarters(k: "KernelBuilder", rows: list["Expr"]) -> list["Expr"]:
    """Four columns of ``len(rows)`` lanes each, from one vector of four columns for each lane."""
    lanes = len(rows)
    vectors = [k.let(k.concat([rows[quarter + i] for quarter in range(0, lanes, QUARTER)])) for i in range(QUARTER)]
    return transpose(k, vectors, lanes)


def split_lanes(k: "KernelBuilder", columns: list["Expr"], lanes: int) -> list["Expr"]:
    """One vector of four columns for each lane, from four columns of ``lanes`` lanes each."""
    vectors = transpose(k, columns, lanes)
    return [k.part(vectors[lane % QUARTER], lane // QUARTER * QUARTER, QUARTER) for lane in range(lanes)]


def transpose(k: "KernelBuilder", vectors: list["Expr"], lanes: int) -> list["Expr"]:
    """In each quarter, element j of vector i becomes element i of vector j."""

    def interleaved(a: "Expr", b: "Expr", first: int, size: int) -> "Expr":
        """In each quarter, runs of ``size`` elements of both in turn, from element ``first`` on."""
        turns = range(QUARTER // size)
        places = [first + turn // 2 * size + i + turn % 2 * lanes for turn in turns for i in range(size)]
        indices = [quarter + place for quarter in range(0, lanes, QUARTER) for place in places]
        return k.let(k.shuffle([a, b], indices))

    a, b, c, d = vectors
    ab_low, ab_high, cd_low, cd_high = (
        interleaved(a, b, 0, 1),
        interleaved(a, b, 2, 1),
        interleaved(c, d, 0, 1),
        interleaved(c, d, 2, 1),
    )
    return [
        interleaved(ab_low, cd_low, 0, 2),
        interleaved(ab_low, cd_low, 2, 2),
        interleaved(ab_high, cd_high, 0, 2),
        interleaved(ab_high, cd_high, 2, 2),
    ]

"""Markdown tables that also read well in a terminal."""

from collections.abc import Sequence


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell; columns of numbers to the right."""
    cells = [[str(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    right = [all(row[column][:1].isdigit() for row in cells[1:]) for column in range(len(headers))]
    rule = "|".join(
        ["", *(f"{'-' * (width + 1)}{':' if flush else '-'}" for width, flush in zip(widths, right, strict=True)), ""]
    )
    lines = [
        "| "
        + " | ".join(c.rjust(w) if flush else c.ljust(w) for c, w, flush in zip(row, widths, right, strict=True))
        + " |"
        for row in cells
    ]
    return "\n".join([lines[0], rule, *lines[1:]])

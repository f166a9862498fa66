"""What people see while something takes long, and the tables at its end."""

import sys
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout

from pcc.cli import interrupts
from pcc.progress import Progress, Watch


@contextmanager
def progress(enabled: bool = True) -> Generator[Progress]:
    """A line on standard error that says what is being done and for how long; nothing when that is not a terminal.

    Yields the function to call with each new step. It raises KeyboardInterrupt if an interrupt came before and was
    swallowed.
    """
    from rich.console import Console
    from rich.progress import Progress as Display
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not enabled or not console.is_terminal:
        yield lambda step: interrupts.check()
        return
    with Display(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
    ) as bar:
        task = bar.add_task("", total=None)

        def begin(step: str) -> None:
            interrupts.check()
            bar.update(task, description=step)

        yield begin


@contextmanager
def progress_bar(enabled: bool = True) -> Generator[Watch]:
    """A bar on standard error for a run with a known end, with the time it still takes; nothing when that is not a
    terminal.

    Yields the function to call with what runs and the part of the run that is over, 0..1. It raises KeyboardInterrupt
    if an interrupt was swallowed.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Display

    console = Console(stderr=True)
    if not enabled or not console.is_terminal:
        yield lambda what, done: interrupts.check()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Display(*columns, console=console, transient=True, redirect_stdout=False, speed_estimate_period=300) as bar:
        task = bar.add_task("", total=None)

        def show(what: str, done: float) -> None:
            interrupts.check()
            if (
                bar.tasks[0].total is None
            ):  # a resumed run begins in the middle: what is over already says nothing about speed
                bar.reset(task, total=1.0, completed=done)  # type: ignore[arg-type]  # fractions serve as well as whole numbers
            bar.update(task, description=what, completed=done)

        yield show


def prints_aside() -> AbstractContextManager[object]:
    """What a user's own code prints inside the block goes to standard error: standard output is for the command's
    result."""
    return redirect_stdout(sys.stderr)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a plain aligned table: the first column to the left, numbers to the right. Never truncates."""
    import click

    cells = [[str(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    right = [i > 0 and all(_is_number(row[i]) for row in cells[1:]) for i in range(len(headers))]
    for number, row in enumerate(cells):
        click.echo(
            "  ".join(
                cell.rjust(width) if flush else cell.ljust(width)
                for cell, width, flush in zip(row, widths, right, strict=True)
            ).rstrip()
        )
        if number == 0:
            click.echo("  ".join("-" * width for width in widths))


def _is_number(cell: str) -> bool:
    return not cell or cell == "-" or cell[0].isdigit() or cell[0] in "-+"


def megabytes(count: int) -> str:
    """Bytes as a person reads them: ``12.3 MB`` (10^6)."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"

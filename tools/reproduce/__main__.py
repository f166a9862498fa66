"""``python -m tools.reproduce ROW...``: runs rows, then writes the page."""

import shlex
import subprocess
import sys
from pathlib import Path

import click

from pcc.errors import PccError
from pcc.training.prune import Report
from tools.reproduce.latency import speedup
from tools.reproduce.page import write_page
from tools.reproduce.result import Result, load
from tools.reproduce.rows import ROWS, Row, dense, rows

FOLDER = Path("out/reproduce")


@click.command()
@click.argument("names", nargs=-1, metavar="ROW...")
@click.option("--again", is_flag=True, help="Run rows that have a checkpoint too.")
@click.option(
    "--checkpoints",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Has published checkpoints, which rows called public-... start from.",
)
def main(names: tuple[str, ...], again: bool, checkpoints: Path | None) -> None:
    """Run ROWs of the result table, or all; without any, only write docs/results.md from the results that are there."""
    try:
        wanted = rows(list(names), checkpoints is not None)
    except PccError as error:
        raise click.UsageError(str(error)) from None
    asked = {row.name for row in wanted if row.name in names or "all" in names}
    for row in wanted:
        anew = again and row.name in asked
        if anew or not checkpoint(row).is_file():
            run(row, start(row, checkpoints), resume=not anew)
    for row in wanted:
        if row.name in asked or load(row.name) is None:
            measure(row, start(row, checkpoints)).save()
    write_page()


def checkpoint(row: Row) -> Path:
    return FOLDER / row.name / "model.safetensors"


def start(row: Row, checkpoints: Path | None) -> Path | None:
    """The weights that a row starts from."""
    if checkpoints and row.published:
        return checkpoints / row.published
    return checkpoint(ROWS[row.start]) if row.start else None


def run(row: Row, weights: Path | None, *, resume: bool) -> None:
    """Trains and prunes; with ``resume`` goes on where an earlier run was interrupted, if one was."""
    folder = FOLDER / row.name
    arguments = ["prune", row.network, "--data", row.data, "--recipe", row.recipe, "-o", str(folder)]
    if weights:
        arguments += ["--weights", str(weights)]
    if resume and (folder / "resume.pt").is_file():
        arguments.append("--resume")
    print(f"\n$ pcc {shlex.join(arguments)}", flush=True)
    done = subprocess.run([Path(sys.executable).with_name("pcc"), *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def measure(row: Row, weights: Path | None) -> Result:
    """The figures of a row that has run from ``weights``."""
    report, origin = report_of(row), dense(row)
    before = checkpoint(origin) if origin else weights
    gain = speedup(row, before, checkpoint(row), FOLDER / row.name / "compiled") if before and row != origin else None
    return Result(
        row=row.name,
        command=f"python -m tools.reproduce {row.name}" + (" --checkpoints FOLDER" if row.published else ""),
        seed=report.seed,
        epochs=report.epochs,
        seconds=report.seconds,
        device=report.device,
        dense_accuracy=report_of(origin).accuracy if origin else report.dense_accuracy,
        accuracy=report.accuracy,
        weight_rate=report.total.weight_rate,
        data_rate=report.total.data_rate,
        data_and_index_rate=report.total.data_and_index_rate,
        mac_rate=report.total.mac_rate,
        speedup=gain,
    )


def report_of(row: Row) -> Report:
    return Report.model_validate_json((checkpoint(row).with_name("report.json")).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

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
def main(names: tuple[str, ...], again: bool) -> None:
    """Run ROWs of the result table, or all; without any, only write docs/results.md from the results that are there."""
    try:
        wanted = rows(list(names))
    except PccError as error:
        raise click.UsageError(str(error)) from None
    asked = {row.name for row in wanted if row.name in names or "all" in names}
    for row in wanted:
        if (again and row.name in asked) or not checkpoint(row).is_file():
            run(row)
    for row in wanted:
        if row.name in asked or load(row.name) is None:
            measure(row).save()
    write_page()


def checkpoint(row: Row) -> Path:
    return FOLDER / row.name / "model.safetensors"


def run(row: Row) -> None:
    """Trains and prunes; goes on where an earlier run was interrupted."""
    folder = FOLDER / row.name
    arguments = ["prune", row.network, "--data", row.data, "--recipe", row.recipe, "-o", str(folder)]
    if row.start:
        arguments += ["--weights", str(checkpoint(ROWS[row.start]))]
    if (folder / "resume.pt").is_file():
        arguments.append("--resume")
    print(f"\n$ pcc {shlex.join(arguments)}", flush=True)
    done = subprocess.run([Path(sys.executable).with_name("pcc"), *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def measure(row: Row) -> Result:
    """The figures of a row that has run."""
    report, origin = report_of(row), dense(row)
    gain = (
        speedup(row.network, checkpoint(origin), checkpoint(row), FOLDER / row.name / "compiled")
        if row != origin
        else None
    )
    return Result(
        row=row.name,
        command=f"python -m tools.reproduce {row.name}",
        seed=report.seed,
        epochs=report.epochs,
        seconds=report.seconds,
        device=report.device,
        dense_accuracy=report_of(origin).accuracy,
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

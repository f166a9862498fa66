"""``python -m tests.fuzz READER --cases N``: fuzzes one reader, guided by the coverage of pcc's own code, and says what
did harm.

Each file that did harm, the first of its kind, is kept in ``--keep``. A file that takes more memory than
`MOST_MEGABYTES`, or never ends, ends the run, and is kept, too.
"""

import importlib
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from random import Random
from typing import Any

import click

from tests.fuzz.readers import READERS, Reader, refusal

atheris: Any = importlib.import_module("atheris")  # has no types

MOST_SECONDS = 60
"""Of computing."""
MOST_WAIT_SECONDS = 600
"""More than a machine that pauses its jobs may let one wait."""
MOST_MEGABYTES = 2048


class Fuzzing:
    """A run over one reader, and what it found."""

    def __init__(self, reader: Reader, folder: Path, keep: Path, most: int) -> None:
        self.reader, self.folder, self.keep, self.most = reader, folder, keep, most
        self.cases = self.refused = 0
        self.kinds: dict[str, int] = {}

    def try_file(self, content: bytes) -> None:
        self.cases += 1
        before = time.process_time()
        try:
            self.refused += refusal(self.reader, content, self.folder) is not None
            if (seconds := time.process_time() - before) > MOST_SECONDS:
                raise TimeoutError(f"it took {seconds:.0f} seconds")
        except Exception as error:
            kind = _kind(error)
            if kind not in self.kinds:
                self.keep.mkdir(parents=True, exist_ok=True)
                (self.keep / f"{len(self.kinds)}").write_bytes(content)
                traceback.print_exc()
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if self.cases == self.most:
            self.report()
            sys.stdout.flush()
            shutil.rmtree(self.folder)
            os._exit(bool(self.kinds))  # libFuzzer would end the process without a word

    def mutate(self, content: bytes, most_bytes: int, seed: int) -> bytes:
        random = Random(seed)
        if random.randrange(2):
            return atheris.Mutate(content, most_bytes)
        return self.reader.mutate(content, random)[:most_bytes]

    def report(self) -> None:
        read = self.cases - self.refused - sum(self.kinds.values())
        click.echo(f"{self.cases:,} files: {self.refused:,} refused, {read:,} read, {len(self.kinds)} kinds of harm")
        for kind, count in self.kinds.items():
            click.echo(f"{count:8,}  {kind}")


def _kind(error: Exception) -> str:
    """Where an error comes from, which is the same for files that do the same harm."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "pcc" in Path(frame.filename).parts]
    place = (ours or frames)[-1]
    return f"{type(error).__name__} at {place.filename.rsplit('/pcc/', 1)[-1]}:{place.lineno}, {place.name}"


@click.command(help=f"Fuzz READER: {', '.join(READERS)}.")
@click.argument("reader", type=click.Choice(list(READERS)), metavar="READER")
@click.option("--cases", type=click.IntRange(min=1), default=10_000, show_default=True)
@click.option("--seed", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    default=Path("harm"),
    show_default=True,
    help="Folder for files that do harm.",
)
def main(reader: str, cases: int, seed: int, keep: Path) -> None:
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="pcc-fuzz-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    with atheris.instrument_imports(include=["pcc", "onnx_ir"]):  # of what the reader needs, and imports when it reads
        seeds = READERS[reader].seeds()
        for number, content in enumerate(seeds):
            (corpus / f"{number}").write_bytes(content)
            if (text := refusal(READERS[reader], content, folder)) is not None:
                raise click.ClickException(f"seed {number} of {reader} is refused: {text}")
    fuzzing = Fuzzing(READERS[reader], folder, keep, cases)
    keep.mkdir(parents=True, exist_ok=True)
    options = [
        f"-seed={seed}",
        f"-timeout={MOST_WAIT_SECONDS}",
        f"-rss_limit_mb={MOST_MEGABYTES}",
        f"-max_len={2 * max(map(len, seeds))}",
    ]
    atheris.Setup(
        [sys.argv[0], *options, f"-artifact_prefix={keep}/", "-verbosity=0", str(corpus)],
        fuzzing.try_file,
        custom_mutator=fuzzing.mutate,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()

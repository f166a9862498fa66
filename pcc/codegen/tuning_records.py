"""What `pcc tune` found, in an SQLite file: what each schedule of a layer takes beside the one that the costs choose, and which is the best.

Several processes may read and write at once: every write is a transaction of its own, in SQLite's write-ahead log, and waits for others.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from pcc.codegen.objects import generation
from pcc.config import config_root
from pcc.errors import PccError

NO_RECORDS = "none"
"""Asks for kernels by costs alone, whatever is saved."""

SCHEMA_VERSION = 1
BUSY_SECONDS = 60.0
"""How long a process waits for another one that writes."""


@dataclass(frozen=True)
class Key:
    """What a record is about."""

    layer: str
    """A `pcc.codegen.signature.layer_signature`."""
    structure: str
    """A `pcc.codegen.signature.weight_summary`."""
    dtype: str
    processor: str
    """As `pcc.config.processor_words` has it."""


@dataclass(frozen=True)
class TuningRecord:
    """The best schedule that was found for a layer, measured in turns with the one that costs chose. Schedules are texts of `schedule_text`."""

    layer: str
    structure: str
    dtype: str
    processor: str
    generation: str
    """Of the code that made the kernels (`pcc.codegen.objects.generation`)."""
    costs_choice: str
    best: str
    speedup: float
    """How many times as fast as the costs' choice the best is: 1 where they are the same."""
    schedules: int
    """How many were measured."""

    def objection(self, costs_choice: str) -> str | None:
        """Why the record says nothing about a layer for which the costs choose this; None if it does."""
        if self.generation != generation():
            return "tuned with another version of the kernels: tune again"
        if self.costs_choice != costs_choice:
            return "tuned beside another choice of the costs: tune again"
        return None


def schedule_text(family: str, schedule: object) -> str:
    """A schedule with every detail."""
    return f"{family}: {schedule!r}"


def family_of(text: str) -> str:
    """The family of a schedule's text."""
    return text.partition(":")[0]


def saved_records() -> Path:
    """The file that compilations use and ``pcc tune`` writes unless another one is named."""
    return config_root() / "tuning.sqlite"


def records_of(wanted: str | None) -> str:
    """The path of the file with the records for a compilation, or nothing: ``wanted`` is a file or `NO_RECORDS`; if None, the saved file where there is one."""
    if wanted is None:
        return str(saved_records()) if saved_records().exists() else ""
    if wanted != NO_RECORDS and not Path(wanted).is_file():
        raise PccError(f"tuning records {wanted}: no such file; pcc tune MODEL --tuning-records {wanted} makes it, '{NO_RECORDS}' does without")
    return "" if wanted == NO_RECORDS else str(Path(wanted).absolute())


_TABLES = """
CREATE TABLE IF NOT EXISTS trials (
    layer TEXT, structure TEXT, dtype TEXT, processor TEXT, generation TEXT, costs_choice TEXT, schedule TEXT, ratio REAL NOT NULL,
    PRIMARY KEY (layer, structure, dtype, processor, generation, costs_choice, schedule)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    layer TEXT, structure TEXT, dtype TEXT, processor TEXT, generation TEXT, costs_choice TEXT, best TEXT NOT NULL, speedup REAL NOT NULL,
    schedules INTEGER NOT NULL, PRIMARY KEY (layer, structure, dtype, processor, generation, costs_choice)
) WITHOUT ROWID;
"""


class TuningRecords:
    """An open file of records, which is made if it is not there. `PccError` in one line for a file that is none, or cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._reporting():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=BUSY_SECONDS)
            version, tables = self._database.execute("SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version").fetchone()
            if version not in (0, SCHEMA_VERSION) or (version == 0 and tables):
                raise PccError(f"{path} holds no tuning records that this pcc reads: name another file")
            if version == 0:
                self._database.executescript(f"PRAGMA journal_mode=WAL;BEGIN IMMEDIATE;{_TABLES}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")

    def __enter__(self) -> "TuningRecords":
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def ratios(self, key: Key, costs_choice: str) -> Mapping[str, float]:
        """What this version's schedules were measured to take beside the costs' choice, by their texts: its time, or count, is 1."""
        with self._reporting():
            where = "layer=? AND structure=? AND dtype=? AND processor=? AND generation=? AND costs_choice=?"
            return dict(self._database.execute(f"SELECT schedule, ratio FROM trials WHERE {where}", (*astuple(key), generation(), costs_choice)).fetchall())

    def add_ratios(self, key: Key, costs_choice: str, ratios: Mapping[str, float]) -> None:
        """Keeps what schedules were measured to take."""
        rows = [(*astuple(key), generation(), costs_choice, schedule, ratio) for schedule, ratio in ratios.items()]
        with self._reporting(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def of(self, key: Key) -> Sequence[TuningRecord]:
        """All records of a layer, whatever version they are of."""
        columns = ", ".join(field.name for field in fields(TuningRecord))
        with self._reporting():
            found = self._database.execute(f"SELECT {columns} FROM records WHERE layer=? AND structure=? AND dtype=? AND processor=?", astuple(key)).fetchall()
        return [TuningRecord(*row) for row in found]

    def put(self, record: TuningRecord) -> None:
        """Keeps a record, in place of an older one of the same layer, version and choice of the costs."""
        with self._reporting(), self._database:
            self._database.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", astuple(record))

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PccError(f"cannot write the tuning records {self.path}: {error.strerror or error}") from None
        except sqlite3.Error as error:
            raise PccError(f"tuning records {self.path} cannot be used: {error}") from None

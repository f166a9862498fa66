"""What `pcc tune` found, in an SQLite file: what each schedule of a layer takes beside the one that the costs choose,
and which is the best.

Several processes may read and write at once: every write is a transaction of its own, in SQLite's write-ahead log, and
waits for others.
"""

import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field, TypeAdapter, ValidationError

from pcc.codegen.kernel_cache import generation
from pcc.config import config_root
from pcc.errors import PccError, first_problem

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
    """As `pcc.config.processor_words` has it, or `pcc.config.gpu_words`."""


Times = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""How many times as fast, or as slow, as something else."""


@dataclass(frozen=True)
class TuningRecord:
    """The best schedule that was found for a layer, measured in turns with the one that costs chose. Schedules are
    texts of `schedule_text`."""

    layer: str
    structure: str
    dtype: str
    processor: str
    generation: str
    """Of the code that made the kernels (`pcc.codegen.kernel_cache.generation`)."""
    costs_choice: str
    best: str
    speedup: Times
    """How many times as fast as the costs' choice the best is: 1 where they are the same."""
    schedules: Annotated[int, Field(gt=0)]
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
    """The path of the file with the records for a compilation, or nothing: ``wanted`` is a file or `NO_RECORDS`; if
    None, the saved file where there is one."""
    if wanted is None:
        return str(saved_records()) if saved_records().exists() else ""
    if wanted != NO_RECORDS and not Path(wanted).is_file():
        raise PccError(
            f"tuning records {wanted}: no such file; pcc tune MODEL --tuning-records {wanted} makes it, '{NO_RECORDS}' "
            "does without"
        )
    return "" if wanted == NO_RECORDS else str(Path(wanted).absolute())


_TABLES = """
CREATE TABLE IF NOT EXISTS trials (
    layer TEXT, structure TEXT, dtype TEXT, processor TEXT, generation TEXT, costs_choice TEXT,
    schedule TEXT, ratio REAL NOT NULL,
    PRIMARY KEY (layer, structure, dtype, processor, generation, costs_choice, schedule)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    layer TEXT, structure TEXT, dtype TEXT, processor TEXT, generation TEXT, costs_choice TEXT,
    best TEXT NOT NULL, speedup REAL NOT NULL,
    schedules INTEGER NOT NULL, PRIMARY KEY (layer, structure, dtype, processor, generation, costs_choice)
) WITHOUT ROWID;
"""


_RECORDS: TypeAdapter[list[TuningRecord]] = TypeAdapter(list[TuningRecord])
_NAMES: TypeAdapter[list[str]] = TypeAdapter(list[str])
_RATIOS: TypeAdapter[dict[str, float]] = TypeAdapter(dict[str, Times])


def _schema(database: sqlite3.Connection) -> Any:
    """All that a database computes when it is read or written: tables, views, triggers, generated columns."""
    return database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()


@cache
def _own_schema() -> Any:
    with sqlite3.connect(":memory:") as database:
        database.executescript(_TABLES)
        return _schema(database)


class TuningRecords:
    """An open file of records, which is made if it is not there or empty, unless it is to be read alone.

    `PccError` in one line for a file that is none, is damaged, or cannot be written. Its tables have to be pcc's to the
    letter: a view, in the place of a table, may never end.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        with self._reporting():
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not path.is_file():
                raise PccError(f"tuning records {path}: not a file; name another one")
            mode = "ro" if read_only else "rwc"
            self._database = sqlite3.connect(
                f"file:{quote(str(path.absolute()))}?mode={mode}", uri=True, timeout=BUSY_SECONDS
            )
            try:
                self._prepare(read_only)
            except BaseException:
                self._database.close()  # and its locks
                raise

    def _prepare(self, read_only: bool) -> None:
        (version,), schema = self._database.execute("PRAGMA user_version").fetchone(), _schema(self._database)
        if (version, schema) == (0, []) and not read_only:
            self._database.executescript(
                f"PRAGMA journal_mode=WAL;BEGIN IMMEDIATE;{_TABLES}PRAGMA user_version={SCHEMA_VERSION};COMMIT;"
            )
        elif (version, schema) != (SCHEMA_VERSION, _own_schema()):
            raise PccError(f"{self.path} holds no tuning records that this pcc reads: name another file")

    def __enter__(self) -> "TuningRecords":
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def ratios(self, key: Key, costs_choice: str) -> Mapping[str, float]:
        """What this version's schedules were measured to take beside the costs' choice, by their texts: its time, or
        count, is 1."""
        with self._reporting():
            where = "layer=? AND structure=? AND dtype=? AND processor=? AND generation=? AND costs_choice=?"
            found = self._database.execute(
                f"SELECT schedule, ratio FROM trials WHERE {where}", (*astuple(key), generation(), costs_choice)
            ).fetchall()
            return _RATIOS.validate_python(dict(found))

    def add_ratios(self, key: Key, costs_choice: str, ratios: Mapping[str, float]) -> None:
        """Keeps what schedules were measured to take."""
        rows = [(*astuple(key), generation(), costs_choice, schedule, ratio) for schedule, ratio in ratios.items()]
        with self._reporting(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def of(self, key: Key) -> Sequence[TuningRecord]:
        """All records of a layer, whatever version they are of."""
        columns = [field.name for field in fields(TuningRecord)]
        where = "layer=? AND structure=? AND dtype=? AND processor=?"
        with self._reporting():
            found = self._database.execute(
                f"SELECT {', '.join(columns)} FROM records WHERE {where}", astuple(key)
            ).fetchall()
            return _RECORDS.validate_python([dict(zip(columns, row, strict=True)) for row in found])

    def processors(self) -> Sequence[str]:
        """All that there are records of, in alphabetical order."""
        with self._reporting():
            found = self._database.execute("SELECT DISTINCT processor FROM records ORDER BY processor").fetchall()
            return _NAMES.validate_python([name for (name,) in found])

    def put(self, record: TuningRecord) -> None:
        """Keeps a record, in place of an older one of the same layer, version and choice of the costs."""
        with self._reporting(), self._database:
            self._database.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", astuple(record))

    @contextmanager
    def _reporting(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise PccError(f"cannot write the tuning records {self.path}: {error.strerror or error}") from None
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise PccError(f"tuning records {self.path} cannot be used: {error}") from None
        except ValidationError as error:
            raise PccError(
                f"tuning records {self.path} are damaged: {first_problem(error)}; delete the file and tune again"
            ) from None

"""Tuning records: what is kept, by several processes at once, and files that hold none."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pcc.codegen.kernel_cache import generation
from pcc.codegen.tuning_records import Key, TuningRecord, TuningRecords, records_of, saved_records, schedule_text
from pcc.errors import PccError

KEY = Key("conv2d", "density 1", "float32", "cortex-a76")

WRITER = """
import sys
from pathlib import Path
from pcc.codegen.tuning_records import Key, TuningRecord, TuningRecords
from pcc.codegen.kernel_cache import generation

key = Key("conv2d", "density 1", "float32", "cortex-a76")
for number in range(100):
    with TuningRecords(Path(sys.argv[1])) as records:
        records.add_ratios(key, "base", {f"{sys.argv[2]} {number}": number + 1.0})
        best = TuningRecord(
            **vars(key), generation=generation(), costs_choice="base", best=sys.argv[2], speedup=1.5, schedules=number
        )
        records.put(best)
"""


def record(**changes: object) -> TuningRecord:
    values = {"generation": generation(), "costs_choice": "base", "best": "best", "speedup": 2.0, "schedules": 3}
    return TuningRecord(**vars(KEY), **values | changes)  # type: ignore[arg-type]


def test_what_is_put_is_there(tmp_path: Path) -> None:
    with TuningRecords(tmp_path / "folder" / "records") as records:
        records.add_ratios(KEY, "base", {"a": 0.5, "b": 1.5})
        records.put(record())
        records.put(record(speedup=3.0))
        records.put(record(generation="old"))
    with TuningRecords(tmp_path / "folder" / "records") as records:
        assert records.ratios(KEY, "base") == {"a": 0.5, "b": 1.5}
        assert records.ratios(KEY, "another") == {}
        found = records.of(KEY)
        assert sorted(each.speedup for each in found) == [2.0, 3.0]
        assert not records.of(Key("linear", "density 1", "float32", "cortex-a76"))


def test_when_a_record_says_nothing() -> None:
    assert record().objection("base") is None
    assert "another version of the kernels" in str(record(generation="old").objection("base"))
    assert "another choice of the costs" in str(record().objection("another"))


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "records"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], stderr=subprocess.PIPE, text=True)
        for name in ("first", "second")
    ]
    for writer in writers:
        _, complaint = writer.communicate(timeout=300)
        assert writer.returncode == 0, complaint
    with TuningRecords(path) as records:
        assert len(records.ratios(KEY, "base")) == 200
        (kept,) = records.of(KEY)
        assert kept.best in ("first", "second")


def test_files_that_hold_none(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("a line that is longer than a database's header, and says nothing of the kind\n" * 9)
    with pytest.raises(PccError, match="cannot be used: file is not a database"):
        TuningRecords(text)
    other = tmp_path / "other"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE something (x)")
    with pytest.raises(PccError, match="holds no tuning records"):
        TuningRecords(other)
    newer = tmp_path / "newer"
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(PccError, match="holds no tuning records that this pcc reads"):
        TuningRecords(newer)
    with pytest.raises(PccError, match="cannot"):
        TuningRecords(text / "below")


def test_what_a_compilation_reads_is_not_written(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(PccError, match="holds no tuning records"):
        TuningRecords(empty, read_only=True)
    assert empty.read_bytes() == b""
    with pytest.raises(PccError, match="unable to open"):
        TuningRecords(tmp_path / "gone", read_only=True)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    with TuningRecords(empty) as records:
        records.put(record())
    with TuningRecords(empty, read_only=True) as records:
        assert records.of(KEY) == [record()]


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE records; CREATE VIEW records AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
        "SELECT x AS layer FROM n",
        "CREATE TRIGGER endless AFTER INSERT ON trials BEGIN DELETE FROM records; END",
        "CREATE TABLE more (x)",
        "ALTER TABLE records ADD COLUMN more TEXT",
    ],
)
def test_tables_that_are_not_pccs(change: str, tmp_path: Path) -> None:
    """A view that never ends, in the place of a table, would be read for ever."""
    with TuningRecords(tmp_path / "records"):
        pass
    with sqlite3.connect(tmp_path / "records") as database:
        database.executescript(change)
    with pytest.raises(PccError, match="holds no tuning records that this pcc reads"):
        TuningRecords(tmp_path / "records")


@pytest.mark.parametrize(
    "change", ["speedup = 0", "speedup = 'NaN'", "speedup = 1e999", "speedup = x'00'", "schedules = -1", "best = x'ff'"]
)
def test_values_that_no_record_has(change: str, tmp_path: Path) -> None:
    with TuningRecords(tmp_path / "records") as records:
        records.put(record())
    with sqlite3.connect(tmp_path / "records") as database:
        database.execute(f"UPDATE records SET {change}")
    with (
        TuningRecords(tmp_path / "records") as records,
        pytest.raises(PccError, match=r"are damaged: 0\.\w+: .*; delete the file and tune again"),
    ):
        records.of(KEY)


def test_ratios_that_no_schedule_has(tmp_path: Path) -> None:
    with TuningRecords(tmp_path / "records") as records:
        records.add_ratios(KEY, "base", {"a": 0.0})
        with pytest.raises(PccError, match=r"are damaged: a: .*greater than 0"):
            records.ratios(KEY, "base")


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(PccError, match="not a file"):
            TuningRecords(path)


def test_which_records_a_compilation_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCC_CONFIG", str(tmp_path))
    assert records_of(None) == records_of("none") == ""
    with pytest.raises(PccError, match="no such file"):
        records_of(str(tmp_path / "nowhere"))
    with TuningRecords(saved_records()):
        pass
    assert records_of(None) == str(saved_records()) == records_of(str(saved_records()))
    assert records_of("none") == ""


def test_a_schedule_as_text_has_every_detail() -> None:
    assert schedule_text("linear", (1, 2)) == "linear: (1, 2)"

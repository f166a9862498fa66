"""Dumps of a folder are those of one run."""

from pathlib import Path

from pcc.ir.dump import remove_dumps, stage_files


def test_dumps_of_an_earlier_run_go_and_nothing_else(tmp_path: Path) -> None:
    for name in ("000_import.txt", "007_fold-batchnorm.txt", "001_notes.txt", "notes.txt"):
        (tmp_path / name).write_text(name)
    remove_dumps(tmp_path, ("import", "fold-batchnorm"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["001_notes.txt", "notes.txt"]
    assert list(stage_files(tmp_path)) == ["notes"]


def test_programs_of_an_earlier_run_go_with_their_targets(tmp_path: Path) -> None:
    for name in ("aarch64-linux/program.txt", "x86_64-linux/avx2/013_select-kernels.txt", "mine/program.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    remove_dumps(tmp_path, ("select-kernels",), ("aarch64-linux", "x86_64-linux"))
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.txt")] == ["mine/program.txt"]

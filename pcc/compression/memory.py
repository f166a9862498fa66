"""What a run has found so far, in its folder, so that an interrupted one goes on."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from pcc.errors import PccError
from pcc.files import write_atomically, writing

FOLDER = "work"
IDENTITY = "run.json"
T = TypeVar("T")


@dataclass(frozen=True)
class Memory:
    """A folder of results by name. As a context it goes at the end where it has none."""

    folder: Path
    of_this_run: bool = False
    """Whether the folder around it is, which goes with it where nothing else lies there."""

    @classmethod
    def open(cls, out: Path, identity: dict[str, str], resume: bool) -> "Memory":
        """A new one, or with ``resume`` that of an interrupted run: `PccError` where there is none, or it was another
        run. ``identity`` is what has to be the same. `PccError` for what is there and no run's."""
        folder = out / FOLDER
        place = folder / IDENTITY
        if resume:
            if not place.is_file():
                raise PccError(f"nothing to resume: {place} does not exist; run without --resume")
            try:
                before = TypeAdapter(dict[str, str]).validate_json(place.read_bytes())
            except ValidationError:
                raise PccError(f"{place} is damaged: run without --resume") from None
            if changed := [what for what, value in identity.items() if before.get(what) != value]:
                raise PccError(
                    f"{folder} is of another {changed[0]}: resume with what the run was begun with, or run without "
                    "--resume"
                )
        else:
            is_of_a_run = place.is_file() or (folder.is_dir() and not any(folder.iterdir()))
            if folder.is_symlink() or (folder.exists() and not is_of_a_run):
                raise PccError(f"{folder} is in the way, and not of a run of pcc compress: choose another folder")
            shutil.rmtree(folder, ignore_errors=True)
            of_this_run = not out.exists()
            with writing(folder):
                folder.mkdir(parents=True)
                write_atomically(place, lambda path: path.write_text(json.dumps(identity, indent=2), encoding="utf-8"))
            return cls(folder, of_this_run)
        return cls(folder)

    def recall(self, name: str, kind: type[T], compute: Callable[[], T]) -> T:
        """What ``compute`` gives, or gave: something that pydantic knows as ``kind``."""
        adapter: TypeAdapter[T] = TypeAdapter(kind)
        path = self.folder / f"{name}.json"
        if path.is_file():
            try:
                return adapter.validate_json(path.read_bytes())
            except ValidationError:
                raise PccError(f"{path} is damaged: run without --resume") from None
        found = compute()
        with writing(path):
            write_atomically(path, lambda place: place.write_bytes(adapter.dump_json(found)))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if [path.name for path in self.folder.glob("*")] == [IDENTITY]:  # nothing to go on from
            self.forget()

    def forget(self) -> None:
        """The run is over."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.of_this_run:
            with suppress(OSError):  # it has the results
                self.folder.parent.rmdir()

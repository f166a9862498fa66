"""Packages as written: what is in them, and that a package is there whole or not at all."""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest

from pcc.codegen.program import Program
from pcc.errors import PccError
from pcc.package import PackageSpec, SelfTest, TargetBuild, build_package, new_package, open_package, package_files
from pcc.package.header import model_header
from pcc.package.toolchain import RUNTIME, run_tool, zig
from pcc.target import TARGETS
from tests.toy import PREPROCESSING, toy_inputs, toy_package, toy_program


def test_every_file_is_listed() -> None:
    package = open_package(toy_package())
    package.verify()
    files = {path.relative_to(package.path).as_posix() for path in package.path.rglob("*") if path.is_file()} - {
        "manifest.json"
    }
    assert files == set(package.manifest.files)
    assert {
        "include/pcc.h",
        "include/toy.h",
        "labels.txt",
        "selftest/input_1.bin",
        "selftest/output_0.bin",
        "selftest/tolerance",
    } <= files
    for name in TARGETS:
        assert {f"lib/{name}/libtoy.so", f"bin/{name}/pcc-run", f"ir/{name}/model.c"} <= files


def test_manifest() -> None:
    manifest = open_package(toy_package()).manifest
    assert (manifest.name, manifest.preprocessing, manifest.notes) == ("toy", PREPROCESSING, {"pipeline": "none"})
    assert [(port.name, port.shape, port.dtype) for port in manifest.inputs] == [
        ("image", (1, 37, 13), "float32"),
        ("other", (37, 13), "float32"),
    ]
    assert open_package(toy_package()).labels() == ["cat", "dog"]
    program = toy_program()
    for target in manifest.targets:
        assert (target.cpu, target.isa) == (TARGETS[target.name].cpu, TARGETS[target.name].isa)
        assert [(call.layer, call.macs, call.dense_macs) for call in target.calls] == [
            (call.layer, call.macs, call.dense_macs) for call in program.calls
        ]
        assert [call.weight_bytes for call in target.calls[:2]] == [37 * 4, 481 * 4]
        assert target.arena_bytes == program.arena_bytes


def test_text_of_the_header(golden) -> None:
    golden(model_header(toy_program(name="toy-net")), "header")


def test_headers_are_c_and_cxx(tmp_path: Path) -> None:
    include = toy_package() / "include"
    text = '#include "toy.h"\n#include "pcc.h"\nfloat image[TOY_INPUT_0_ELEMENTS + TOY_OUTPUTS];\n'
    for name, flags in (("use.c", ["-std=c99"]), ("use.cpp", ["-std=c++11", "-nostdinc++"])):
        (tmp_path / name).write_text(text)
        command = [
            *zig(),
            "cc",
            "-target",
            "x86_64-linux-musl",
            *flags,
            "-Wall",
            "-Wextra",
            "-pedantic",
            "-Werror",
            f"-I{include}",
        ]
        run_tool([*command, "-c", str(tmp_path / name), "-o", str(tmp_path / "use.o")])


NAMES = [
    "*/ int x",
    "??/",
    "a\nb",
    "\x07\x1b[31m",
    "größe 图",
    '"',
    "\\",
    "a\\",
    "/*",
    "%s",
    "*",
    "?",
    "\u202e",
    "\ud800",
    "\0",
    "??/\n*/",
]
"""Outputs' names that would break C if they were written as they are."""


def _with_output_names(names: Sequence[str]) -> Program:
    program = toy_program()
    return replace(program, outputs=tuple(replace(program.outputs[0], name=name) for name in names))


def test_names_do_not_break_the_header(tmp_path: Path) -> None:
    (tmp_path / "toy.h").write_text(model_header(_with_output_names(NAMES)), encoding="ascii")
    lines = [f'_Static_assert(TOY_OUTPUT_{index}_ELEMENTS == 481, "");' for index in range(len(NAMES))]
    (tmp_path / "use.c").write_text("\n".join(['#include "toy.h"', "int last = TOY_OUTPUTS;", *lines, ""]))
    for flags in (["-trigraphs"], ["-fno-trigraphs"]):
        command = [
            *zig(),
            "cc",
            "-target",
            "x86_64-linux-musl",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-std=c11",
            *flags,
            f"-I{RUNTIME}",
        ]
        run_tool([*command, "-c", str(tmp_path / "use.c"), "-o", str(tmp_path / "use.o")])


def test_two_models_of_one_c_name_are_told(tmp_path: Path) -> None:
    for name in ("toy-net", "Toy_net", "toy-nets"):
        (tmp_path / f"{name}.h").write_text(model_header(toy_program(name)))
    command = [
        *zig(),
        "cc",
        "-target",
        "x86_64-linux-musl",
        f"-I{RUNTIME}",
        "-c",
        str(tmp_path / "use.c"),
        "-o",
        str(tmp_path / "use.o"),
    ]
    (tmp_path / "use.c").write_text('#include "toy-net.h"\n#include "toy-nets.h"\n#include "toy-net.h"\n')
    run_tool(command)
    (tmp_path / "use.c").write_text('#include "toy-net.h"\n#include "Toy_net.h"\n')
    with pytest.raises(PccError, match="two models are both TOY_NET_ in C"):
        run_tool(command)


def _spec(name: str = "toy") -> PackageSpec:
    return PackageSpec(name, [TargetBuild(TARGETS["x86_64-linux"], toy_program(name), [])])


@pytest.mark.parametrize("name", ["", "1net", "a/b", "a b", "../x", "é", "pcc", "PCC"])
def test_names_that_cannot_be_a_library(name: str, tmp_path: Path) -> None:
    with pytest.raises(PccError, match="cannot name a library"):
        build_package(replace(_spec(), name=name), tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(PccError, match="cannot name a library"):
        package_files(name, [])


def test_what_a_package_cannot_hold(tmp_path: Path) -> None:
    for spec, message in (
        (replace(_spec(), labels=["cat", "two\nlines"]), "label 1 has a line break"),
        (
            replace(_spec(), preprocessing={"size": 13}),
            "the preprocessing is not one that a package can hold: resize: Field required",
        ),
    ):
        with pytest.raises(PccError, match=message):
            build_package(spec, tmp_path)
    assert not list(tmp_path.iterdir())


def test_files_are_known_before_any_work() -> None:
    planned = package_files("toy", list(TARGETS.values()))
    assert not [
        file
        for file in open_package(toy_package()).manifest.files
        if not any(fnmatchcase(file, form) for form in planned)
    ]


def test_selftest_must_fit_the_model(tmp_path: Path) -> None:
    from pcc.package.write import _write_selftest

    program = toy_program()
    with pytest.raises(ValueError, match=r"self-test input 'other' is \(13, 37\), the model's is \(37, 13\)"):
        _write_selftest(SelfTest([toy_inputs(program)[0], np.zeros((13, 37))], []), program, tmp_path)


def test_kernels_that_do_not_link_are_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(PccError, match=r"undefined symbol: pcc_toy_") as caught,
        new_package(tmp_path / "out") as staging,
    ):
        build_package(_spec(), staging)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_same_input_same_package(tmp_path: Path) -> None:
    """Everything but times is a function of what went in."""
    target = TARGETS["x86_64-linux"]
    from pcc.codegen.objects import compile_kernels

    objects = [kernel.object for kernel in compile_kernels(toy_program().kernels, target)]
    manifests = [
        build_package(replace(_spec(), builds=[TargetBuild(target, toy_program(), objects)]), _made(tmp_path / name))
        for name in "ab"
    ]
    assert manifests[0] == manifests[1]
    text = subprocess.run(
        ["strings", str(tmp_path / "a/lib/x86_64-linux/libtoy.so")], capture_output=True, text=True, check=False
    ).stdout
    assert not re.search(re.escape(str(tmp_path)), text)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder

"""The C runtime under gcc's sanitizers: memory, undefined behaviour, races."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pcc.package.toolchain import LIBRARY_SOURCES, RUNTIME
from tests.toy import toy_package

HERE = Path(__file__).parent
SOURCES = [str(RUNTIME / name) for name in (*LIBRARY_SOURCES, "no_device.c") if name != "embedded.c"] + [
    str(HERE / "toy_model.c"),
    str(HERE / "stress.c"),
]
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wno-sign-conversion", "-Werror"]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="not run: gcc not found")
@pytest.mark.parametrize(
    "batch", [[], ["-DTOY_MAX_BATCH=3"], ["-DTOY_MAX_BATCH=3", "-DTOY_AT_ONCE"]], ids=["fixed", "in turns", "at once"]
)
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_stress(sanitizer: str, batch: list[str], tmp_path: Path) -> None:
    program = tmp_path / "stress"
    flags = [
        "-std=c11",
        "-g",
        "-O1",
        f"-fsanitize={sanitizer}",
        "-fno-sanitize-recover=all",
        f"-I{RUNTIME}",
        *WARNINGS,
        *batch,
    ]
    built = subprocess.run(
        ["gcc", *flags, *SOURCES, "-o", str(program), "-pthread"], capture_output=True, text=True, check=False
    )
    if "cannot find" in built.stderr:
        pytest.skip(f"not run: gcc has no {sanitizer} sanitizer here")
    assert not built.returncode, built.stderr
    ran = subprocess.run([str(program)], capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stdout) == (0, "fine\n"), ran.stderr[-3000:]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="not run: gcc not found")
def test_damaged_libraries(tmp_path: Path) -> None:
    """Whatever a library's headers say, the runner maps weights that are there, or refuses it."""
    program, library = tmp_path / "map_weights", toy_package() / "lib/x86_64-linux/libtoy.so"
    flags = [
        "-std=c11",
        "-g",
        "-O1",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        f"-I{RUNTIME}",
        *WARNINGS,
    ]
    built = subprocess.run(
        ["gcc", *flags, str(RUNTIME / "mapped.c"), str(HERE / "map_weights.c"), "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "cannot find" in built.stderr:
        pytest.skip("not run: gcc has no address sanitizer here")
    assert not built.returncode, built.stderr
    ran = subprocess.run(
        [str(program), library, tmp_path / "damaged.so", "2000"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    accepted = int(ran.stdout.split()[3])
    assert 0 < accepted < 2000

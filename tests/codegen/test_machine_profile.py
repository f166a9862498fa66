"""Profiles as files, and which of them a target gets."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pcc import config
from pcc.codegen.machine import MACHINES, Machine, Work, machine_of
from pcc.codegen.machine_profile import BUILT_IN, MachineProfile, machine_named, processor_of, read_profile
from pcc.config import saved_profile
from pcc.errors import PccError
from pcc.target import processor_name, target_named

ARM = target_named("aarch64-linux", "cortex-a76")


def write(path: Path, machine: Machine) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MachineProfile.of(machine).model_dump_json())
    return path


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_a_profile_is_its_machine(machine: Machine, tmp_path: Path) -> None:
    read = machine_named(str(write(tmp_path / "profile.json", machine)))
    assert read == replace(machine, llvm_features=(), llvm_cpu="")


def test_the_file(golden: Callable[[str, str], None]) -> None:
    machine = replace(MACHINES["cortex-a55"], costs=Work(fma=1.5, loads=0.5), origin="made up")
    golden(MachineProfile.of(machine).model_dump_json(indent=1), "machine_profile")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"isa": "mmx"}, "unknown instruction set 'mmx'"),
        ({"costs": {"fma": 1.0}}, "costs: Value error, they are of fma, not of"),
        ({"costs": dict.fromkeys(vars(Work()), 0.0)}, "all are zero"),
        ({"costs": dict.fromkeys(vars(Work()), -1.0)}, "greater than or equal to 0"),
        ({"l2_bytes": 0}, "l2_bytes: Input should be greater than 0"),
        ({"schema_version": 2}, "schema_version"),
    ],
)
def test_what_is_no_profile_is_refused(change: dict[str, object], complaint: str, tmp_path: Path) -> None:
    path = write(tmp_path / "profile.json", MACHINES["avx2"])
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(
        PccError, match=f"processor profile {path} is not one that this pcc reads: .*{complaint}"
    ) as refused:
        read_profile(path)
    assert "\n" not in str(refused.value)


def test_a_saved_profile_is_used_for_its_processor_alone() -> None:
    assert processor_of(ARM, None) == "cortex-a76"
    path = write(saved_profile(ARM), MACHINES["cortex-x1"])
    try:
        assert processor_of(ARM, None) == str(path)
        assert machine_named(processor_of(ARM, None)) == replace(MACHINES["cortex-x1"], llvm_features=())
        assert processor_of(target_named("aarch64-android", "cortex-a76"), None) == str(path)
        assert processor_of(target_named("aarch64-linux", "cortex-a55"), None) == "cortex-a55"
        assert processor_of(ARM, BUILT_IN) == "cortex-a76"
    finally:
        path.unlink()


def test_a_file_is_used_for_its_instruction_set_alone(tmp_path: Path) -> None:
    path = str(write(tmp_path / "profile.json", MACHINES["cortex-a55"]))
    assert processor_of(ARM, path) == path
    with pytest.raises(PccError, match=r"is for neon-fp16, and x86_64-linux, x86-64-v3 has avx2"):
        processor_of(target_named("x86_64-linux"), path)
    with pytest.raises(PccError, match="no such file"):
        processor_of(ARM, str(tmp_path / "none.json"))


def test_a_timed_profile_belongs_to_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "executes_here", lambda target: True)
    names = []
    for name in ("Intel(R) A", "AMD B"):
        monkeypatch.setattr(config, "host_processor", lambda name=name: name)
        names.append(saved_profile(target_named("x86_64-linux")).name)
    assert names == ["x86-64-v3-intel-r-a.json", "x86-64-v3-amd-b.json"]


def test_names() -> None:
    assert machine_of(ARM) == machine_named("cortex-a76")
    with pytest.raises(PccError, match="unknown processor profile 'x'"):
        machine_named("x")
    assert processor_name({"model name": "A B", "cpu family": "6", "model": "207"}) == "A B, family 6 model 207"
    assert processor_name({"CPU implementer": "0x41", "CPU part": "0xd0b"}) == "Arm implementer 0x41 part 0xd0b"

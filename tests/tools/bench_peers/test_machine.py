"""What /proc says of a processor."""

from tools.bench_peers.machine import Machine, Watch, cpu_list, describe, this_machine
from tools.bench_peers.peak import geometric_mean, measured_peak

_INTEL = """processor\t: 0
cpu family\t: 6
model\t\t: 207
model name\t: Intel(R) Xeon(R) Processor
flags\t\t: fpu avx2 fma avx512f amx_tile

processor\t: 1
model name\t: another
"""
_ARM = """processor\t: 0
Features\t: fp asimd asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b
"""


def test_processors_have_names() -> None:
    assert describe(_INTEL) == ("Intel(R) Xeon(R) Processor, family 6 model 207", ["AVX2", "FMA", "AVX-512", "AMX"])
    assert describe(_ARM) == ("Arm implementer 0x41 part 0xd0b", ["NEON", "dot product"])


def test_sets_of_cores() -> None:
    assert cpu_list("0-2,5\n") == [0, 1, 2, 5]


def test_where_the_thread_runs() -> None:
    machine = Machine(processor="X (R) 1", features=[], cores=2, pinned=1, siblings=[])
    assert machine.slug == "x-r-1"
    assert machine.placement == "core 1 of 2, the others left idle"
    threads = machine.model_copy(update={"siblings": [0]})
    assert threads.placement.endswith("0 is the same core's other hardware thread")
    assert machine.model_copy(update={"virtual": True}).placement.endswith(
        "a virtual machine, which may hide that cores are hardware threads of one"
    )


def test_this_machine_is_watched() -> None:
    machine = this_machine()
    assert machine.processor
    assert 0 <= Watch(machine.pinned).others() <= 1


def test_the_cores_peak() -> None:
    assert measured_peak(this_machine().pinned) > 0
    assert geometric_mean([0.25, 1.0]) == 0.5

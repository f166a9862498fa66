"""Targets and processors of a command line."""

import click
import pytest

from pcc.cli.options import Shape, chosen_targets
from pcc.errors import PccError
from pcc.target import host_target


def test_without_names_the_host() -> None:
    assert chosen_targets([], []) == [host_target()]


def test_each_processor_goes_to_its_architecture() -> None:
    host, arm, android = chosen_targets(["x86_64-linux", "aarch64-linux", "aarch64-android"], ["x86-64-v3", "cortex-a76"])
    assert (host.cpu, arm.cpu, android.cpu) == ("x86-64-v3", "cortex-a76", "cortex-a76")


def test_repeated_targets_count_once() -> None:
    assert len(chosen_targets(["aarch64-linux", "aarch64-linux"], [])) == 1


def test_a_processor_alone_picks_its_target() -> None:
    assert [target.name for target in chosen_targets([], ["cortex-a55"])] == ["aarch64-linux"]
    assert [target.name for target in chosen_targets([], ["native"])] == ["x86_64-linux"]


@pytest.mark.parametrize(
    ("names", "cpus", "message"),
    [
        (["sparc"], [], "unknown target 'sparc'"),
        (["x86_64-linux"], ["z80"], "unknown cpu 'z80'"),
        (["x86_64-linux"], ["cortex-a55"], "cortex-a55 fits none of the targets x86_64-linux"),
        (["aarch64-linux"], ["cortex-a55", "cortex-a76"], "two processors for aarch64-linux"),
    ],
)
def test_what_does_not_fit_is_refused(names: list[str], cpus: list[str], message: str) -> None:
    with pytest.raises(PccError, match=message):
        chosen_targets(names, cpus)


def test_shapes() -> None:
    assert Shape().convert("1,3,224,224", None, None) == (1, 3, 224, 224)
    assert Shape().convert("2x1x28x28", None, None) == (2, 1, 28, 28)


@pytest.mark.parametrize("text", ["", "1,3,0,5", "1,-3,2,2", "a,b", "1.5,3,3,3"])
def test_shapes_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Shape().convert(text, None, None)

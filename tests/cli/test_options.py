"""Targets and processors of a command line."""

import click
import pytest

from pcc.cli.numbers import Number, Part
from pcc.cli.options import chosen_device, chosen_targets
from pcc.cli.shapes import INPUT_TYPES, InputShape, NamedShape, Shape
from pcc.errors import PccError
from pcc.target import host_target


def test_without_names_the_host() -> None:
    assert chosen_targets([], []) == [host_target()]


def test_each_processor_goes_to_its_architecture() -> None:
    host, arm, android = chosen_targets(
        ["x86_64-linux", "aarch64-linux", "aarch64-android"], ["x86-64-v3", "cortex-a76"]
    )
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (text, "is not a shape")
            for text in (
                "",
                ",",
                "1,3,0,5",
                "1,-3,2,2",
                "a,b",
                "1.5,3,3,3",
                "1_000",
                "+1,3",
                " 1,3",
                "１,3,8,8",
                "٣",
                "1,3,",
                "1e3",
            )
        ),
        (",".join(["1"] * 9), "is not a shape: give up to 8 positive sizes"),
        ("1,3,99999999999,99999999999", "is too large: an input has at most 268,435,456 numbers"),
        (f"1,3,{2**63},1", "is too large"),
        ("1,3,16384,16384", "is too large"),
        ("9" * 5000, "9\\.\\.\\.9"),
    ],
)
def test_shapes_refused(text: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=message) as refused:
        Shape().convert(text, None, None)
    assert len(refused.value.message) < 200


def test_the_largest_shape() -> None:
    assert Shape().convert("1,1,16384,16384", None, None) == (1, 1, 16384, 16384)
    assert Shape().convert("01,3,8,8", None, None) == (1, 3, 8, 8)


def test_a_processor_that_qemu_does_not_emulate() -> None:
    with pytest.raises(PccError, match=r"unknown cpu 'cortex-b1' for qemu: choose one of max, .*cortex-a53"):
        chosen_device("qemu", "cortex-b1")
    with pytest.raises(PccError, match="--cpu is for --device qemu"):
        chosen_device("host", "cortex-a53")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,77:int64", InputShape(None, (1, 77), "int64")),
        ("image=1,9,9,3:uint8", InputShape("image", (1, 9, 9, 3), "uint8")),
        ("a=b=2x3", InputShape("a=b", (2, 3))),
    ],
)
def test_inputs_with_names_and_types(text: str, expected: InputShape) -> None:
    assert NamedShape().convert(text, None, None) == expected


def test_a_type_that_no_input_has() -> None:
    with pytest.raises(click.BadParameter, match="'float16' is no type of an input: choose one of float32, uint8"):
        NamedShape().convert("1,77:float16", None, None)


def test_the_types_are_those_of_the_frontend() -> None:
    from pcc.frontend.inputs import INPUT_TYPES as OF_FRONTEND

    assert [f"torch.{name}" for name in INPUT_TYPES] == [str(dtype) for dtype in OF_FRONTEND]


def test_an_input_without_a_name_before_the_sign() -> None:
    with pytest.raises(click.BadParameter, match="'=1,3,9,9' has no name before '=': give NAME=1,3,9,9"):
        NamedShape().convert("=1,3,9,9", None, None)


def test_numbers() -> None:
    assert Number().convert("-2.5", None, None) == -2.5
    assert Number(above=0).convert("1e-3", None, None) == 0.001
    assert (Part().convert("99%", None, None), Part().convert("0.5", None, None)) == (0.99, 0.5)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "one", ""])
def test_what_is_no_number(text: str) -> None:
    for kind, message in ((Number(), "is no number"), (Part(), "is no share")):
        with pytest.raises(click.BadParameter, match=message):
            kind.convert(text, None, None)
    with pytest.raises(click.BadParameter, match="is no share"):
        Part().convert(f"{text}%", None, None)


def test_a_number_that_is_too_little() -> None:
    with pytest.raises(click.BadParameter, match="0 is too little: give more than 0"):
        Number(above=0).convert("0", None, None)

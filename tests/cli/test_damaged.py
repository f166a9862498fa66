"""Files with other bytes in them, through the whole command line: it works, or one line says which file is wrong."""

import io
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Outcome
from tests.cli.test_prune import LOUD
from tests.cli.test_run import lenet  # noqa: F401  # pyright: ignore[reportUnusedImport]  # a fixture

RECIPE = b"""train: {batch: 4, lr: 0.01, weight_decay: 5e-4, clip: 1}
structures: {conv: {unstructured: {rate: 2}}, fc: dense}
stages:
- one-shot:
- admm: {epochs: 2, rhos: [0.1, 1e-1]}
"""


def damaged(content: bytes, random: Random) -> bytes:
    """One to four bytes or bits are others, are gone, or have come in; or the end is missing."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 4)):
        place = random.randrange(max(1, min(len(changed), random.choice((64, 256, len(content))))))
        match random.randrange(4):
            case 0:
                changed[place : place + 1] = random.randbytes(1)
            case 1:
                changed[place:place] = random.choice((b"\0", b"\xff", b"[", b"9", b"\t", b"&a ", b"*a "))
            case 2:
                del changed[place : place + random.randint(1, 9)]
            case _:
                del changed[len(changed) - random.randrange(8) :]
    return bytes(changed)


def one_line_or_none(outcome: Outcome) -> bool:
    """Whether a command line did its work; asserts that otherwise one line says why not."""
    if outcome.status:
        assert outcome.error
    else:
        assert not outcome.err
    return not outcome.status


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "npy"])
def test_inputs(kind: str, lenet: Path, tmp_path: Path, pcc) -> None:  # noqa: F811
    whole, random = io.BytesIO(), Random(0)
    numbers = np.random.default_rng(0).integers(0, 255, (1, 1, 28, 28), np.uint8)
    np.save(whole, numbers) if kind == "npy" else Image.fromarray(numbers[0, 0]).save(whole, kind)
    file = tmp_path / f"file.{kind.lower()}"
    read = 0
    for _ in range(30):
        file.write_bytes(damaged(whole.getvalue(), random))
        read += one_line_or_none(pcc("run", lenet, "-i", file))
    assert read < 30


def test_recipes(tmp_path: Path, pcc) -> None:
    random, file = Random(0), tmp_path / "recipe.yaml"
    (tmp_path / "net.py").write_text(LOUD.replace("print", "str"))
    arguments = [
        "prune",
        f"{tmp_path}/net.py:Net",
        "--data",
        f"{tmp_path}/net.py:loader",
        "--recipe",
        file,
        "-o",
        tmp_path / "out",
    ]
    file.write_bytes(RECIPE)
    assert one_line_or_none(pcc(*arguments))
    ran = 0
    for _ in range(40):
        file.write_bytes(damaged(RECIPE, random))
        ran += one_line_or_none(pcc(*arguments))
    assert ran < 40

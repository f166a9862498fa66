"""Some hundred hostile files, the same in every run, and those that did harm once."""

from pathlib import Path
from random import Random

import pytest

from tests.fuzz.readers import READERS, refusal

FOUND = Path(__file__).parent / "found"
COSTLY = {"onnx-import": 30, "pt2": 20}
"""Readers that take more than some milliseconds a file, and how many files they get; others get `FILES`."""
FILES = 60


@pytest.mark.parametrize("name", READERS)
def test_hostile_files(name: str, tmp_path: Path) -> None:
    reader, random = READERS[name], Random(name)
    seeds = reader.seeds()
    for seed in seeds:
        assert refusal(reader, seed, tmp_path) is None
    count = COSTLY.get(name, FILES)
    refused = [refusal(reader, reader.mutate(random.choice(seeds), random), tmp_path) is not None for _ in range(count)]
    assert sum(refused) > count // 8, "most changes should matter to a reader"


@pytest.mark.parametrize("file", sorted(FOUND.glob("*/*")), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_files_that_did_harm(file: Path, tmp_path: Path) -> None:
    refusal(READERS[file.parent.name], file.read_bytes(), tmp_path)

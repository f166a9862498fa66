"""Fixtures shared by all tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # machines differ
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the golden texts with what the tests produce now"
    )
    parser.addoption(
        "--graphs",
        type=int,
        help="how many random networks tests/random_graphs draws, in place of each test's own number",
    )


@pytest.fixture(autouse=True, scope="session")
def no_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The profiles that whoever runs the tests has saved choose no kernels in them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PCC_CONFIG", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(text, name)`` compares with ``golden/<name>.txt`` beside the test; ``--update-golden`` writes that file
    instead."""

    def compare(text: str, name: str) -> None:
        path = Path(request.path).parent / "golden" / f"{name}.txt"
        text = text.rstrip("\n") + "\n"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists():
            pytest.fail(
                f"there is no golden text {path.name}: look at this one, then run pytest --update-golden\n{text}"
            )
        else:
            assert text == path.read_text(encoding="utf-8"), (
                f"{path.name} differs; if the new text is right, run pytest --update-golden"
            )

    return compare

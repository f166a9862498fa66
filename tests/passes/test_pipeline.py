"""Pipelines as text, and the registry behind them."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcc.errors import PccError
from pcc.passes import registry
from pcc.passes.pipeline import (
    DEFAULT_PIPELINE,
    insert_pruning,
    make_pass,
    parse_pipeline,
    print_pipeline,
    split_pipeline,
)


@dataclass(frozen=True)
class Options:
    """One option of each kind."""

    name: ClassVar[str] = "options"
    exact: ClassVar[bool] = True
    count: int = 4
    rate: float = 1.0
    balanced: bool = False
    kind: Literal["designed", "mined"] = "designed"
    label: str = ""
    limit: int | None = None
    sizes: tuple[int, ...] = ()
    window: tuple[int, float] = (1, 0.5)
    layers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Needs:
    """An option without a default."""

    name: ClassVar[str] = "needs"
    exact: ClassVar[bool] = True
    rate: float


@dataclass(frozen=True)
class Program:
    """Works on the program."""

    name: ClassVar[str] = "program"
    exact: ClassVar[bool] = True
    level: ClassVar[str] = "program"


@pytest.fixture(autouse=True)
def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_foreign", lambda: FOREIGN)


FOREIGN = {
    cls.name: EntryPoint(cls.name, f"tests.passes.test_pipeline:{cls.__name__}", registry.ENTRY_POINT_GROUP)
    for cls in (Options, Needs, Program)
} | {"lost": EntryPoint("lost", "no_such_package.passes:Lost", registry.ENTRY_POINT_GROUP)}


def test_all_kinds_of_options() -> None:
    text = 'options{count=8, rate=3.6, balanced=true, kind=mined, label="a, {b} = \\"c\\"", limit=5,'
    text += " sizes=[1,2,3], window=[2,1], layers={features.0=2,features.3=4.5}}"
    (step,) = parse_pipeline(text)
    assert step == Options(
        8, 3.6, True, "mined", 'a, {b} = "c"', 5, (1, 2, 3), (2, 1.0), {"features.0": 2.0, "features.3": 4.5}
    )
    assert parse_pipeline(print_pipeline([step])) == [step]
    assert (
        print_pipeline([Options(sizes=(1,), layers={"features.0": 2.0}), Options()])
        == "options{sizes=[1],layers={features.0=2.0}},options"
    )
    assert parse_pipeline("options{limit=none,sizes=[]}, options{}") == [Options(), Options()]


@given(
    st.builds(
        Options,
        count=st.integers(-100, 100),
        rate=st.floats(allow_nan=False, allow_infinity=False),
        balanced=st.booleans(),
        label=st.text(max_size=12),
        limit=st.none() | st.integers(),
        sizes=st.lists(st.integers(), max_size=3).map(tuple),
        layers=st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    )
)
def test_text_and_passes_are_inverse(step: Options) -> None:
    registry._foreign, kept = (lambda: FOREIGN), registry._foreign  # hypothesis outlives the fixture
    try:
        assert parse_pipeline(print_pipeline([step])) == [step]
    finally:
        registry._foreign = kept


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fold-batchnrm", "unknown pass 'fold-batchnrm': did you mean fold-batchnorm?"),
        ("zzz", "choose one of decompose, canonicalize"),
        ("options{cuont=3}", "pass options has no option 'cuont': did you mean count?"),
        ("canonicalize{x=1}", "pass canonicalize has no option 'x': there are none"),
        ("options{count=many}", "pass options: count cannot be 'many': give a whole number"),
        ("options{count=1.5}", "count cannot be '1.5'"),
        ("options{rate=[1]}", "rate cannot be ['1']: give a number"),
        ("options{balanced=3}", "balanced cannot be '3': give true or false"),
        ("options{kind=both}", "kind cannot be 'both': give one of designed, mined"),
        ("options{sizes=3}", "sizes cannot be '3': give a list, each a whole number"),
        ("options{sizes=[1,x]}", "sizes cannot be ['1', 'x']"),
        ("options{window=[1]}", "window cannot be ['1']: give a list: a whole number, a number"),
        ("options{layers=3}", "layers cannot be '3': give a mapping from names to a number"),
        ("options{layers={a=b}}", "layers cannot be {'a': 'b'}"),
        ("needs", "pass needs needs the option 'rate'"),
        ("options{count=1,count=2}", "'count' is given twice"),
        ("options{count=1", "ends too early"),
        ("options count=1", "expected ',' before '='"),
        ("decompose,", "ends too early"),
        (",decompose", "expected a name before ','"),
        ("decompose}canonicalize", "expected ',' before '}'"),
        ('options{label="open}', "cannot read"),
        ("lost", "pass lost of no_such_package.passes:Lost cannot be loaded"),
    ],
)
def test_wrong_pipelines_are_one_line(text: str, words: str) -> None:
    with pytest.raises(PccError) as caught:
        parse_pipeline(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_pipeline() -> None:
    assert parse_pipeline("") == []


def test_registry_knows_its_own_and_others() -> None:
    names = registry.pass_names()
    assert names[:2] == ("decompose", "canonicalize")
    assert names[-1] == "lost"
    assert set(DEFAULT_PIPELINE.split(",")) <= set(names)
    assert registry.pass_summary("canonicalize").startswith("Rewrites ATen operators")
    assert make_pass("options", {"count": "3"}) == Options(3)


@pytest.mark.parametrize("name", registry._PASSES)
def test_every_pass_is_there(name: str) -> None:
    cls = registry.pass_class(name)
    assert cls.name == name
    assert isinstance(cls.exact, bool)
    assert registry.pass_summary(name)
    assert make_pass(name, {}) == cls()


def test_names_cost_no_import_of_torch() -> None:
    code = "import sys; from pcc.passes.registry import pass_names; pass_names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pruning_goes_after_fold_batchnorm() -> None:
    text = insert_pruning(DEFAULT_PIPELINE, "pattern,connectivity{rate=3.6}")
    assert ",fold-batchnorm,prune-pattern,prune-connectivity" in text
    assert text.endswith("fuse-epilogues,reorder-kernels,select-kernels,plan-memory")
    assert insert_pruning("fold-batchnorm", "prune-pattern") == "fold-batchnorm,prune-pattern"
    with pytest.raises(PccError, match="prune-connectivity has no option 'layrs': did you mean"):
        insert_pruning(DEFAULT_PIPELINE, "pattern,connectivity{rate=2,layrs={a=1,b=2}}")
    with pytest.raises(PccError, match="--prune puts its passes after fold-batchnorm"):
        insert_pruning("decompose,canonicalize", "pattern")


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        ("", "--prune is empty: it takes pattern, connectivity"),
        (" ", "--prune is empty: it takes pattern, connectivity"),
        (
            "patern",
            "--prune takes pattern, connectivity, unstructured, filters, channels, columns, blocks, not 'patern'",
        ),
        (
            "prune-patern",
            "--prune takes pattern, connectivity, unstructured, filters, channels, columns, blocks, not 'prune-patern'",
        ),
        ("drop-filters", "not 'drop-filters'; drop-filters is a pass that does not prune, and goes into the pipeline"),
        (
            "pattern,pattern",
            "--prune pattern,pattern: prune-pattern would run twice; name it once, here or in the pipeline",
        ),
        ("pattern,connectivity{rate=2},prune-pattern", "prune-pattern would run twice"),
    ],
)
def test_what_prune_does_not_take(prune: str, message: str) -> None:
    with pytest.raises(PccError) as caught:
        insert_pruning(DEFAULT_PIPELINE, prune)
    assert message in str(caught.value)


def test_pruning_that_the_pipeline_has_already() -> None:
    with pytest.raises(PccError, match="prune-pattern would run twice"):
        insert_pruning("fold-batchnorm,prune-pattern", "pattern")


def test_split_by_level() -> None:
    split = split_pipeline(parse_pipeline("options,canonicalize,program"))
    assert [step.name for step in split.graph] == ["options", "canonicalize"]
    assert [step.name for step in split.program] == ["program"]
    with pytest.raises(PccError, match="canonicalize works on the graph and cannot come after program"):
        split_pipeline(parse_pipeline("program,canonicalize"))


def test_each_pass_has_a_golden_text() -> None:
    texts = [path.name for path in (Path(__file__).parent / "golden").iterdir()]
    for name, place in registry._PASSES.items():
        if place.startswith("pcc.passes."):
            assert any(text.startswith(name.replace("-", "_")) for text in texts), f"{name} has no golden text"

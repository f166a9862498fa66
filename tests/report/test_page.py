"""The page of ``--report``: what is in it, and that it needs nothing else."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pcc.codegen.isa import isa_named
from pcc.codegen.lower import lower
from pcc.codegen.plan_memory import PlanMemory, buffer_lifetimes
from pcc.codegen.print_program import print_program
from pcc.codegen.select_kernels import SelectKernels
from pcc.compile_report import CompileReport
from pcc.compiler import compile_model
from pcc.errors import PccError
from pcc.passes.pipeline import chosen_pipeline
from pcc.report.charts import PlacedBuffer, placed_buffers
from pcc.report.pictures import count_patterns, mask_picture
from pcc.target import Target, host_target, target_named
from tests.passes.prunable import mixed

VOID = {"meta", "link", "br", "img", "path", "rect", "use", "circle", "line", "polyline", "polygon", "stop"}


class Tags(HTMLParser):
    """Open tags are closed in order; what is referred to, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


class Block(nn.Module):
    """A module's name may have any letters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.layers = nn.ModuleDict({"<b>&": nn.Conv2d(16, 16, 3, padding=1), "dense": nn.Conv2d(16, 8, 1)})
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.stem, *self.layers.values()):
            x = torch.relu(layer(x))
        return self.fc(x.mean((2, 3)))


def compiled(folder: Path, target: Target) -> tuple[CompileReport, str]:
    pipeline = chosen_pipeline(None, "pattern,connectivity{rate=2,layers={stem=1}}")
    report = compile_model(
        Block().eval(),
        (torch.zeros(1, 3, 16, 16),),
        out=folder / "net",
        targets=[target],
        name="net",
        pipeline=pipeline,
        report=folder / "page.html",
    )
    return report, (folder / "page.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(tmp_path_factory.mktemp("page"), host_target())[1]


def test_the_page_is_well_formed_and_needs_nothing_else(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "script" not in tags.names
    assert "link" not in tags.names
    assert all(reference.startswith(("data:image/png;base64,", "#")) for reference in tags.references)
    assert "url(http" not in page
    assert "@import" not in page


def test_the_page_says_all_of_it(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    text = " ".join(tags.text)
    assert "<b>&" in text, "escaped in the page, as it is in the text"
    assert "<b>&<" not in page
    for what in ("Layers", "Alternatives", "Time by layer", "Roofline", "Memory", "Patterns", "Weights", "Passes"):
        assert f"<h2>{what}</h2>" in page
    for stage in ("import", "prune-pattern", "select-kernels", "kernel program"):
        assert f"<summary>{stage}</summary>" in page
    assert "Measured: mean of" in page
    assert "the first convolution is spared" in text
    assert page.count("<img") == 2, "the weights that have zeros"
    assert page.count('aria-label="pattern"') == 4, "the designed patterns"


def test_without_a_run_the_page_has_costs(tmp_path: Path) -> None:
    page = compiled(tmp_path, target_named("aarch64-linux", "cortex-a76"))[1]
    assert "this computer did not run the network" in page
    assert "<th>ms</th>" not in page


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(PccError, match="the report would lie in the package"):
        compile_model(
            Block().eval(),
            (torch.zeros(1, 3, 16, 16),),
            out=tmp_path / "net",
            targets=[host_target()],
            name="net",
            report=tmp_path / "net" / "p.html",
        )
    (tmp_path / "file").write_text("")
    with pytest.raises(PccError, match="cannot write the report"):
        compile_model(
            Block().eval(),
            (torch.zeros(1, 3, 16, 16),),
            out=tmp_path / "net",
            targets=[host_target()],
            name="net",
            report=tmp_path / "file" / "p.html",
        )
    assert not (tmp_path / "net").exists()


def test_buffers_are_those_of_the_program() -> None:
    program = PlanMemory()(lower(SelectKernels("avx2")(mixed()[0]).graph_module, "net", isa_named("avx2")))
    lives = buffer_lifetimes(program)
    expected = {
        PlacedBuffer(name, program.buffers[name].offset or 0, program.buffers[name].all_bytes, life.first, life.last)
        for name, life in lives.items()
        if program.buffers[name].role != "thread"
    }
    assert set(placed_buffers(print_program(program))) == expected
    assert len(expected) > 5


def test_patterns_are_counted() -> None:
    weight = np.zeros((2, 3, 3, 3), np.float32)
    weight[0, :, 1, :2] = weight[1, 0, 2, :] = 1
    found = count_patterns(
        {"conv": weight, "dense": np.ones((4, 4, 3, 3), np.float32), "fc": np.zeros((2, 2), np.float32)}
    )
    assert found is not None
    assert [(pattern.connections, pattern.share) for pattern in found.patterns] == [(3, 0.75), (1, 0.25)]
    assert found.patterns[0].rows == [[False] * 3, [True, True, False], [False] * 3]
    assert (found.removed, found.others) == (2, 0)
    assert count_patterns({"dense": np.ones((4, 4, 3, 3), np.float32)}) is None


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (700, 5, 3, 3), (129, 127, 1, 1)])
def test_pictures_average_what_is_kept(shape: tuple[int, ...]) -> None:
    import base64
    import io

    from PIL import Image

    weight = np.zeros(shape, np.float32)
    weight[: shape[0] // 2] = 1
    picture = Image.open(io.BytesIO(base64.b64decode(re.sub("^data:image/png;base64,", "", mask_picture(weight)))))
    assert picture.size == (min(shape[1], 128), min(shape[0], 128))
    pixels = np.asarray(picture, np.float64)
    assert (pixels[-1] == 255).all()
    assert 1 - pixels.mean() / 255 == pytest.approx(np.count_nonzero(weight) / weight.size, abs=0.01)

"""``--report FILE.html``: one page about a network, with everything in it: no file beside it, no script, nothing from
elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcc.codegen.machine_profile import MachineProfile
from pcc.ir.left_alone import by_reason
from pcc.package.layer_report import LayerReport, all_left_alone
from pcc.report.charts import memory_chart, placed_buffers, roofline_chart
from pcc.report.gain import gain, total_gain
from pcc.report.ir_diff import IrDiff, diff_ir
from pcc.report.layer_times import LayerTime
from pcc.report.pictures import count_patterns, mask_picture

if TYPE_CHECKING:
    from pcc.passes.instruments import Verified

TEMPLATE = Path(__file__).with_name("page.html.j2")


@dataclass(frozen=True)
class PageContent:
    """What a page is about."""

    name: str
    target: str
    """And its processor: ``x86_64-linux, x86-64-v4``."""
    profile: MachineProfile
    facts: Mapping[str, str]
    """What stands at the top, by what it is."""
    layers: Sequence[LayerReport]
    stages: Mapping[str, str]
    """The text of the graph after each pass, in order, the imported one first."""
    program: str
    """The text of the kernel program."""
    weights: Mapping[str, np.ndarray]
    """Of convolutions and linear layers, as they were compiled."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """What each pass took."""
    verified: "Sequence[Verified]" = ()
    times: Sequence[LayerTime] = ()
    """A profile, if there is one."""
    timed_on: str = ""


@dataclass(frozen=True)
class StageRow:
    """What a pass did."""

    name: str
    text: str
    diff: IrDiff | None
    """Beside the stage before it."""
    seconds: float | None
    verified: "Verified | None"
    left_alone: Sequence[str]


def render(content: PageContent) -> str:
    """The page. It is as wide as a telephone at least."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    seconds = {id(time.report): time.seconds for time in content.times}
    measured = [seconds[id(layer)] for layer in content.layers] if seconds else None
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        content=content,
        version=version("pcc"),
        bars=_bars(content),
        gain=gain,
        total_gain=total_gain(content.layers),
        patterns=count_patterns(content.weights),
        masks={layer: mask_picture(weight) for layer, weight in content.weights.items() if not weight.all()},
        shapes={layer: "x".join(map(str, weight.shape)) for layer, weight in content.weights.items()},
        kept={layer: float(np.count_nonzero(weight) / weight.size) for layer, weight in content.weights.items()},
        milliseconds={time.report.node: time.seconds * 1e3 for time in content.times},
        memory=memory_chart(placed_buffers(content.program)),
        roofline=roofline_chart(content.profile, content.layers, measured),
        stages=_stages(content),
    )


def _bars(content: PageContent) -> list[tuple[str, float, str]]:
    """Each layer's share of the time, or of the costs, with what it is: (layer, share of the largest, text)."""
    if content.times:
        amounts = [
            (time.report.layer, time.seconds, f"{time.seconds * 1e3:.3f} ms, {time.share:.1%}")
            for time in content.times
        ]
    else:
        total = sum(layer.choice.cost for layer in content.layers if layer.choice) or 1.0
        chosen = [(layer.layer, layer.choice.cost) for layer in content.layers if layer.choice]
        amounts = [(layer, cost, f"{cost / 1e3:.1f}, {cost / total:.1%}") for layer, cost in chosen]
    largest = max((amount for _, amount, _ in amounts), default=1.0) or 1.0
    return [(layer, amount / largest, text) for layer, amount, text in amounts]


def _stages(content: PageContent) -> list[StageRow]:
    verified: dict[str, Any] = {each.pass_name: each for each in content.verified}
    alone = all_left_alone(content.layers)
    rows, before = [], None
    for name, text in content.stages.items():
        lines = [line.removeprefix(f"{name}: ") for line in by_reason(each for each in alone if each.pass_name == name)]
        rows.append(
            StageRow(
                name,
                text,
                None if before is None else diff_ir(before, text),
                content.seconds.get(name),
                verified.get(name),
                lines,
            )
        )
        before = text
    return rows

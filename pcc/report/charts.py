"""Charts of the page, as SVG: where memory goes, and how near layers come to what the processor can do."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pcc.codegen.isa import isa_named
from pcc.codegen.machine_profile import MachineProfile
from pcc.dtype import FLOAT32
from pcc.package.layer_report import LayerReport

_BUFFER = re.compile(
    r"%(\S+): \S+ at (\d+), (\d+) bytes(?: for each of (\d+) images)?, calls (-?\d+)\.\.(-?\d+)$", re.M
)

_SIZE = (4.2, 3.0)
"""Inches: on a telephone the chart is as wide as the screen, and its letters are still to be read."""


@dataclass(frozen=True)
class PlacedBuffer:
    """A buffer of the arena: its bytes ``[offset, offset + size)`` hold something during the calls ``[first,
    last]``."""

    name: str
    offset: int
    size: int
    first: int
    last: int


def placed_buffers(program: str) -> list[PlacedBuffer]:
    """The buffers of a kernel program, from its text."""
    return [
        PlacedBuffer(name, int(at), int(size) * int(images or 1), int(first), int(last))
        for name, at, size, images, first, last in _BUFFER.findall(program)
    ]


def memory_chart(buffers: Sequence[PlacedBuffer]) -> str:
    """The arena over the calls of a run: each buffer a bar of its bytes, while it holds something."""

    def draw(axes: Any) -> None:
        for number, buffer in enumerate(buffers):
            start, end = max(buffer.first, 0), buffer.last + 1
            axes.bar(
                start,
                buffer.size / 1e6,
                end - start,
                buffer.offset / 1e6,
                align="edge",
                color=f"C{number % 10}",
                alpha=0.75,
                linewidth=0,
            )
        axes.set_xlabel("kernel call")
        axes.set_ylabel("arena, MB")

    return _svg(draw)


def _peak(profile: MachineProfile) -> float:
    """Multiply-accumulates in fp32 that a unit of cost does at most."""
    return isa_named(profile.isa).lanes(FLOAT32) / profile.costs["fma"] if profile.costs["fma"] else 0.0


def roofline_chart(
    profile: MachineProfile, layers: Sequence[LayerReport], seconds: Sequence[float] | None
) -> str | None:
    """Multiply-accumulates a second (with ``seconds``, of each layer), else per unit of cost, over those per byte that
    the layer reads and writes once.

    The roofs are the costs' own: what multiply-adds take, and vectors from the L2 cache or from behind it. Measured
    times get theirs by the costs of all layers over their seconds. None where nothing is known. (Williams, Waterman and
    Patterson, 2009)
    """
    points = [
        (layer, layer.choice.cost, index)
        for index, layer in enumerate(layers)
        if layer.choice and layer.counts and layer.counts.kept_macs
    ]
    peak = _peak(profile)
    if not points or not peak:
        return None
    scale = sum(cost for _, cost, _ in points) / sum(seconds[index] for *_, index in points) / 1e9 if seconds else 1.0
    vectors = {
        "from the L2 cache": profile.costs["loads"] + profile.costs["far"],
        "from behind it": profile.costs["beyond"],
    }
    roofs = {where: isa_named(profile.isa).vector_bytes / cost for where, cost in vectors.items() if cost}

    def draw(axes: Any) -> None:
        from matplotlib.ticker import LogLocator, NullFormatter

        intensities = []
        for sparse, colour, label in ((False, "#0b62a4", "dense weight"), (True, "#c2571a", "packed weight")):
            chosen = [
                (layer, cost, index) for layer, cost, index in points if (layer.format not in ("", "dense")) == sparse
            ]
            x = [layer.counts.kept_macs / _moved(layer) for layer, *_ in chosen if layer.counts]
            y = [
                layer.counts.kept_macs / (seconds[index] * 1e9 if seconds else cost)
                for layer, cost, index in chosen
                if layer.counts
            ]
            axes.scatter(x, y, s=14, color=colour, alpha=0.7, label=label, linewidths=0)
            intensities += x
        low, high = min(intensities) / 1.5, max(intensities) * 1.5
        for (where, bandwidth), style in zip(roofs.items(), ("--", "-"), strict=False):
            edges = sorted({low, min(max(peak / bandwidth, low), high), high})
            axes.plot(
                edges,
                [scale * min(peak, bandwidth * edge) for edge in edges],
                style,
                color="black",
                linewidth=1,
                label=where,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("multiply-accumulates per byte moved")
        axes.set_ylabel("10$^9$ multiply-accumulates a second" if seconds else "multiply-accumulates per cost")
        axes.legend(frameon=False, fontsize=8)

    return _svg(draw)


def _moved(layer: LayerReport) -> int:
    """Bytes of a layer's inputs, outputs and constants."""
    assert layer.counts is not None
    return layer.counts.input_bytes + layer.counts.output_bytes + (layer.weight_bytes or layer.counts.weight_bytes) or 1


def _svg(draw: Callable[[Any], None]) -> str:
    """A chart as an ``<svg>`` element; equal data give equal text."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "pcc"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=_SIZE)
    draw(axes)
    axes.spines[["top", "right"]].set_visible(False)
    file = io.StringIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    text = file.getvalue()
    return text[text.index("<svg") :]

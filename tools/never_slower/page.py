"""The sweep's part of docs/performance.md, and its chart."""

from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean

from pcc.codegen.family import family_named
from pcc.sparsity.formats import DENSE
from tools.never_slower.result import INSTRUCTIONS, MOST_EMULATED_MACS, NOISE, Point, Sweep
from tools.table import table

_HEAD = """## Never slower than dense

Every different convolution of the zoo but first and depthwise ones, with random weights at densities from 5 to 100 %: the kernel that pcc chooses beside the
dense one it would take otherwise. *Gain* is the dense kernel's time (or executed instructions) over the chosen one's. Where a sparse kernel
would lose, or nothing is pruned, the dense one is chosen, and the gain is 1. 3x3 windows have patterns up to 44 %, and are cut whole above.
"""


def sweep_section(sweeps: Sequence[Sweep], charts: Path) -> str:
    """The text, with the charts written to the folder; empty where there are no sweeps."""
    if not sweeps:
        return ""
    parts = [_HEAD]
    for sweep in sweeps:
        chart = charts / f"never-slower-{sweep.measure}.svg"
        draw(sweep, chart)
        parts += [
            f"### {sweep.measure.capitalize()}, {sweep.processor}\n",
            f"```\n{sweep.command}\n```\n",
            f"![gain by density]({charts.name}/{chart.name})\n",
        ]
        if sweep.measure == INSTRUCTIONS:
            parts.append(f"Layers of up to {MOST_EMULATED_MACS // 10**6} million MACs.\n")
        parts += [_summary(sweep) + "\n", _verdict(sweep) + "\n"]
    return "\n".join(parts)


def _summary(sweep: Sweep) -> str:
    rows = []
    for kernel in sorted({point.kernel for point in sweep.points}, reverse=True):
        for density in sorted({point.density for point in sweep.points}):
            points = [point for point in sweep.points if (point.kernel, point.density) == (kernel, density)]
            if points:
                gains = [point.gain.median for point in points]
                sparse = sum(family_named(point.family).format != DENSE for point in points)
                mean, lowest, highest = geometric_mean(gains), min(gains), max(gains)
                rows.append(
                    [
                        f"{kernel}x{kernel}",
                        f"{density:.0%}",
                        f"{sparse} of {len(points)}",
                        f"{mean:.2f}",
                        f"{lowest:.2f}",
                        f"{highest:.2f}",
                    ]
                )
    return table(["window", "kept", "sparse kernel chosen", "gain, geometric mean", "least", "most"], rows)


def _verdict(sweep: Sweep) -> str:
    slower = [point for point in sweep.points if point.is_slower]
    if not slower:
        return f"No chosen kernel of {len(sweep.points)} is slower than the dense one by more than {NOISE - 1:.0%}."
    lines = [
        f"{len(slower)} of {len(sweep.points)} chosen kernels are slower than the dense one by more than "
        f"{NOISE - 1:.0%}:",
        "",
    ]
    rows = [
        [point.layer, f"{point.density:.0%}", point.family, f"{point.gain.median:.2f}"]
        for point in sorted(slower, key=lambda point: point.gain.median)
    ]
    return "\n".join([*lines, table(["layer", "kept", "family", "gain"], rows)])


def draw(sweep: Sweep, path: Path) -> None:
    """Gain by density, a line for each layer."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "pcc"  # so that equal data give equal files
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    colours = {3: "#0b62a4", 1: "#c2571a"}
    for layer in dict.fromkeys(point.layer for point in sweep.points):
        points: list[Point] = sorted(
            (point for point in sweep.points if point.layer == layer), key=lambda point: point.density
        )
        densities, gains = [100 * point.density for point in points], [point.gain.median for point in points]
        axes.plot(densities, gains, color=colours.get(points[0].kernel, "#666666"), alpha=0.45, linewidth=1)
    for kernel, colour in colours.items():
        axes.plot([], [], color=colour, label=f"{kernel}x{kernel}")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = [5, 10, 20, 44, 100]
    axes.set_xticks(ticks, [f"{tick} %" for tick in ticks])
    axes.set_yticks([1, 2, 4, 8, 16], ["1x", "2x", "4x", "8x", "16x"])
    axes.minorticks_off()
    axes.set_xlabel("weights kept")
    axes.set_ylabel(f"gain over the dense kernel ({sweep.measure})")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)

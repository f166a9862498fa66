"""``python -m tools.gpu_stats.costs --gpu adreno-630``: what each part of a kernel's work takes in compiled kernels,
beside what the GPU's profile says, and how near both come."""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import geometric_mean, mean

import click
import numpy as np

from pcc.codegen.opencl.profiles import PROFILES, DeviceWork
from pcc.tune.fit import non_negative_least_squares, rank_correlation
from tools.gpu_stats.compilers import GPUS
from tools.gpu_stats.forms import NETWORKS, Shape
from tools.gpu_stats.layers import MODES, Priced, collect

Layer = dict[str, list[Priced]]
"""The schedules of each form."""


def fit(layers: Sequence[Layer]) -> DeviceWork:
    """Slots of each part by least squares of relative errors; a schedule counts the less, the more slots it takes
    beside the layer's best."""
    rows, wanted = [], []
    for layer in layers:
        schedules = [each for form in layer.values() for each in form]
        least = min(each.counts.slots for each in schedules)
        for each in schedules:
            weight = least / each.counts.slots
            rows.append(np.array([*asdict(each.work).values()]) * weight / each.counts.slots)
            wanted.append(weight)
    return DeviceWork(*non_negative_least_squares(np.array(rows), np.array(wanted)).tolist())


def predicted(each: Priced, slots: DeviceWork) -> float:
    return float(np.dot([*asdict(each.work).values()], [*asdict(slots).values()]))


def report(layers: Sequence[Layer], slots: DeviceWork) -> str:
    """How near predictions come, form by form, and how well they choose among all schedules of a layer."""
    lines = []
    for form in dict.fromkeys(form for layer in layers for form in layer):
        ratios = [predicted(each, slots) / each.counts.slots for layer in layers for each in layer.get(form, ())]
        lines.append(
            f"  {form:<14} {min(ratios):.2f} to {max(ratios):.2f}, geometric mean {geometric_mean(ratios):.2f}"
        )
    losses, correlations = [], []
    for layer in layers:
        schedules = [each for form in layer.values() for each in form]
        modelled, counted = [predicted(each, slots) for each in schedules], [each.counts.slots for each in schedules]
        losses.append(counted[int(np.argmin(modelled))] / min(counted))
        correlations.append(rank_correlation(np.array(modelled), np.array(counted)))
    lines.append(f"  rank correlation in a layer: {mean(correlations):.3f}, at least {min(correlations):.3f}")
    lines.append(
        f"  slots of what they choose over the fewest: {geometric_mean(losses):.3f}, at most {max(losses):.3f}"
    )
    return "\n".join(lines)


@click.command()
@click.option("--gpu", "gpus", type=click.Choice(list(GPUS)), multiple=True, default=("adreno-630",), show_default=True)
@click.option("--mode", "modes", type=click.Choice(list(MODES)), multiple=True, default=tuple(MODES))
def main(gpus: Sequence[str], modes: Sequence[str]) -> None:
    """Fits slots of parts of the work to the 3x3 layers of VGG-16 and ResNet-50, and says how near they come to what
    Mesa's compilers made. Schedules that spill count for nothing: none is offered."""
    shapes: list[Shape] = list(dict.fromkeys(shape for network in NETWORKS.values() for shape in network))
    layers: list[Layer] = []
    for gpu in gpus:
        for mode in modes:
            priced, _ = collect(shapes, mode, GPUS[gpu])
            layers += [
                {form: [each for each in schedules if not each.spilled] for form, schedules in forms.items()}
                for forms in priced.values()
            ]
    profiles = {GPUS[gpu].profile: PROFILES[GPUS[gpu].profile].slots for gpu in gpus}
    for name, slots in {**profiles, "fitted": fit(layers)}.items():
        click.echo(f"{name}: {', '.join(f'{part} {value:.2f}' for part, value in asdict(slots).items())}")
        click.echo(report(layers, slots))


if __name__ == "__main__":
    main()

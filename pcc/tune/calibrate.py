"""Finds what a processor's costs are: measures schedules, fits the costs, measures what those choose, and fits
again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

from pcc.codegen.machine import Work, machine_of
from pcc.codegen.machine_profile import MachineProfile
from pcc.files import save_text
from pcc.progress import Progress
from pcc.target import Target, executes_here, host_processor
from pcc.tune.fit import Ranking, fit, rank
from pcc.tune.layers import LAYERS, Pruned
from pcc.tune.measure import ROUNDS, Measurements, count_trials, measurable, time_trials
from pcc.tune.trials import Offer, offers

MOST_COUNTED_MACS = 120_000_000
"""Of a dense layer. Emulation is slow, and counts of a large layer say no more than those of a small one."""

MOST_FITS = 4
"""Each after the first with the schedules that the one before chose."""


@dataclass(frozen=True)
class Calibration:
    """What was found."""

    built_in: MachineProfile
    """pcc's own for the processor."""
    profile: MachineProfile
    """With the costs that were fitted."""
    ranking_built_in: Ranking
    ranking: Ranking
    taken: Mapping[str, float]
    """What each schedule took, in the unit of the costs."""
    measurements: Measurements

    @property
    def is_better(self) -> bool:
        """Whether the fitted costs choose at least as well as pcc's own."""
        return self.ranking.loss <= self.ranking_built_in.loss

    def save(self, path: Path) -> None:
        """Writes the profile, as a whole or not at all."""
        save_text(path, self.profile.model_dump_json(indent=1) + "\n", f"the profile {path}")


def calibrate(
    target: Target, progress: Progress, workers: int = 1, layers: Sequence[Pruned] | None = None
) -> Calibration:
    """The costs of a target's processor: timed if this computer executes its code, else counted under QEMU. ``layers``
    are `LAYERS` unless given.

    What was measured is kept when this is interrupted, and the next call goes on from there. `PccError` where it can be
    neither timed nor counted.
    """
    layers = LAYERS if layers is None else layers
    before = machine_of(target)
    timed, target = executes_here(target), measurable(target)
    if timed:
        processor = host_processor()
        before = replace(before, l1_bytes=_cache_bytes(1, before.l1_bytes), l2_bytes=_cache_bytes(2, before.l2_bytes))
        how = f"timed on {processor}"
    else:
        processor, how = "counted", "instructions executed under QEMU"
        layers = [layer for layer in layers if layer.case.macs <= MOST_COUNTED_MACS]
    measurements = Measurements.of(target, processor)
    offered: list[Offer] = []
    for layer in layers:
        progress(f"schedules of {layer}")
        offered += offers(layer, before)
    trials = {trial.key: trial for offer in offered for trial in offer.rivals(before.costs)}
    costs = before.costs
    for _ in range(MOST_FITS):
        if timed:
            time_trials(list(trials.values()), target, measurements, progress, workers)
        else:
            count_trials(list(trials.values()), target, before, measurements, progress, workers)
        progress("fitting")
        costs = fit(list(trials.values()), measurements.cost, before.costs)
        chosen = [offer.cheapest(costs) for offer in offered]
        if all(trial.key in trials for trial in chosen):
            break
        trials |= {trial.key: trial for trial in chosen}
    measured = [trial for trial in trials.values() if trial.key in measurements.taken]
    rounds = f"{ROUNDS} rounds, " if timed else ""
    origin = (
        f"{how}: {len(measured)} schedules of {len(layers)} layers, {rounds}{date.today().isoformat()}, pcc "
        f"{version('pcc')}"
    )
    after = replace(before, name=target.cpu, costs=_rounded(costs), origin=origin)
    built_in, fitted = (rank(measured, measurements.cost, machine.costs) for machine in (before, after))
    taken = {str(trial): measurements.cost(trial) for trial in measured}
    return Calibration(MachineProfile.of(before), MachineProfile.of(after), built_in, fitted, taken, measurements)


def _rounded(costs: Work) -> Work:
    """Three digits: more were noise."""
    return Work(*(float(f"{cost:.3g}") for cost in vars(costs).values()))


def _cache_bytes(level: int, otherwise: int) -> int:
    """The size of a data cache of the first core, if Linux says it."""
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            found, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if found == str(level) and kind in ("Data", "Unified") and size.endswith("K"):
            return int(size[:-1]) << 10
    return otherwise

"""Finds the best schedule of each layer of a network, and keeps what it finds as it goes on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod
from pathlib import Path
from typing import Protocol

from torch.fx import GraphModule

from pcc.codegen.kernel_cache import generation
from pcc.codegen.machine import Machine
from pcc.codegen.machine_profile import machine_named, processor_of
from pcc.codegen.processor import Processor
from pcc.codegen.select_kernels import Priced
from pcc.codegen.tuning_records import NO_RECORDS, TuningRecord, TuningRecords, saved_records
from pcc.config import processor_words
from pcc.errors import PccError
from pcc.progress import Watch
from pcc.target import Target, executes_here
from pcc.tune.measure import measurable, time_ratios, weighted_counts
from pcc.tune.network import NetworkLayer, network_layers
from pcc.tune.search import Search
from pcc.tune.trials import Trial

MOST_TIMES = 2.0
"""Schedules are searched that are modelled to take at most so many times the cheapest one."""

AT_ONCE = 4
"""Schedules that are measured in turns with the costs' choice."""
MOST_BYTES = 1 << 28
"""Of their weights, together: layers with larger ones are measured one at a time."""

ROUNDS = 11
LAST_ROUNDS = 41
"""Of the best ones, measured again at the end: the best of many is the luckiest, too."""
FINALISTS = 3
LEAST_GAIN = 1.02
"""How many times as fast as the costs' choice a schedule has to be timed to take its place; a counted one has to be
faster."""


@dataclass(frozen=True)
class TunedLayer:
    """What was found for a layer."""

    names: tuple[str, ...]
    """Of all equal layers."""
    costs_choice: str
    best: str
    """Family and schedule in a few words."""
    record: TuningRecord


class Judge(Protocol):
    """Says how many times what the costs' choice takes a schedule takes."""

    @property
    def processor(self) -> str:
        """What its measurements belong to, as a `pcc.codegen.tuning_records.Key` has it."""
        ...

    @property
    def where(self) -> str:
        """The same for people."""
        ...

    @property
    def refused(self) -> Mapping[str, str]:
        """Schedules that could not be run, by their texts, and why."""
        ...

    @property
    def is_timed(self) -> bool:
        """Whether it tells times, which are never twice the same, or counts."""
        ...

    def ratios(self, layer: NetworkLayer, base: Priced, schedules: Sequence[Priced], rounds: int) -> dict[str, float]:
        """By the schedules' texts; one that cannot be run is left out."""
        ...


class ProcessorJudge:
    """Times, where this computer executes the target's code, or instructions under QEMU. `PccError` for a target whose
    code can be neither timed nor counted."""

    def __init__(self, target: Target, machine: Machine, workers: int = 1) -> None:
        self._target, self._machine, self._workers = measurable(target), machine, workers
        self._counts: dict[tuple[object, str], float] = {}
        self.is_timed = executes_here(target)
        self.processor = processor_words(self._target)
        self.where, self.refused = f"{target.name}, {target.cpu}", dict[str, str]()

    def ratios(self, layer: NetworkLayer, base: Priced, schedules: Sequence[Priced], rounds: int) -> dict[str, float]:
        """By the schedules' texts."""
        trials = {each.text: Trial(layer, each.family, each.candidate) for each in (base, *schedules)}
        rivals = [trials[each.text] for each in schedules]
        if self.is_timed:
            found = time_ratios(trials[base.text], rivals, self._target, rounds, self._workers)
            return dict(zip([each.text for each in schedules], found, strict=True))
        missing = [text for text in trials if (layer.key, text) not in self._counts]
        counts = (
            weighted_counts([trials[text] for text in missing], self._target, self._machine, self._workers)
            if missing
            else []
        )
        self._counts |= {(layer.key, text): count for text, count in zip(missing, counts, strict=True)}
        return {
            each.text: self._counts[layer.key, each.text] / self._counts[layer.key, base.text] for each in schedules
        }


def machine_for(target: Target, machine_profile: str | None) -> Machine:
    """The processor whose costs are started from, as a compilation has it: ``machine_profile`` is a file or
    ``built-in``; if None, the saved or pcc's own."""
    return machine_named(processor_of(target, machine_profile))


def records_file(wanted: str | None) -> Path:
    """Where records are kept: a file that is named, else the saved one."""
    if wanted == NO_RECORDS:
        raise PccError(f"--tuning-records {NO_RECORDS}: what is found has to be kept in a file")
    return Path(wanted) if wanted else saved_records()


def tune(
    graph_module: GraphModule, judge: Judge, machine: Processor, path: Path, trials: int, watch: Watch
) -> list[TunedLayer]:
    """Measures up to ``trials`` schedules of each layer of a graph whose kernels are not chosen, those of earlier calls
    included, and records the best. ``machine`` is what costs are of.

    Each measurement is kept as soon as it is there: an interrupted call loses a few of them. Raises `PccError` for
    records that cannot be written.
    """
    tuned: list[TunedLayer] = []
    with TuningRecords(path) as records:
        layers = network_layers(graph_module, judge.processor)
        for place, layer in enumerate(layers):

            def show_layer(text: str, done: float, place: int = place) -> None:
                watch(f"layer {place + 1} of {len(layers)}, {text}", (place + done) / len(layers))

            tuned.append(_tune_layer(layer, judge, machine, records, trials, show_layer))
    return tuned


def _tune_layer(
    layer: NetworkLayer, judge: Judge, machine: Processor, records: TuningRecords, trials: int, watch: Watch
) -> TunedLayer:
    watch(str(layer), 0.0)
    by_family, _ = layer.open.priced(machine)
    base, limit = by_family[0], MOST_TIMES * by_family[0].cost
    schedules = {each.text: each for each in layer.open.schedules(machine) if each.cost <= limit} | {base.text: base}
    measured = {base.text: 1.0, **records.ratios(layer.key, base.text)}
    record = next((each for each in records.of(layer.key) if each.objection(base.text) is None), None)
    most = min(trials, len(schedules))
    if record is None or record.schedules < most:
        search = Search(list(schedules.values()), [each for each in by_family if each.cost <= limit], measured)
        at_once = max(1, min(AT_ONCE, MOST_BYTES // layer.weight_bytes))
        while len(measured) < most:
            watch(
                f"{layer}: {len(measured)} of {most} schedules, best so far {1 / min(measured.values()):.2f}x",
                len(measured) / most,
            )
            asked = search.ask(min(at_once, most - len(measured)))
            if not asked:
                break
            found = judge.ratios(layer, base, asked, ROUNDS)
            records.add_ratios(layer.key, base.text, found)
            others = records.ratios(layer.key, base.text)  # of other processes, too
            measured |= others
            search.tell(others)
        watch(f"{layer}: comparing the best", 1.0)
        best, speedup = _best(
            layer,
            judge,
            base,
            [schedules[text] for text in sorted(measured, key=measured.__getitem__) if text in schedules],
        )
        record = TuningRecord(
            **vars(layer.key),
            generation=generation(),
            costs_choice=base.text,
            best=best.text,
            speedup=speedup,
            schedules=len(measured),
        )
        records.put(record)
    best = schedules.get(record.best)
    return TunedLayer(layer.names, str(base), str(best or record.best), record)


def _best(layer: NetworkLayer, judge: Judge, base: Priced, ranked: Sequence[Priced]) -> tuple[Priced, float]:
    """The best schedule of those before the costs' choice, and how many times as fast it is; the costs' choice if none
    is faster."""
    finalists = ranked[: ranked.index(base)][:FINALISTS]
    if finalists:
        ratios = judge.ratios(layer, base, finalists, LAST_ROUNDS)
        best = min(finalists, key=lambda each: ratios.get(each.text, inf))
        if ratios.get(best.text, inf) * (LEAST_GAIN if judge.is_timed else 1) < 1:
            return best, 1 / ratios[best.text]
    return base, 1.0


def mean_speedup(layers: Sequence[TunedLayer]) -> float:
    """The geometric mean over all layers, equal ones as often as they are there."""
    count = sum(len(layer.names) for layer in layers)
    return prod(layer.record.speedup ** (len(layer.names) / count) for layer in layers)

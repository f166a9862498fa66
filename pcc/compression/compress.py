"""What ``pcc compress`` does: database, plan, a look at how fast the plan is, fit, package.

How fast a network is hangs on which weights are zero, not on their values. So plans are compiled and timed before
anything is fitted, pruned in one shot, and corrected by what was measured; the fit, which takes longest, is done once.
"""

import copy
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from time import perf_counter

from torch import nn

from pcc.codegen.kernel_cache import generation
from pcc.codegen.machine_profile import MachineProfile, machine_named
from pcc.compression.database import chooser_of, make_database
from pcc.compression.memory import Memory, is_interrupted
from pcc.compression.network import PACKAGE, Subject
from pcc.compression.options import Database, Plan, filters_left
from pcc.compression.photos import Photos
from pcc.compression.planner import Chosen, Planner, structures_of
from pcc.compression.recipe import recipe_text
from pcc.compression.report import CompressReport, layer_results, rank_correlation
from pcc.compression.times import Timing, time_together
from pcc.compression.wish import Wish, WishOutOfReach
from pcc.deploy.host import Host
from pcc.errors import PccError
from pcc.evaluate.evaluate import Comparison, evaluate
from pcc.evaluate.network import Network, of_package
from pcc.files import check_own, save_file, save_text, writing
from pcc.frontend.checkpoint import read_safetensors
from pcc.package.publish import check_new_package, new_package
from pcc.package.read import open_package
from pcc.package.write import package_files
from pcc.progress import Watch, quiet
from pcc.sparsity.kernels import Kernels
from pcc.target import Target, executes_here
from pcc.training.distill import distances, distill
from pcc.training.evaluate import BATCH_VALUES
from pcc.training.folder import CHECKPOINT, REPORT
from pcc.training.layers import Structures
from pcc.training.prune import check_results_apart, save_checkpoint, saved_name, saved_report
from pcc.training.reconstruct import reconstruct
from pcc.training.resume import sha256_of

SAMPLED = 128
"""Photos that errors are estimated on."""
NOISE = 0.03
"""By which a speed-up that is measured again differs."""
KEEP_TRIES = 4
"""Speed-ups that are tried for a share of photos to keep."""
RECIPE = "recipe.yaml"
RESULTS = "results"
"""The folder among what a run remembers where results lie until all are made."""


@dataclass(frozen=True)
class Fitted:
    """A plan and the network that has it."""

    chosen: Chosen
    module: nn.Module
    errors: dict[str, float]
    """Of each layer's output in the compressed network, over the variance of what is passed on."""
    comparison: Comparison
    """With the dense network, on photos held out."""


def compress_network(
    subject: Subject,
    photos: Photos,
    wish: Wish,
    out: Path,
    target: Target,
    minutes: float | None = None,
    resume: bool = False,
    watch: Watch = quiet,
) -> CompressReport:
    """Compresses a network into the folder ``out``: package, checkpoint, recipe and report.

    With ``minutes`` it then learns its dense self's outputs for so long; what is in ``out`` before stays there unless
    that is better on photos held out. ``watch`` is told what is done and the part of it all that is over. With
    ``resume`` an interrupted run goes on, and another wish uses what is known of the layers. Raises `PccError` for a
    network that no structure makes faster, a wish that cannot come true, and a folder that cannot be written.
    """
    if minutes is not None and not 0 < minutes < inf:
        raise PccError(f"minutes {minutes}: give how long to learn, more than 0")
    check_results_apart(out, subject.called, subject.weights)
    _check_folder(out, subject, target)
    subject.network(subject.module)  # says so where it takes no images, or has weights that are not finite
    run = _Run(subject, photos, wish, out, target, minutes, watch, resume)
    with run.memory:
        return run.run()


def _check_folder(out: Path, subject: Subject, target: Target) -> None:
    """`PccError` for a folder where a run would write over what is no run's, or whose package it may not replace."""
    names = [CHECKPOINT, REPORT, RECIPE, *([saved_name(subject.called)] if subject.file else [])]
    is_own = is_interrupted(out) or saved_report(out / REPORT, CompressReport) is not None
    check_own([out / name for name in names], is_own, "pcc compress")
    check_new_package(out / PACKAGE, package_files(subject.name, target.levels))


class _Run:
    """What the steps of a compression share."""

    def __init__(
        self,
        subject: Subject,
        photos: Photos,
        wish: Wish,
        out: Path,
        target: Target,
        minutes: float | None,
        watch: Watch,
        resume: bool,
    ) -> None:
        self.subject, self.photos, self.wish, self.out, self.target = subject, photos, wish, out, target
        self.minutes, self.watch = minutes, watch
        self.stages: dict[str, float] = {}
        self.memory = Memory.open(out, _identity(subject, photos, target), resume)
        self.smaller = wish.kind in ("size", "macs")
        """Whether it is enough for an option to have fewer weights."""
        self.batch = max(1, BATCH_VALUES // subject.example.numel())
        self.database: Database = {}

    def run(self) -> CompressReport:
        with self._timed("database"):
            self.database = self.memory.recall(f"database{', smaller' * self.smaller}", Database, self._make_database)
        if all(len(layer.options) == 1 for layer in self.database.values()):
            raise PccError(
                f"{self.subject.called}: no structure makes any layer faster on {self.target.name}, {self.target.cpu}: "
                "the network stays as it is"
            )
        fitted = self._fastest_that_keeps() if self.wish.kind == "keep" else self._fitted(f"plan {self.wish}", None)
        report = self._publish(fitted)
        if self.minutes:
            report = self._distilled(fitted, report, self.minutes)
        self.memory.forget()
        return report

    def _make_database(self) -> Database:
        sampled = list(self.photos.fitted[:SAMPLED].split(self.batch))
        return make_database(
            self.subject, sampled, self.target, self.smaller, lambda what, done: self.watch(what, 0.3 * done)
        )

    def _fastest_that_keeps(self) -> Fitted:
        """By bisection of the speed-up, on photos held out; twice as fast as before until one is too fast."""
        slow, fast = 1.0, None
        best: Fitted | None = None
        shares: list[str] = []
        for _ in range(KEEP_TRIES):
            value = 2 * slow if fast is None else (slow * fast) ** 0.5
            try:
                fitted = self._fitted(f"plan {self.wish}, {value:.4g}x", value)
            except WishOutOfReach:
                shares.append(f"{value:.3g}x is out of reach")
                fast = value
                continue
            agreement = fitted.comparison.agreement
            if agreement is None:
                raise PccError(f"{self.wish}: {self.subject.called} gives no class scores; ask for --faster")
            shares.append(f"{agreement.share:.1%} at {value:.3g}x")
            if agreement.share >= self.wish.value:
                best, slow = fitted, value
            else:
                fast = value
        if best is None:
            raise PccError(f"{self.wish}: no plan that was tried keeps as much ({', '.join(shares)})")
        return best

    def _fitted(self, name: str, value: float | None) -> Fitted:
        with self._timed("plan"):
            chosen = self.memory.recall(name, Chosen, lambda: self._planner().plan(value))
        with self._timed("fit"):
            structures = self._structures(chosen.plan)
            self.watch(f"fitting {len(structures)} layers", 0.5)
            module = copy.deepcopy(self.subject.module).eval()
            weights = self.memory.folder / f"{name}.safetensors"

            def fit() -> dict[str, float]:
                report = reconstruct(module, structures, self.photos.batches(self.batch))
                save_checkpoint(module, weights)
                return {each.name: each.fitted for each in report}

            errors = self.memory.recall(f"{name}, fitted", dict[str, float], fit)
            module.load_state_dict(read_safetensors(weights))
        with self._timed("held out"):
            comparison = self._compared(self.subject.network(module))
        return Fitted(chosen, module, errors, comparison)

    def _planner(self) -> Planner:
        return Planner(self.subject, self.database, self.wish, self.target, self.memory.folder, self.watch)

    def _structures(self, plan: Plan) -> Structures:
        """Of all layers: what stays dense is fitted, too, to make up for what is pruned."""
        dense = {name: Kernels() for name in self.subject.layers() if name in self.database}
        return {**dense, **structures_of(plan)}

    def _distilled(self, fitted: Fitted, report: CompressReport, minutes: float) -> CompressReport:
        """Distills, and publishes what comes of it if it is nearer to the dense network on photos held out."""
        module = copy.deepcopy(fitted.module)
        with self._timed("distillation"):
            steps = distill(module, self.subject.module, self.photos.fitted, 60 * minutes, self.watch)
        with self._timed("held out"):
            held_out = self.photos.held_out_batches(self.batch)
            before, after = distances([fitted.module, module], self.subject.module, held_out)
        what = f"{steps} steps of distillation: {before:.3g} from the dense network's outputs before, {after:.3g} after"
        if not after < before:
            note = "; ".join(filter(None, [report.note, f"{what}: not kept"]))
            report = report.model_copy(update={"note": note, "stages": self.stages})
            save_text(self.out / REPORT, report.model_dump_json(indent=2) + "\n")
            return report
        with self._timed("held out"):
            comparison = self._compared(self.subject.network(module))
        return self._publish(replace(fitted, module=module, comparison=comparison), what)

    def _publish(self, fitted: Fitted, note: str = "") -> CompressReport:
        """Writes package, checkpoint, recipe and report of a state of the network: all are made, then they take their
        places."""
        self.watch("compiling", 0.9)
        chosen, made = fitted.chosen, self.memory.folder / RESULTS
        package = made / PACKAGE
        shutil.rmtree(made, ignore_errors=True)  # those of an interrupted run
        with self._timed("package"):
            with writing(made):
                made.mkdir()
            self.subject.save(fitted.module, made)
            self.subject.compile(fitted.module, package, self.target)
        timings: tuple[Timing, ...] = ()
        comparison, measured = fitted.comparison, None
        if executes_here(self.target):
            with self._timed("package"):
                timings = tuple(time_together([self._planner().dense(), package]))
            measured = timings[0].seconds / timings[1].seconds
            with self._timed("held out"), of_package(open_package(package), Host(), 1) as network:
                comparison = self._compared(network)
        layers = layer_results(self.database, chosen.plan, chosen.times, fitted.errors, timings)
        left = filters_left(chosen.plan)
        options = [(self.database[name].dense, option, left[name]) for name, option in chosen.plan.items()]
        report = CompressReport(
            model=self.subject.called,
            wish=str(self.wish),
            target=self.target.name,
            cpu=self.target.cpu,
            photos=self.photos.count,
            held_out=self.photos.held_out.count,
            predicted=chosen.predicted,
            measured=measured,
            dense_seconds=timings[0].seconds if timings else None,
            seconds=timings[1].seconds if timings else None,
            attempts=chosen.attempts,
            rank_correlation=rank_correlation(layers),
            macs=sum(option.macs * left for _, option, left in options) / sum(dense.macs for dense, *_ in options),
            size=sum(option.bytes * left for _, option, left in options) / sum(dense.bytes for dense, *_ in options),
            comparison=comparison,
            layers=layers,
            stages=self.stages,
            note="; ".join(filter(None, [self._missed(measured), note])),
            compile=self.subject.command(self.out, self.target),
        )
        structures = {name: option.structure for name, option in chosen.plan.items() if option.structure}
        source = f"Chosen by pcc compress {self.subject.called} {self.wish}, for {self.target.name}, {self.target.cpu}"
        save_text(made / RECIPE, recipe_text(structures, source))
        save_text(made / REPORT, report.model_dump_json(indent=2) + "\n")
        self._take_place(made)
        return report

    def _take_place(self, made: Path) -> None:
        """Moves results into the run's folder. The package goes first: its place may be refused, and then all of the
        results before stay."""
        with new_package(self.out / PACKAGE, package_files(self.subject.name, self.target.levels)) as place:
            for part in list((made / PACKAGE).iterdir()):
                part.rename(place / part.name)
        for result in sorted(path for path in made.iterdir() if path.is_file()):
            save_file(self.out / result.name, result.replace)
        shutil.rmtree(made, ignore_errors=True)

    def _missed(self, measured: float | None) -> str:
        """What is to be said where the wish did not come true."""
        if self.wish.kind != "faster" or measured is None or measured >= (1 - NOISE) * self.wish.value:
            return ""
        return f"the wish is missed: {measured:.3g} of {self.wish.value:.3g} times as fast"

    def _compared(self, network: Network) -> Comparison:
        """A state of the network beside the dense one, on photos held out."""
        found = evaluate(network, self.photos.held_out, self.subject.network(self.subject.module)).against
        assert found is not None
        return found

    @contextmanager
    def _timed(self, stage: str) -> Generator[None]:
        began = perf_counter()
        yield
        self.stages[stage] = self.stages.get(stage, 0.0) + perf_counter() - began


def _identity(subject: Subject, photos: Photos, target: Target) -> dict[str, str]:
    """What a resumed run has to find as it was: packages of other kernels are not compared."""
    chooser = chooser_of(target.levels[0])
    return {
        "network": sha256_of(subject.module.state_dict()),
        "set of photos": sha256_of(photos.fitted),
        "target": f"{target.name}, {target.cpu}",
        "version of pcc": generation(),
        "machine profile": sha256_of(MachineProfile.of(machine_named(chooser.processor)).model_dump()),
        "set of tuning records": sha256_of(Path(chooser.records).read_bytes().hex()) if chooser.records else "",
    }

"""Makes the database: candidates, prices and errors of every layer, and how much of its error the outputs show."""

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pcc.codegen.machine_profile import machine_named
from pcc.codegen.select_kernels import OpenLayer, by_record
from pcc.codegen.tuning_records import TuningRecords
from pcc.compression.candidates import candidates, mined_patterns
from pcc.compression.channels import with_channels
from pcc.compression.errors import LayerFit, layer_fits, shown
from pcc.compression.network import Subject
from pcc.compression.options import Database, LayerOptions, Option
from pcc.compression.prices import priced_layers
from pcc.compression.recipe import structure_of
from pcc.errors import PccError
from pcc.passes.pipeline import DEFAULT_PIPELINE, parse_pipeline, split_pipeline
from pcc.planner import Chooser, choosers, open_graph
from pcc.progress import Watch
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.zeros import Zeros
from pcc.target import Target
from pcc.training.layers import array

COLUMNS = 8192
"""Output positions that errors are estimated on."""
PROBES = 32
"""Photos that sensitivities are measured on."""
PROBED_ERROR = 0.1
"""Of the option that a sensitivity is measured with, about."""


def make_database(subject: Subject, batches: Sequence[Tensor], target: Target, smaller: bool, watch: Watch) -> Database:
    """Of a network for a target; with ``smaller`` options count that are no faster, but have fewer weights. ``watch``
    is told what is done and the part of it that is over."""
    module = copy.deepcopy(subject.module).eval()
    layers = priced(subject, target, smaller, lambda what, done: watch(what, done / 4))
    known = {name: layer for name, layer in subject.layers(module).items() if name in layers}
    watch("gathering moments", 0.25)
    fits = layer_fits(module, known, batches, COLUMNS)
    for number, (name, fit) in enumerate(fits.items()):
        watch(f"errors of {name}", 0.3 + 0.4 * number / len(fits))
        layers[name] = _with_errors(layers[name], fit)
        fit.__dict__.pop("quadratic", None)  # as large as the moments; made again for the probe
    samples = torch.cat(list(batches))
    probes = samples[:: max(1, len(samples) // PROBES)][:PROBES]
    run = _outputs(subject, module, probes)
    dense = run()
    for number, (name, fit) in enumerate(fits.items()):
        watch(f"sensitivity of {name}", 0.7 + 0.3 * number / len(fits))
        if len(layers[name].options) > 1:
            probed = min(layers[name].options[1:], key=lambda option: abs(np.log(option.error / PROBED_ERROR + 1e-9)))
            structure = structure_of(probed.structure)
            assert isinstance(structure, Zeros)
            found = shown(run, dense, fit, structure) / max(probed.lost, 1e-12)
            layers[name] = layers[name].model_copy(update={"sensitivity": found})
        for cached in ("quadratic", "scores", "dense"):
            fit.__dict__.pop(cached, None)
    return layers


def priced(subject: Subject, target: Target, smaller: bool, watch: Watch) -> Database:
    """The options of each layer without their errors."""
    level = target.levels[0]  # the best that its library has code for
    graph = open_graph(subject.module.eval(), (subject.example,), DEFAULT_PIPELINE, level)
    chooser = chooser_of(level)
    machine = machine_named(chooser.processor)
    modules = subject.layers()
    patterns = mined_patterns([array(module.weight) for module in modules.values()])

    def candidates_of(name: str, weight: np.ndarray, groups: int) -> list[Kernels]:
        return candidates(weight, groups, patterns) if name in modules else []

    with ExitStack() as stack:
        records = stack.enter_context(TuningRecords(Path(chooser.records), read_only=True)) if chooser.records else None

        def choose(layer: OpenLayer) -> tuple[str, float]:
            found, _ = layer.priced(machine)
            if records is None:
                return found[0].family, float(found[0].cost)
            best, use = by_record(layer, found[0], machine, records.of(layer.key(chooser.tuned_for)))
            speedup = use.speedup if use is not None and use.speedup else 1.0
            return best.family, float(found[0].cost) / speedup

        layers = with_channels(priced_layers(graph, choose, candidates_of, smaller, watch), graph, modules)
    for name, layer in layers.items():
        if len(layer.options) == 1:
            layers[name] = layer.model_copy(update={"reason": _why_dense(name, modules, smaller)})
    return layers


def chooser_of(level: Target) -> Chooser:
    """How kernels are chosen for a target: by the costs and the tuning records that are saved."""
    return choosers([level], split_pipeline(parse_pipeline(DEFAULT_PIPELINE)).graph, None, None)[level]


def _why_dense(name: str, modules: dict[str, nn.Conv2d | nn.Linear], smaller: bool) -> str:
    if name not in modules:
        return "dense: a depthwise convolution, none of the model's own layers, or one that shares its weight"
    return f"dense: no structure is {'smaller' if smaller else 'faster'} there"


def _with_errors(layer: LayerOptions, fit: LayerFit) -> LayerOptions:
    """With the errors of its options, and without those that another one beats at everything."""
    found: list[Option] = []
    for option in layer.options[1:]:
        structure = structure_of(option.structure)
        assert isinstance(structure, Zeros)
        _, error = fit.fitted(structure)
        found.append(option.model_copy(update={"error": max(0.0, error)}))
    return layer.model_copy(update={"options": (layer.dense, *best(found))})


def best(options: Sequence[Option]) -> list[Option]:
    """Without those that another one beats at everything; of equal ones the first stays."""
    found: list[Option] = []
    for option in options:
        if not any(_beats(other, option) for other in found):
            found = [*(other for other in found if not _beats(option, other)), option]
    return found


def _beats(a: Option, b: Option) -> bool:
    """Whether ``a`` is no worse than ``b`` at anything. What feeders save is not in a layer's own cost."""
    return bool(a.feeders) == bool(b.feeders) and all(
        getattr(a, what) <= getattr(b, what) for what in ("error", "cost", "macs", "bytes")
    )


def _outputs(subject: Subject, module: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """Runs the module as it is, and gives all its outputs in one row; `PccError` where they are not finite."""
    network = subject.network(module)
    inputs = x.numpy()

    def run() -> Tensor:
        outputs = np.concatenate([output.ravel() for output in network(inputs)])
        if not np.isfinite(outputs).all():
            raise PccError(f"{subject.called} gives outputs that are not finite: look at the photos and at the weights")
        return torch.from_numpy(outputs)

    return run

"""A program for torchrun: every method on a tiny network, after which all processes must have the same weights. Prints
the methods that ran."""

import os
import sys
from pathlib import Path

import torch
from torch import distributed

from pcc.training.methods import method_names
from pcc.training.processes import processes
from pcc.training.recipe import parse_recipe
from pcc.training.trainer import train
from tests.training.methods.loop import data, net

UNSTRUCTURED = '"@all": {unstructured: {rate: 3}}'
STAGES = {
    "train": "{epochs: 2}",
    "one-shot": f"{{structures: {{{UNSTRUCTURED}}}}}",
    "reconstruct": f"{{samples: 100, structures: {{{UNSTRUCTURED}}}}}",
    "admm": f"{{epochs: 2, rhos: [1e-2, 1e-1], structures: {{{UNSTRUCTURED}}}}}",
    "pruning-network": "{epochs: 2, structures: {conv2: {filter: {rate: 2}}}}",
    "dcp": "{epochs: 2, losses: 1, rate: 2, rounds: 2, batches: 2, batch: 60, steps: 2}",
    "synaptic-strength": "{epochs: 2, rate: 4}",
    "gradual": f"{{epochs: 2, start: 0, end: 2, structures: {{{UNSTRUCTURED}}}}}",
    "drop-pruning": f"{{epochs: 4, steps: 2, every: 1, structures: {{{UNSTRUCTURED}}}}}",
    "unused-paths": "",
    "hybrid": '{macs_rate: 1.5, samples: 60, points: 3, structures: {"@conv": {filter: {rate: 2}}}}',
    "quantize": '{epochs: 4, structures: {"@all": {levels: {bits: 4}}}}',
    "cluster": '{epochs: 2, structures: {"@all": {centroids: {clusters: 5}}}}',
    "vrpge": "{epochs: 2, rate: 2}",
    "probmask": "{epochs: 2, rate: 2}",
}


def main(folder: Path) -> None:
    assert set(STAGES) == set(method_names()), set(STAGES) ^ set(method_names())
    with processes() as process:
        for name in method_names():
            stage, model = STAGES[name], net()
            train(
                model,
                data(),
                parse_recipe(
                    f"train: {{batch: 60, lr: 0.02}}\nstages: [{{{name}: {stage}}}, {{train: {{epochs: 1}}}}]"
                ),
                folder / name,
                process,
            )
            weights = torch.cat([value.detach().flatten().double() for value in model.state_dict().values()])
            both = [torch.empty_like(weights) for _ in range(process.ranks)]
            distributed.all_gather(both, weights)
            assert torch.equal(both[0], both[1]), f"{name}: {float((both[0] - both[1]).abs().max())} apart"
            if process.first:
                print(name, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # as pcc's own `main` ends a process of several, see there

"""The rows of the result table: what is run, and what the papers claim."""

from dataclasses import dataclass

import torch
from torch import nn

from pcc.errors import PccError
from pcc.models import entry
from pcc.models.preprocess import CIFAR10
from pcc.training.prune import open_model


@dataclass(frozen=True)
class Row:
    """One run of ``pcc prune``."""

    name: str
    network: str
    data: str
    recipe: str
    title: str
    """Method and structure, for people."""
    start: str | None = None
    """The row whose checkpoint it starts from; None: from scratch."""
    claim: str = ""
    """What the paper says."""
    published: str | None = None
    """Instead of a row, the file that it starts from, of those that its authors publish."""


_LENET = [
    Row("lenet5-dense", "lenet5", "mnist", "mnist-dense", "dense"),
    *(
        Row(f"lenet5-{name}", "lenet5", "mnist", recipe, title, start, claim)
        for name, recipe, title, start, claim in (
            ("admm", "admm-lenet5", "ADMM, unstructured", "lenet5-dense", "71.2x at 99.2 % (Zhang 2018)"),
            (
                "progressive-167x",
                "progressive-lenet5-167x",
                "progressive ADMM, unstructured",
                "lenet5-dense",
                "167x at 99.0 % (Ye 2018)",
            ),
            (
                "progressive-246x",
                "progressive-lenet5-246x",
                "progressive ADMM, unstructured",
                "lenet5-progressive-167x",
                "246x at 99.0 % (Ye 2019)",
            ),
            (
                "gradual-246x",
                "gradual-lenet5",
                "gradual, unstructured, taught by the dense network",
                "lenet5-dense",
                "246x at 99.0 % (Ye 2019)",
            ),
            (
                "cluster",
                "cluster-lenet5",
                "the last one, then clustering",
                "lenet5-gradual-246x",
                "1,910x of weight data (Ye 2018)",
            ),
            ("binary", "binary-lenet5", "ADMM, every weight binary", "lenet5-dense", "lossless (Ye 2019)"),
            (
                "drop-pruning",
                "drop-pruning-lenet5",
                "DropPruning, unstructured",
                "lenet5-dense",
                "14.3x, no loss (Jia 2018)",
            ),
            ("hybrid", "hybrid-lenet5", "hybrid: filters, then unstructured", "lenet5-dense", ""),
            ("synaptic-strength", "synaptic-strength-lenet5", "synaptic strength, connectivity", "lenet5-dense", ""),
            ("pruning-network", "pruning-network-lenet5", "pruning network, filters", "lenet5-dense", ""),
            ("vrpge", "vrpge-lenet5", "VRPGE, filters", None, ""),
            ("probmask", "probmask-lenet5", "ProbMask, unstructured", None, ""),
        )
    ),
]

_CIFAR_ROWS = {
    "patterns-4": "4 designed patterns",
    "patterns-8": "8 mined patterns",
    "patterns-12": "12 mined patterns",
    "connectivity": "8 patterns, connectivity 3.6x",
    "connectivity-share2": "8 patterns, connectivity 3.6x, shared by 2 filters",
    "connectivity-share4": "8 patterns, connectivity 3.6x, shared by 4 filters",
    "unstructured": "unstructured 8.1x",
    "filter": "filters, with the channels they feed",
    "column": "column 8.1x",
    "tetris": "TETRIS blocks 8.1x",
}
"""Of both CIFAR-10 networks, all at the MACs of patterns with connectivity 3.6x but for patterns alone. The recipe is
cifar10-NAME..."""
_OWN_RECIPES = {("resnet20", "filter"): "filter-resnet20"}
"""...but for these."""


def _cifar(network: str) -> list[Row]:
    dense = Row(f"{network}-dense", network, "cifar10", "cifar10-dense", "dense")
    pruned = [
        Row(
            f"{network}-{name}",
            network,
            "cifar10",
            _OWN_RECIPES.get((network, name), f"cifar10-{name}"),
            title,
            dense.name,
            "no loss (PCONV, PatDNN)" if "pattern" in title else "",
        )
        for name, title in _CIFAR_ROWS.items()
    ]
    return [dense, *pruned]


_VGG16 = [
    Row("vgg16-dense", "vgg16_cifar", "cifar10", "dense-vgg16", "dense"),
    *(
        Row(f"vgg16-{name}", "vgg16_cifar", "cifar10", recipe, title, "vgg16-dense", claim)
        for name, recipe, title, claim in (
            (
                "connectivity-8x",
                "connectivity-vgg16-8x",
                "8 patterns, connectivity 3.6x",
                "8x, no loss (PCONV, PatDNN)",
            ),
            ("connectivity-12x", "connectivity-vgg16-12x", "8 patterns, connectivity 5.4x", "12x (PCONV)"),
            ("connectivity-19.7x", "connectivity-vgg16-19.7x", "8 patterns, connectivity 8.8x", "19.7x (PCONV)"),
            ("drop-pruning", "drop-pruning-vgg16", "DropPruning, unstructured", "11.1x, no loss (Jia 2018)"),
            (
                "memristor",
                "memristor-vgg16",
                "ADMM, crossbar rows and columns, 16 conductance states",
                "29.8x, 0.5 points lost (Yuan 2019)",
            ),
            ("dcp-adapt", "dcp-adapt-vgg16", "DCP-Adapt, channels", "15.6x (Zhuang 2018)"),
        )
    ),
]
"""For an accelerator: seven times the multiply-accumulates of VGG-8."""

PUBLISHED = "tools/reproduce/cifar_resnets.py"
_PUBLISHED = [
    Row(
        f"public-{network}-{name}",
        f"{PUBLISHED}:{network}",
        f"{PUBLISHED}:cifar10",
        recipe,
        title,
        claim=claim,
        published=checkpoint,
    )
    for network, checkpoint, name, recipe, title, claim in (
        ("resnet20", "resnet20-12fca82f.th", "gradual", "gradual-resnet20", "gradual, 8 patterns, connectivity 2x", ""),
        ("resnet56", "resnet56-4bfd9763.th", "gradual", "gradual-resnet56", "gradual, 8 patterns, connectivity 2x", ""),
        ("resnet56", "resnet56-4bfd9763.th", "dcp", "dcp-resnet56", "DCP, half of the channels", "2.0x (Zhuang 2018)"),
        ("resnet56", "resnet56-4bfd9763.th", "filter", "filter-resnet56", "half of the filters inside blocks", ""),
    )
]
"""For those who have the files: they come in no package."""


ROWS = {
    row.name: row
    for row in [
        *_LENET,
        *_cifar("vgg8"),
        Row(
            "vgg8-campfire", "vgg8", "cifar10", "campfire-vgg8", "Campfire from scratch, 4 of 9 taps, connections 3.6x"
        ),
        Row("vgg8-dcp", "vgg8", "cifar10", "dcp-vgg8", "DCP, half of the channels", "vgg8-dense"),
        Row(
            "vgg8-demo",
            "vgg8",
            "cifar10",
            "demo-vgg8",
            "gradual, 8 patterns, connectivity by layer, taught by the dense network",
            "vgg8-dense",
        ),
        *_cifar("resnet20"),
        *_PUBLISHED,
        *_VGG16,
    ]
}


def dense(row: Row) -> Row | None:
    """The network of a row as it is without compression; None where its authors trained it."""
    return None if row.published else ROWS[f"{row.name.partition('-')[0]}-dense"]


def input_shape(row: Row) -> tuple[int, int, int, int]:
    """(1, C, H, W)."""
    return CIFAR10.shape if row.published else entry(row.network).input_shape


def opened(row: Row, weights: str) -> nn.Module:
    """The network of a row, with weights as `open_model` takes them."""
    return open_model(row.network, weights, 0, input_shape(row)[1:] if row.published else None).module


def rows(names: list[str], published: bool = False) -> list[Row]:
    """Rows by name, ``all`` for all that this machine can run, each after the dense row and the row it starts from.
    `PccError` for a name that is none, or for a row that starts from a file where no files are ``published``."""
    ordered: dict[str, Row] = {}

    def add(name: str) -> None:
        if name not in ROWS:
            raise PccError(f"no row '{name}': choose all or some of {', '.join(ROWS)}")
        row = ROWS[name]
        if row.published and not published:
            raise PccError(f"row '{name}' starts from {row.published}: give the folder where it lies as --checkpoints")
        origin = dense(row)
        for before in (origin.name if origin else None, row.start):
            if before and before != name:
                add(before)
        ordered[name] = row

    for name in _able(published) if names == ["all"] else names:
        add(name)
    return list(ordered.values())


def _able(published: bool) -> list[str]:
    left_out = [*([] if torch.cuda.is_available() else _VGG16), *([] if published else _PUBLISHED)]
    return [name for name, row in ROWS.items() if row not in left_out]

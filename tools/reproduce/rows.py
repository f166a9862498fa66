"""The rows of the result table: what is run, and what the papers claim."""

from dataclasses import dataclass

from pcc.errors import PccError


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
    teachers: tuple[str, ...] = ()
    """Rows of networks that stages with ``distill`` learn from, in place of the network as it came in."""


_LENET = [
    Row("lenet5-dense", "lenet5", "mnist", "mnist-dense", "dense"),
    *(
        Row(f"lenet5-{name}", "lenet5", "mnist", recipe, title, start, claim)
        for name, recipe, title, start, claim in (
            ("admm", "admm-lenet5", "ADMM, unstructured", "lenet5-dense", "71.2x at 99.2 % (Zhang 2018)"),
            ("progressive-167x", "progressive-lenet5-167x", "progressive ADMM, unstructured", "lenet5-dense", "167x at 99.0 % (Ye 2018)"),
            ("progressive-246x", "progressive-lenet5-246x", "progressive ADMM, unstructured", "lenet5-progressive-167x", "246x at 99.0 % (Ye 2019)"),
            ("cluster", "cluster-lenet5", "progressive ADMM, clustering", "lenet5-progressive-246x", "1,910x of weight data (Ye 2018)"),
            ("binary", "binary-lenet5", "ADMM, every weight binary", "lenet5-dense", "lossless (Ye 2019)"),
            ("drop-pruning", "drop-pruning-lenet5", "DropPruning, unstructured", "lenet5-dense", "14.3x, no loss (Jia 2018)"),
            ("hybrid", "hybrid-lenet5", "hybrid: filters, then unstructured", "lenet5-dense", ""),
            ("synaptic-strength", "synaptic-strength-lenet5", "synaptic strength, connectivity", "lenet5-dense", ""),
            ("pruning-network", "pruning-network-lenet5", "pruning network, filters", "lenet5-dense", ""),
            ("vrpge", "vrpge-lenet5", "VRPGE, filters", None, ""),
            ("probmask", "probmask-lenet5", "ProbMask, unstructured", None, ""),
        )
    ),
]

_CIFAR_RECIPES = {
    "patterns-4": "4 designed patterns",
    "patterns-8": "8 mined patterns",
    "patterns-12": "12 mined patterns",
    "connectivity": "8 patterns, connectivity 3.6x",
    "connectivity-share2": "8 patterns, connectivity 3.6x, shared by 2 filters",
    "connectivity-share4": "8 patterns, connectivity 3.6x, shared by 4 filters",
    "unstructured": "unstructured 8.1x",
    "filter": "filter 2.85x",
    "column": "column 8.1x",
    "tetris": "TETRIS blocks 8.1x",
}
"""Recipes that both CIFAR-10 networks take, all at the MACs of patterns with connectivity 3.6x but for patterns alone."""


def _cifar(network: str) -> list[Row]:
    dense = Row(f"{network}-dense", network, "cifar10", "cifar10-dense", "dense")
    pruned = [
        Row(f"{network}-{recipe}", network, "cifar10", f"cifar10-{recipe}", title, dense.name, "no loss (PCONV, PatDNN)" if "pattern" in title else "")
        for recipe, title in _CIFAR_RECIPES.items()
    ]
    return [dense, *pruned]


ROWS = {
    row.name: row
    for row in [
        *_LENET,
        *_cifar("vgg8"),
        Row("vgg8-demo", "vgg8", "cifar10", "demo-vgg8", "8 patterns, connectivity by layer, taught by the dense network", "vgg8-dense"),
        *_cifar("resnet20"),
        Row(
            "vgg8-shipped",
            "vgg8",
            "cifar10",
            "shipped-vgg8",
            "the same, taught further by the dense network and ResNet-20",
            "vgg8-demo",
            teachers=("vgg8-dense", "resnet20-dense"),
        ),
    ]
}


def rows(names: list[str]) -> list[Row]:
    """Rows by name, ``all`` for all of them, each after the dense row and the row it starts from. `PccError` for a name that is none."""
    ordered: dict[str, Row] = {}

    def add(name: str) -> None:
        if name not in ROWS:
            raise PccError(f"no row '{name}': choose all or some of {', '.join(ROWS)}")
        row = ROWS[name]
        for before in (f"{row.network}-dense", row.start, *row.teachers):
            if before and before != name:
                add(before)
        ordered[name] = row

    for name in ROWS if names == ["all"] else names:
        add(name)
    return list(ordered.values())

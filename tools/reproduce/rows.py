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


_LENET = [
    Row("lenet5-dense", "lenet5", "mnist", "mnist-dense", "dense"),
    Row("lenet5-admm", "lenet5", "mnist", "lenet5-admm", "ADMM, unstructured", "lenet5-dense", "71.2x at 99.2 % (Zhang et al., ECCV 2018)"),
    Row(
        "lenet5-progressive-167x",
        "lenet5",
        "mnist",
        "lenet5-progressive-167x",
        "progressive ADMM, unstructured",
        "lenet5-dense",
        "167x at 99.0 % (Ye et al., arXiv 1810.07378)",
    ),
    Row(
        "lenet5-progressive-246x",
        "lenet5",
        "mnist",
        "lenet5-progressive-246x",
        "progressive ADMM, unstructured",
        "lenet5-progressive-167x",
        "246x at 99.0 % (Ye et al., arXiv 1903.09769)",
    ),
    Row("lenet5-drop-pruning", "lenet5", "mnist", "drop-pruning-lenet5", "DropPruning", "lenet5-dense", "14.3x, no loss (Jia et al., 2018)"),
    Row(
        "lenet5-cluster",
        "lenet5",
        "mnist",
        "cluster-lenet5",
        "progressive ADMM, then clustering",
        "lenet5-progressive-246x",
        "1,910x of weight data (Ye et al., arXiv 1811.01907)",
    ),
    Row(
        "lenet5-binary",
        "lenet5",
        "mnist",
        "binary-lenet5",
        "ADMM, every weight binary",
        "lenet5-dense",
        "fully binarised, no loss (Ye et al., arXiv 1903.09769)",
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
        Row("vgg8-demo", "vgg8", "cifar10", "vgg8-demo", "8 patterns, connectivity by layer, taught by the dense network", "vgg8-dense"),
        *_cifar("resnet20"),
    ]
}


def rows(names: list[str]) -> list[Row]:
    """Rows by name, ``all`` for all of them, each after the row it starts from. `PccError` for a name that is none."""
    ordered: dict[str, Row] = {}

    def add(name: str) -> None:
        if name not in ROWS:
            raise PccError(f"no row '{name}': choose all or some of {', '.join(ROWS)}")
        if start := ROWS[name].start:
            add(start)
        ordered[name] = ROWS[name]

    for name in ROWS if names == ["all"] else names:
        add(name)
    return list(ordered.values())

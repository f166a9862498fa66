"""What the chosen kernels cost beside the cheapest dense ones."""

from collections.abc import Sequence

from pcc.codegen.family import REGISTRIES, families
from pcc.package.layer_report import ChoiceRecord, LayerReport
from pcc.sparsity.formats import DENSE


def dense_cost(choice: ChoiceRecord) -> float | None:
    """The cost of the cheapest kernel for a dense weight, chosen or not; None where no family has one, or none that
    this pcc knows."""
    costs = [(choice.family, choice.cost), *((other.family, other.cost) for other in choice.rejected)]
    formats = {name: family.format for backend in REGISTRIES for name, family in families(backend).items()}
    return min((cost for family, cost in costs if cost is not None and formats.get(family) == DENSE), default=None)


def gain(choice: ChoiceRecord) -> float | None:
    """How many times as fast as the cheapest dense kernel the chosen one is, by cost; None where there is no dense
    one."""
    dense = dense_cost(choice)
    return None if dense is None or not choice.cost else dense / choice.cost


def total_gain(layers: Sequence[LayerReport]) -> float | None:
    """The same of all convolutions and linear layers together; None where there are none, or a dense kernel is not
    known."""
    choices = [layer.choice for layer in layers if layer.choice]
    dense = [dense_cost(choice) for choice in choices]
    known = [cost for cost in dense if cost is not None]
    return sum(known) / sum(choice.cost for choice in choices) if known and len(known) == len(dense) else None

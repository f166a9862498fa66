"""prune-connectivity: whole connections go, so that a filter no longer reads every input channel (PCONV, PatDNN)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import ClassVar, Literal

from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.errors import PccError
from pcc.ir.annotations import Skipped, annotate
from pcc.ir.graph import layer_name
from pcc.passes.pruning import (
    SPARED,
    Pruned,
    check_names,
    constrain,
    convolution_weight,
    convolutions,
    cut,
    first_convolutions,
    groups_of,
    largest_share,
    why_not,
)
from pcc.sparsity import connectivity


@dataclass(frozen=True)
class PruneConnectivity:
    """Keeps one in ``rate`` connections of each convolution, those of largest norm after their best pattern.

    ``scope`` spends a convolution's budget over the ``layer`` or in each ``filter`` alike, which balances the work. With ``share`` 2 or 4, groups of so
    many filters, like ones brought together, keep the same channels (and patterns); where filters do not divide, fewer share. Connections of 1x1
    convolutions are single weights. The first convolution is spared, as in the papers, unless ``spare_first`` is false or it has a rate of its own in
    ``layers``, which are rates by module path; layers with fewer connections than the rate are left alone. A later prune-connectivity replaces what an earlier
    one did.
    """

    name: ClassVar[str] = "prune-connectivity"
    exact: ClassVar[bool] = False

    rate: float = 3.6
    scope: Literal["layer", "filter"] = "layer"
    share: int = 1
    spare_first: bool = True
    layers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for where, rate in (("", self.rate), *((f" for layer {name}", rate) for name, rate in self.layers.items())):
            if not 1 <= rate < float("inf"):
                raise PccError(f"prune-connectivity: a rate of {rate:g}{where} is not possible: it is the factor by which connections become fewer, 1 or more")
        if self.scope not in connectivity.SCOPES:
            raise PccError(f"prune-connectivity: unknown scope '{self.scope}': choose one of {', '.join(connectivity.SCOPES)}")
        if self.share not in connectivity.SHARES:
            raise PccError(f"prune-connectivity: filters share in groups of {', '.join(map(str, connectivity.SHARES))}, not {self.share}")

    def __call__(self, graph_module: GraphModule) -> PassResult:
        convs = convolutions(graph_module)
        check_names(self.layers, convs)
        first = first_convolutions(graph_module) if self.spare_first else set()
        reasons = {conv: self._why_not(conv, conv in first) for conv in convs}
        for conv, reason in reasons.items():
            if reason and layer_name(conv) in self.layers:
                raise PccError(f"layer {layer_name(conv)} cannot lose connections: {reason}")
            if reason:
                annotate(conv, Skipped(self.name, reason))
        chosen = [conv for conv, reason in reasons.items() if not reason]
        beyond = [conv for conv in convs if not why_not(conv) and conv not in first and self._is_beyond(conv)]
        if beyond and not chosen:
            largest = max(beyond, key=_connections)
            raise PccError(f"no layer can be pruned at a rate of {self.rate:g}: the largest, {layer_name(largest)}, has {_connections(largest)} connections")
        return PassResult(graph_module, bool(chosen) and cut(graph_module, {conv: self._constraint(conv) for conv in chosen}, self.name))

    def _why_not(self, conv: Node, first: bool) -> str | None:
        if reason := why_not(conv):
            return reason
        if first and layer_name(conv) not in self.layers:
            return SPARED
        if self._is_beyond(conv):
            return f"it has {_connections(conv)} connections, fewer than its rate of {self._rate(conv):g}"
        return None

    def _rate(self, conv: Node) -> float:
        return self.layers.get(layer_name(conv), self.rate)

    def _is_beyond(self, conv: Node) -> bool:
        """Whether the rate asks for less than one connection."""
        return self._rate(conv) > _connections(conv)

    def _constraint(self, conv: Node) -> Pruned:
        share = largest_share(self.share, len(convolution_weight(conv)), groups_of(conv))
        return constrain(conv, rate=self._rate(conv), scope=self.scope, share=share)


def _connections(conv: Node) -> int:
    return prod(convolution_weight(conv).shape[:2])

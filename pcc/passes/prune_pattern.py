"""prune-pattern: each connection of the 3x3 convolutions keeps the taps of one of a few patterns (PCONV, PatDNN)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.errors import PccError
from pcc.ir.annotations import Skipped, annotate
from pcc.ir.graph import layer_name
from pcc.passes.pruning import (
    SPARED,
    check_names,
    clash,
    convolutions,
    cut,
    dense_weight,
    first_convolutions,
    layer_weight,
    why_not,
)
from pcc.sparsity import pattern
from pcc.sparsity.kernels import MINED, Kernels


@dataclass(frozen=True)
class PrunePattern:
    """Cuts each 3x3 connection down to 4 of its 9 weights, in the nearest of a few shapes that the whole model shares.

    ``patterns`` is ``designed``, PCONV's four, or how many to mine from the model's own connections, 4 to 12. 3x3
    convolutions of any stride, dilation and groups take part; depthwise ones are left alone, and so is the first one,
    which has little work and much to lose, unless ``spare_first`` is false. With ``adjacent`` only patterns whose taps
    touch side by side are mined: they load fewer inputs. ``layers`` restricts the pass to convolutions by module path,
    the first too if it is named.
    """

    name: ClassVar[str] = "prune-pattern"
    exact: ClassVar[bool] = False

    patterns: str | int = "designed"
    adjacent: bool = False
    spare_first: bool = True
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.patterns != "designed" and not (str(self.patterns).isdecimal() and int(self.patterns) in MINED):
            raise PccError(
                f"prune-pattern{{patterns={self.patterns}}}: choose designed, or how many to mine, {MINED[0]} to "
                f"{MINED[-1]}"
            )
        if self.adjacent and self.patterns == "designed":
            raise PccError(
                "prune-pattern{adjacent=true} is about patterns that are mined: give a number of patterns, as in "
                "{patterns=8,adjacent=true}"
            )

    def __call__(self, graph_module: GraphModule) -> PassResult:
        convs = convolutions(graph_module)
        check_names(self.layers, convs)
        first = first_convolutions(graph_module) if self.spare_first else set()
        reasons = {conv: self._why_not(conv, conv in first) for conv in convs}
        for conv, reason in reasons.items():
            if reason and layer_name(conv) in self.layers:
                raise PccError(f"layer {layer_name(conv)} cannot take patterns: {reason}")
            if reason:
                annotate(conv, Skipped(self.name, reason))
        chosen = [conv for conv, reason in reasons.items() if not reason]
        if not chosen:
            return PassResult(graph_module, False)
        patterns = self._pattern_set(chosen)
        return PassResult(graph_module, cut(graph_module, dict.fromkeys(chosen, Kernels(patterns)), self.name))

    def _why_not(self, conv: Node, first: bool) -> str | None:
        if reason := why_not(conv):
            return reason
        kh, kw = layer_weight(conv).shape[2:]
        if (kh, kw) != (3, 3):
            return f"the patterns are for 3x3 connections, not {kh}x{kw}"
        if self.layers and layer_name(conv) not in self.layers:
            return "not among the layers that were named"
        if first and not self.layers:
            return SPARED
        return clash(conv, Kernels("designed"))

    def _pattern_set(self, convs: list[Node]) -> tuple[tuple[int, ...], ...]:
        mined_or_designed: np.ndarray = (
            pattern.DESIGNED
            if self.patterns == "designed"
            else pattern.mine((dense_weight(conv) for conv in convs), int(self.patterns), self.adjacent)
        )
        return tuple(tuple(taps) for taps in mined_or_designed.tolist())

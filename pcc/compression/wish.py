"""What is asked of a compression, as a budget for the solver."""

from dataclasses import dataclass
from typing import Literal

from pcc.compression.options import Database, Plan
from pcc.compression.plan import OutOfReach, Price, solve
from pcc.compression.times import Times
from pcc.errors import PccError

Kind = Literal["faster", "macs", "size", "keep"]


class WishOutOfReach(PccError):
    """No plan has the wish come true."""


@dataclass(frozen=True)
class Wish:
    """``faster``: times as fast as the dense network; ``macs`` and ``size``: the share that is left of its
    multiply-accumulates and of the bytes of its weights; ``keep``: the share of photos on which the class stays, and
    as fast as that allows."""

    kind: Kind
    value: float

    def __str__(self) -> str:
        return f"--keep {self.value:.4g}" if self.kind == "keep" else f"--{self.kind} {self.value:g}"

    def plan(self, database: Database, times: Times, value: float | None = None) -> Plan:
        """The plan of least loss that has the wish come true, or ``value`` in its place; of ``keep``, that is so many
        times as fast. `WishOutOfReach` where none has."""
        value = self.value if value is None else value
        prices: dict[Kind, Price] = {
            "macs": lambda _, option, left: option.macs * left,
            "size": lambda _, option, left: option.bytes * left,
        }
        price = prices.get(self.kind, times.of)
        if self.kind in prices:
            rest, whole = 0.0, sum(price(layer, layer.dense, 1.0) for layer in database.values())
            budget = whole * value
        else:
            rest, whole = times.rest, times.of_dense_network(database)
            budget = whole / value
        try:
            return solve(database, price, budget - rest)
        except OutOfReach as error:
            least = (error.least + rest) / whole
            best = f"--{self.kind} {least:.3g}" if self.kind in prices else f"{1 / least:.3g} times as fast"
            raise WishOutOfReach(
                f"{self} is out of reach: with every layer pruned as far as pcc does it comes to {best} (another wish "
                "with --resume uses what is known now)"
            ) from None


def chosen_wish(
    faster: float | None = None, macs: float | None = None, size: float | None = None, keep: float | None = None
) -> Wish:
    """The one wish that is there; `PccError` for none, several, and those that the dense network is already."""
    wishes: dict[Kind, float | None] = {"faster": faster, "macs": macs, "size": size, "keep": keep}
    asked = [Wish(kind, value) for kind, value in wishes.items() if value is not None]
    if len(asked) != 1:
        raise PccError(
            f"{'two wishes' if asked else 'no wish'}: give one of --faster 2, --macs 0.5, --size 0.5 and --keep 99%"
        )
    wish = asked[0]
    if wish.kind == "faster" and not 1 < wish.value <= 1000:
        raise PccError(f"{wish}: give how many times as fast it shall be, more than 1, which the dense network is")
    if wish.kind != "faster" and not 0 < wish.value < 1:
        raise PccError(f"{wish}: give a share of the dense network's, between 0 and 1")
    return wish

"""Shares with their intervals, and whether two networks differ by more than chance."""

from pydantic import BaseModel, ConfigDict

CONFIDENCE = 0.95


class Share(BaseModel):
    """``right`` of ``count`` samples, and an interval that holds the share of all samples like these with a probability
    of `CONFIDENCE`: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference" (1927)."""

    model_config = ConfigDict(frozen=True)

    right: int
    count: int
    share: float
    low: float
    high: float


def share_of(right: int, count: int) -> Share:
    """The share of ``count`` samples, of which there is at least one."""
    from scipy.stats import binomtest

    interval = binomtest(right, count).proportion_ci(CONFIDENCE, "wilson")
    return Share(right=right, count=count, share=right / count, low=float(interval.low), high=float(interval.high))


def chance_of_difference(only_first: int, only_second: int) -> float:
    """How probable it is that two equally good networks differ at least so much, where so many samples are right with
    one of the two only: McNemar, "Note on the Sampling Error of the Difference between Correlated Proportions or
    Percentages" (1947), exactly."""
    from scipy.stats import binomtest

    differ = only_first + only_second
    return float(binomtest(only_first, differ, 0.5).pvalue) if differ else 1.0

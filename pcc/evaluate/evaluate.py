"""Evaluates a network on samples, alone or against another: top-1, top-5, loss, agreement, and the error of outputs."""

from dataclasses import dataclass, field

import numpy as np
from pydantic import BaseModel
from scipy.special import log_softmax

from pcc.errors import PccError
from pcc.evaluate.network import Network
from pcc.evaluate.samples import Samples
from pcc.evaluate.statistics import Share, chance_of_difference, share_of
from pcc.progress import Watch, quiet

TINY = float(np.finfo(np.float32).tiny)


class Accuracy(BaseModel):
    """Of a network's class scores on labelled samples."""

    top1: Share
    top5: Share | None
    """None for fewer than six classes."""
    loss: float
    """Mean cross-entropy; of scores that are probabilities already, of these."""


class OutputError(BaseModel):
    """How far an output is from another network's: the largest difference over the largest value, and the root mean
    square of the differences over that of the values, over all samples. NaN (null in JSON) where a
    difference is NaN."""

    name: str
    largest: float
    rms: float


class Comparison(BaseModel):
    """A network beside another on the same samples."""

    network: str
    where: str
    accuracy: Accuracy | None
    agreement: Share | None
    """How often both have the same best class; None where they give no class scores."""
    only_first: int | None = None
    """Samples that the network gets right and the other does not; None without labels."""
    only_second: int | None = None
    chance: float | None = None
    """McNemar's test: how probable a difference of at least this size is if both are equally good."""
    outputs: tuple[OutputError, ...]


class Evaluation(BaseModel):
    """What ``pcc eval --json`` prints."""

    network: str
    where: str
    data: str
    samples: int
    labelled: bool
    accuracy: Accuracy | None
    """None without labels."""
    against: Comparison | None = None


def evaluate(
    network: Network,
    samples: Samples,
    against: Network | None = None,
    samples_against: Samples | None = None,
    watch: Watch = quiet,
) -> Evaluation:
    """Runs ``network`` on all samples, and ``against`` on the same, or on ``samples_against``, the same as that network
    sees them. `PccError` where nothing can be said: no class scores, or no labels, and no other network."""
    tally, other = _Tally(), _Tally()
    pair = _Pair()
    if against is None:
        batches = ((batch, None) for batch in samples.batches(network.batch))
    else:
        size = max(network.batch, against.batch)
        second = (samples_against or samples).batches(size)
        batches = zip(samples.batches(size), second, strict=True)
    done = 0
    for (x, labels), batch in batches:
        outputs = _in_parts(network, x)
        if against is None and labels is None:
            raise PccError(
                f"{samples.name} has no labels: give --against MODEL|PACKAGE to compare with another network"
            )
        tally.add(network, outputs, labels)
        if against is not None and batch is not None:
            expected = _in_parts(against, batch[0])
            other.add(against, expected, batch[1])
            pair.add(network, outputs, against, expected, labels)
        done += len(x)
        watch(f"{done} of {samples.count}", done / samples.count)
    if against is None and not tally.classifies:
        raise PccError(f"{network.name} gives no class scores (N x classes): give --against MODEL|PACKAGE")
    return Evaluation(
        network=network.name,
        where=network.where,
        data=samples.name,
        samples=samples.count,
        labelled=tally.labelled,
        accuracy=tally.accuracy(),
        against=None if against is None else pair.comparison(against, other.accuracy()),
    )


def _in_parts(network: Network, x: np.ndarray) -> list[np.ndarray]:
    """A network's outputs for inputs that may be more than its batch."""
    parts = [network(x[begin : begin + network.batch]) for begin in range(0, len(x), network.batch)]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def class_scores(outputs: list[np.ndarray]) -> np.ndarray | None:
    """The first output, if it is class scores: (N, classes), or such with dimensions of 1 behind. None if not."""
    scores = outputs[0]
    if scores.ndim < 2 or any(size != 1 for size in scores.shape[2:]) or scores.shape[1] < 2:
        return None
    return scores.reshape(scores.shape[:2])


def are_probabilities(scores: np.ndarray) -> bool:
    """Whether scores, (N, classes), are what softmax makes of others."""
    return bool((scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3))


def _scores(network: Network, outputs: list[np.ndarray]) -> np.ndarray | None:
    """`class_scores`; `PccError` where there is no best class."""
    scores = class_scores(outputs)
    if scores is not None and np.isnan(scores).any():
        raise PccError(f"{network.name} gives scores that are not numbers (NaN)")
    return scores


@dataclass
class _Tally:
    """Counts over the batches so far."""

    count: int = 0
    right: int = 0
    right_in_five: int = 0
    losses: float = 0.0
    """Of scores; and of the same numbers as the probabilities that they may be..."""
    losses_of_probabilities: float = 0.0
    are_probabilities: bool = True
    """...if they are in all batches."""
    classes: int = 0
    classifies: bool = False
    labelled: bool = False

    def add(self, network: Network, outputs: list[np.ndarray], labels: np.ndarray | None) -> None:
        scores = _scores(network, outputs)
        self.classifies, self.labelled = scores is not None, labels is not None
        if scores is None or labels is None:
            return
        self.classes = scores.shape[1]
        if labels.min() < 0 or labels.max() >= self.classes:
            unknown = labels.min() if labels.min() < 0 else labels.max()
            raise PccError(
                f"the samples have a class {unknown}, and {network.name} tells {self.classes} classes apart (0 to "
                f"{self.classes - 1})"
            )
        order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        self.count += len(labels)
        self.right += int((order[:, 0] == labels).sum())
        self.right_in_five += int((order == labels[:, None]).any(axis=1).sum())
        at_labels = np.arange(len(labels)), labels
        wide = scores.astype(np.float64)
        self.losses -= float(log_softmax(wide, axis=1)[at_labels].sum())
        self.are_probabilities &= are_probabilities(wide)
        if self.are_probabilities:
            self.losses_of_probabilities -= float(np.log(np.maximum(wide[at_labels], TINY)).sum())

    def accuracy(self) -> Accuracy | None:
        if not self.count:
            return None
        five = share_of(self.right_in_five, self.count) if self.classes > 5 else None
        losses = self.losses_of_probabilities if self.are_probabilities else self.losses
        return Accuracy(top1=share_of(self.right, self.count), top5=five, loss=losses / self.count)


@dataclass
class _Pair:
    """What two networks do on the same batches so far."""

    count: int = 0
    same: int = 0
    only_first: int = 0
    only_second: int = 0
    labelled: bool = False
    classifies: bool = False
    sums: dict[str, list[float]] = field(default_factory=dict)
    """By output: the largest difference, the largest value, and the sums of both squared."""

    def add(
        self,
        network: Network,
        outputs: list[np.ndarray],
        against: Network,
        expected: list[np.ndarray],
        labels: np.ndarray | None,
    ) -> None:
        self._add_errors(network, outputs, against, expected)
        first, second = _scores(network, outputs), _scores(against, expected)
        self.classifies = first is not None and second is not None
        if first is None or second is None:
            return
        best, other = first.argmax(axis=1), second.argmax(axis=1)
        self.count += len(best)
        self.same += int((best == other).sum())
        if labels is not None:
            self.labelled = True
            self.only_first += int(((best == labels) & (other != labels)).sum())
            self.only_second += int(((best != labels) & (other == labels)).sum())

    def _add_errors(
        self, network: Network, outputs: list[np.ndarray], against: Network, expected: list[np.ndarray]
    ) -> None:
        shapes = [[result.shape[1:] for result in results] for results in (outputs, expected)]
        if shapes[0] != shapes[1]:
            raise PccError(
                f"{network.name} gives {_shapes(shapes[0])} for an image, {against.name} gives {_shapes(shapes[1])}: "
                "they cannot be compared"
            )
        for name, result, wanted in zip(network.outputs, outputs, expected, strict=True):
            difference, value = np.abs(result.astype(np.float64) - wanted), np.abs(wanted.astype(np.float64))
            sums = self.sums.setdefault(name, [0.0, 0.0, 0.0, 0.0])
            sums[0], sums[1] = np.maximum(sums[:2], (difference.max(), value.max())).tolist()  # NaN stays NaN
            sums[2], sums[3] = sums[2] + (difference**2).sum(), sums[3] + (value**2).sum()

    def comparison(self, against: Network, accuracy: Accuracy | None) -> Comparison:
        errors = tuple(
            OutputError(name=name, largest=_ratio(far, most), rms=_ratio(squares, of) ** 0.5)
            for name, (far, most, squares, of) in self.sums.items()
        )
        compared = Comparison(
            network=against.name,
            where=against.where,
            accuracy=accuracy,
            agreement=share_of(self.same, self.count) if self.classifies else None,
            outputs=errors,
        )
        if not self.labelled:
            return compared
        chance = chance_of_difference(self.only_first, self.only_second)
        return compared.model_copy(
            update={"only_first": self.only_first, "only_second": self.only_second, "chance": chance}
        )


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float(part != 0)


def _shapes(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join("x".join(map(str, shape)) or "a number" for shape in shapes)

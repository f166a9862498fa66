"""Accuracy, agreement and errors of outputs against what the networks were made to give."""

import numpy as np
import pytest
import torch
from torch import nn

from pcc.errors import PccError
from pcc.evaluate.evaluate import evaluate
from pcc.evaluate.network import Network, of_module
from pcc.evaluate.samples import Samples

CLASSES = 7
SHAPE = (CLASSES, 1, 1)


class Scores(nn.Module):
    """The input is the scores."""

    def __init__(self, factor: float = 1.0, shift: int = 0) -> None:
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x.flatten(1).roll(self.shift, 1)


def network(module: nn.Module, name: str = "net") -> Network:
    return of_module(name, module, [(1, *SHAPE)])


def samples(scores: np.ndarray, labels: np.ndarray | None) -> Samples:
    def read(begin: int, end: int) -> tuple[np.ndarray, np.ndarray | None]:
        return scores[begin:end].reshape(-1, *SHAPE), None if labels is None else labels[begin:end]

    return Samples("made up", len(scores), read)


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((101, CLASSES)).astype(np.float32)


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, CLASSES, 101)


def test_accuracy_and_loss(scores: np.ndarray, labels: np.ndarray) -> None:
    seen = []
    result = evaluate(network(Scores()), samples(scores, labels), watch=lambda what, done: seen.append(done))
    order = np.argsort(-scores, axis=1)
    assert result.accuracy is not None
    assert result.accuracy.top5 is not None
    assert result.accuracy.top1.right == (order[:, 0] == labels).sum()
    assert result.accuracy.top5.right == (order[:, :5] == labels[:, None]).any(axis=1).sum()
    expected = nn.functional.cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels))
    assert result.accuracy.loss == pytest.approx(float(expected))
    assert (result.samples, result.labelled, result.against) == (101, True, None)
    assert seen == [32 / 101, 64 / 101, 96 / 101, 1]


def test_the_loss_of_probabilities_is_theirs(scores: np.ndarray, labels: np.ndarray) -> None:
    networks = [network(module) for module in (Scores(), nn.Sequential(Scores(), nn.Softmax(1)))]
    logits, probabilities = (evaluate(each, samples(scores, labels)).accuracy for each in networks)
    assert logits is not None
    assert probabilities is not None
    assert probabilities.loss == pytest.approx(logits.loss, rel=1e-5)


@pytest.mark.parametrize("batch", [slice(0, 32), slice(96, 101)], ids=["the first", "the last"])
def test_scores_of_some_batches_may_look_like_probabilities(
    scores: np.ndarray, labels: np.ndarray, batch: slice
) -> None:
    scores[batch] = np.eye(CLASSES, dtype=np.float32)[0]
    found = evaluate(network(Scores()), samples(scores, labels)).accuracy
    assert found is not None
    expected = nn.functional.cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels))
    assert found.loss == pytest.approx(float(expected))


def test_scores_that_sum_to_one_may_be_negative(scores: np.ndarray, labels: np.ndarray) -> None:
    scores += (1 - scores.sum(axis=1, keepdims=True)) / CLASSES
    found = evaluate(network(Scores()), samples(scores, labels)).accuracy
    assert found is not None
    expected = nn.functional.cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels))
    assert found.loss == pytest.approx(float(expected))


def test_against_another(scores: np.ndarray, labels: np.ndarray) -> None:
    result = evaluate(network(Scores(2.0)), samples(scores, labels), network(Scores(shift=1), "other")).against
    assert result is not None
    assert result.agreement is not None
    best, other = scores.argmax(axis=1), np.roll(scores, 1, 1).argmax(axis=1)
    assert result.agreement.right == (best == other).sum() == 0
    assert result.only_first == (best == labels).sum()
    assert result.only_second == (other == labels).sum()
    assert result.chance is not None
    (output,) = result.outputs
    difference = 2 * scores - np.roll(scores, 1, 1)
    assert output.largest == pytest.approx(np.abs(difference).max() / np.abs(scores).max(), rel=1e-6)
    assert output.rms == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(scores), rel=1e-6)


def test_each_sees_the_samples_in_its_own_way(scores: np.ndarray, labels: np.ndarray) -> None:
    other = network(Scores(-1.0), "other")
    found = [
        evaluate(network(Scores()), samples(scores, labels), other, seen).against
        for seen in (None, samples(-scores, labels))
    ]
    assert [each and each.agreement and each.agreement.right for each in found] == [0, 101]


@pytest.mark.parametrize(("classes", "has_five"), [(5, False), (6, True)])
def test_the_best_five_of_five_say_nothing(
    scores: np.ndarray, labels: np.ndarray, classes: int, has_five: bool
) -> None:
    net = of_module("net", Scores(), [(1, classes, 1, 1)])
    some = Samples("made up", 9, lambda begin, end: (scores[begin:end, :classes, None, None], labels[begin:end] % 5))
    found = evaluate(net, some).accuracy
    assert found is not None
    assert (found.top5 is not None) == has_five


def test_without_labels_there_is_agreement_alone(scores: np.ndarray) -> None:
    result = evaluate(network(Scores()), samples(scores, None), network(Scores(1.5)))
    assert (result.accuracy, result.labelled) == (None, False)
    assert result.against is not None
    assert result.against.agreement is not None
    assert (result.against.agreement.share, result.against.chance) == (1, None)
    assert result.against.outputs[0].rms == pytest.approx(1 / 3)
    with pytest.raises(PccError, match="no labels: give --against"):
        evaluate(network(Scores()), samples(scores, None))


def test_outputs_that_are_no_class_scores(scores: np.ndarray, labels: np.ndarray) -> None:
    class Boxes(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, object]:
            return {"boxes": x.expand(-1, -1, 4, 2), "scores": (x.flatten(1).sigmoid(), x.amax((1, 2, 3)))}

    result = evaluate(network(Boxes()), samples(scores, labels), network(Boxes(), "other")).against
    assert result is not None
    assert result.agreement is None
    assert [(output.largest, output.rms) for output in result.outputs] == [(0, 0)] * 3
    with pytest.raises(PccError, match="no class scores"):
        evaluate(network(Boxes()), samples(scores, labels))
    with pytest.raises(PccError, match="cannot be compared"):
        evaluate(network(Boxes()), samples(scores, labels), network(Scores()))


def test_an_output_that_is_not_a_number_is_no_small_error(scores: np.ndarray) -> None:
    rows = nn.Unflatten(1, (1, CLASSES))  # no class scores
    other = network(nn.Sequential(Scores(), rows), "other")
    result = evaluate(network(nn.Sequential(Scores(float("nan")), rows)), samples(scores, None), other).against
    assert result is not None
    assert np.isnan([result.outputs[0].largest, result.outputs[0].rms]).all()


def test_what_is_refused(scores: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(PccError, match="a class 7, and net tells 7"):
        evaluate(network(Scores()), samples(scores, labels + 7 - labels.max()))
    with pytest.raises(PccError, match="a class -1, and net tells 7"):
        evaluate(network(Scores()), samples(scores, labels - 1 - labels.min()))
    for labelled, nan in ((labels, network(Scores(float("nan")))), (None, network(Scores()))):
        with pytest.raises(PccError, match=r"net gives scores that are not numbers \(NaN\)"):
            evaluate(nan, samples(scores, labelled), network(Scores(float("nan"))))
    with pytest.raises(PccError, match="networks of one image input"):
        of_module("net", Scores(), [(1, 3, 4, 4), (1, 3)])
    bytes_only = of_module("net", Scores(), [(1, *SHAPE)], dtype=torch.uint8)
    with pytest.raises(PccError, match=r"net takes whole numbers \(uint8\), and the samples are normalised"):
        evaluate(bytes_only, samples(scores, labels))
    evaluate(bytes_only, samples(np.arange(101 * CLASSES, dtype=np.float32).reshape(101, -1) % 256, labels))
    with pytest.raises(PccError, match="one row for each image"):
        evaluate(network(nn.Flatten(0)), samples(scores, labels), network(nn.Flatten(0)))

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.errors import PccError
from pcc.sparsity.unstructured import Unstructured
from pcc.training.methods.budget import most_probable, onto_budget, spanned
from tests.training.methods.loop import net

scores = st.lists(st.floats(-2, 3, width=32), min_size=1, max_size=12)


def exact(values: list[float], total: float) -> np.ndarray:
    """The sum is a falling line between the places where some entry reaches 0 or 1: the v that meets it by
    interpolation."""
    array = np.array(values)
    shifted = lambda v: np.clip(array - v, 0, 1)  # noqa: E731
    if shifted(0).sum() <= total:
        return shifted(0)
    places = np.sort(np.unique(np.concatenate([[0.0], array, array - 1])).clip(min=0))
    sums = np.array([shifted(v).sum() for v in places])
    after = int(np.flatnonzero(sums <= total)[0])
    part = (sums[after - 1] - total) / (sums[after - 1] - sums[after])
    return shifted(places[after - 1] + part * (places[after] - places[after - 1]))


@settings(max_examples=40)
@given(scores, st.floats(0, 1))
def test_bisection_against_the_exact_solution(values: list[float], part: float) -> None:
    total = part * len(values)
    found = onto_budget(torch.tensor(values), total)
    assert float(found.double().sum()) <= total + 1e-6 * len(values)
    assert np.allclose(found.numpy(), exact(values, total), rtol=0, atol=1e-6)
    assert torch.allclose(onto_budget(found, total), found, rtol=0, atol=1e-6)


@settings(max_examples=20)
@given(scores, st.floats(0.1, 1), st.integers(0, 1000))
def test_no_feasible_point_is_nearer(values: list[float], part: float, seed: int) -> None:
    total = part * len(values)
    wanted = np.array(values)
    distance = np.linalg.norm(onto_budget(torch.tensor(values), total).numpy() - wanted)
    for other in np.random.default_rng(seed).random((50, len(values))):
        feasible = other * min(1, total / other.sum())
        assert np.linalg.norm(feasible - wanted) >= distance - 1e-5


def test_the_most_probable_are_kept_and_something_of_each_layer() -> None:
    layers = np.array([0, 0, 0, 1, 1, 2])
    found = np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.0])
    assert np.flatnonzero(most_probable(found, layers, 3)).tolist() == [0, 4, 5]
    assert np.flatnonzero(most_probable(found, layers, 4)).tolist() == [0, 1, 4, 5]
    assert most_probable(np.array([0.5, 0.0, 0.0]), np.zeros(3, dtype=int), 2).tolist() == [True, False, False]
    with pytest.raises(PccError, match="a budget of 2 does not leave something of each of 3 layers"):
        most_probable(found, layers, 2)


def test_the_budget_spans_all_but_the_last_and_dense_layers() -> None:
    assert list(spanned(net(), {}, "vrpge", (1, 8, 8))) == ["conv1", "conv2", "fc1"]
    assert list(spanned(net(), {"conv1": None}, "vrpge", (1, 8, 8))) == ["conv2", "fc1"]
    with pytest.raises(
        PccError, match="vrpge: one rate is for all layers together, 'conv1' has no structure of its own"
    ):
        spanned(net(), {"conv1": Unstructured(2)}, "vrpge", (1, 8, 8))
    with pytest.raises(PccError, match="no layer is left"):
        spanned(net(), {"@all": None}, "vrpge", (1, 8, 8))
    with pytest.raises(PccError, match="is called 'conv3'"):
        spanned(net(), {"conv3": None}, "vrpge", (1, 8, 8))

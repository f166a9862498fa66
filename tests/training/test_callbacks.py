"""Methods in loops of a person's own: a plain one, and one that a framework owns and that only calls hooks."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pcc.training
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.unstructured import Unstructured
from pcc.training.method import Method
from tests.training.methods.loop import data, net

STRUCTURES = {"@conv3x3": Kernels("designed", 1.5), "fc1": Unstructured(4)}
EPOCHS = 3


def loader(epoch: int) -> list[tuple[Tensor, Tensor]]:
    return list(data().batches(epoch, 48, seed=0))


class Framework:
    """Owns the loop as Lightning does: the person gives hooks and a loss, backward and steps are not theirs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def fit(
        self,
        optimizer: torch.optim.Optimizer,
        training_step: Callable[[Tensor, Tensor], Tensor],
        hooks: dict[str, Callable[[], None]],
    ) -> None:
        hooks["on_train_start"]()
        for epoch in range(self.epochs):
            for x, y in loader(epoch):
                loss = training_step(x, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                hooks["after_step"]()
            hooks["on_train_epoch_end"]()
        hooks["on_train_end"]()


def plain(model: nn.Module) -> None:
    method = pcc.training.Admm(model, STRUCTURES, epochs=EPOCHS, rhos=(0.01, 0.1))
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05)
    for epoch in method:
        for x, y in loader(epoch):
            optimizer.zero_grad()
            method.backward(lambda x=x, y=y: F.cross_entropy(model(x), y))
            optimizer.step()
            method.after_step()


def framework(model: nn.Module) -> None:
    method = pcc.training.Admm(model, STRUCTURES, epochs=EPOCHS, rhos=(0.01, 0.1))
    hooks = {
        "on_train_start": method.begin,
        "after_step": method.after_step,
        "on_train_epoch_end": method.end_epoch,
        "on_train_end": method.finish,
    }
    Framework(EPOCHS).fit(
        torch.optim.SGD(method.parameters(), lr=0.05),
        lambda x, y: F.cross_entropy(model(x), y) + method.penalty(),
        hooks,
    )


def zeros(model: nn.Module) -> dict[str, int]:
    return {
        name: int((value == 0).sum())
        for name, value in model.named_parameters()
        if name in ("conv1.weight", "conv2.weight", "fc1.weight")
    }


def test_both_loops_prune_alike() -> None:
    first, second = net(), net()
    plain(first)
    framework(second)
    assert zeros(first) == {"conv1.weight": 72 - 5 * 4, "conv2.weight": 864 - 64 * 4, "fc1.weight": 768 - 192}
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, msg=name)


def test_masked_retraining_goes_on_from_the_zeros() -> None:
    model = net()
    for _ in pcc.training.OneShot(model, STRUCTURES):
        raise AssertionError("one-shot needs no epoch")
    before, weights = zeros(model), copy.deepcopy(model.state_dict())
    method = pcc.training.Train(model, {}, epochs=1)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for epoch in method:
        for x, y in loader(epoch):
            optimizer.zero_grad()
            loss = method.backward(lambda x=x, y=y: F.cross_entropy(model(x), y))
            assert not loss.requires_grad
            optimizer.step()
            method.after_step()
    assert zeros(model) == before
    assert not torch.equal(model.state_dict()["fc1.weight"], weights["fc1.weight"])


def test_epochs_that_are_left() -> None:
    method = pcc.training.Train(net(), {}, epochs=4)
    method.epoch = 2
    assert list(method) == [2, 3]
    assert method.epoch == 4


def test_methods_are_found_by_their_class_names() -> None:
    assert {"Admm", "OneShot", "Train"} <= set(dir(pcc.training))
    assert issubclass(pcc.training.Admm, Method)
    with pytest.raises(AttributeError, match="no attribute 'Adam'"):
        _ = pcc.training.Adam

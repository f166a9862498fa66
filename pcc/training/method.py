"""A method is one stage of compression on one model: what it adds to the loss, what it does after a step and after an
epoch.

It fits a loop of your own and does not take it over::

    method = Admm(model, {"@conv3x3": Kernels("designed", 3.6)}, epochs=12)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.01)
    for epoch in method:
        for x, y in loader:
            optimizer.zero_grad()
            method.backward(lambda: criterion(model(x), y))
            optimizer.step()
            method.after_step()

After the loop the model is pruned. A loop that is left early calls ``method.finish()`` itself.

Where a framework owns the loop and the backward pass (Lightning, Hugging Face's Trainer), its hooks call the parts, and
the loss gets the penalty::

    on_train_start:         method.begin()
    training_step:          return criterion(model(x), y) + method.penalty()
    after optimizer.step(): method.after_step()
    on_train_epoch_end:     method.end_epoch()
    on_train_end:           method.finish()

Methods that draw several samples a step, and `Cluster`, which changes gradients, need `backward`. A method with losses
of its own on the labels (`Dcp`) is shown each batch by ``take(x, y)`` before the model sees it. Parameters of its own
are there once it is made, so ``method.parameters()`` is what the optimizer takes.

To go on after an interruption: the method is made on the weights that it was made on the first time, then the saved
states are loaded, the model's, the method's (``method.epoch = ...; method.load_state_dict(...)``, in place of
``begin()``) and the optimizer's. In a distributed run every process makes the same method on the same weights from the
same seed; what a method takes from its share of the data it averages.

What one stage hands to the next is the weights: a weight that is exactly zero is pruned and stays so, unless a method
says otherwise.
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import distributed, nn
from torch.nn.modules.conv import _ConvNd

from pcc.errors import PccError
from pcc.training.layers import Layer, Structures, bind


class Method:
    """Base of all methods. ``epochs`` may be 0 for methods that need no training."""

    name: ClassVar[str]
    """Its key in recipes."""

    uses: ClassVar[tuple[str, ...]] = ()
    """What the trainer passes by keyword beside the model and the structures: ``data`` (`pcc.training.data.Data`),
    ``seed`` (int)."""

    def __init__(self, model: nn.Module, structures: Structures, epochs: int) -> None:
        if epochs < 0:
            raise PccError(f"{self.name}: epochs is {epochs}")
        self.model = model
        self.epochs = epochs
        self.epoch = 0
        """Epochs that are over."""
        self.layers: list[Layer] = bind(model, structures)

    def __iter__(self) -> Iterator[int]:
        """The number of each epoch that is left; what belongs before the first and after each happens here."""
        if self.epoch == 0:
            self.begin()
        while self.epoch < self.epochs:
            yield self.epoch
            self.end_epoch()
        self.finish()

    def begin(self) -> None:
        """Before the first epoch; not called when a run resumes, `load_state_dict` is."""

    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer trains; a method may have its own beside the model's."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def take(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """The batch that comes next, before the model sees it: for methods with losses of their own on its labels."""

    def penalty(self) -> torch.Tensor | float:
        """What is added to the loss."""
        return 0.0

    def backward(self, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Fills the gradients for one batch and gives its loss, detached and without the penalty. ``compute`` runs the
        model and gives the loss."""
        loss = compute()
        (loss + self.penalty()).backward()
        return loss.detach()

    def after_step(self) -> None:
        """After the optimizer's step."""

    def end_epoch(self) -> None:
        """After an epoch. Methods override `update`."""
        self.epoch += 1
        self.update()

    def update(self) -> None:
        """What happens between epochs; ``self.epoch`` counts those that are over."""

    def finish(self) -> None:
        """After the last epoch: the model is a plain module again and its weights have what the method promises."""

    @property
    def ends_changed(self) -> bool:
        """Whether `finish` changes what the model computes, so that its accuracy is measured again."""
        return True

    def metrics(self) -> dict[str, float]:
        """What the log shows beside loss and accuracy: rho, distances to the set, ..."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and texts by name: what a resumed run needs beside the model's state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a saved state; called in place of `begin`."""


class Masks:
    """Weights that are zero now and stay zero: of all convolutions, depthwise and transposed ones too, and linear
    layers."""

    def __init__(self, model: nn.Module) -> None:
        self.kept = {
            name: (module.weight, module.weight.detach() != 0)
            for name, module in model.named_modules()
            if isinstance(module, _ConvNd | nn.Linear) and not bool((module.weight.detach() != 0).all())
        }

    @torch.no_grad()
    def apply(self) -> None:
        for weight, kept in self.kept.values():
            weight.mul_(kept)


def average(tensor: torch.Tensor) -> torch.Tensor:
    """The mean over all processes of a distributed run, in place; the tensor itself where there is one process."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(tensor)
        tensor /= distributed.get_world_size()
    return tensor

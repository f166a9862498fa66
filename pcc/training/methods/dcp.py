"""Discrimination-aware channel pruning (Zhuang, Tan, Zhuang, Liu, Guo, Wu, Huang, Zhu, "Discrimination-aware Channel
Pruning for Deep Neural Networks", NeurIPS 2018).

P classifiers on feature maps inside the network, evenly spread, cut it into P + 1 parts; L_S^p is the cross-entropy of
classifier p, which sees AvgPool(ReLU(BN(O_p))), and of the network itself for the last part. The steps of the paper:

* Algorithm 1: for each part, the network is fine-tuned on its own loss + L_S^p (an equal share of the epochs), then
  Algorithm 2 prunes the part's layers;
* Algorithm 2, for a layer: from no input channel at all, again and again the channel is taken whose weights have the
  largest gradient of
  L = L_M + weight * L_S^p, and the weights of all channels taken are trained for some steps. L_M is half the mean
  squared distance of the layer's output from what it was. It ends at the budget, or (DCP-Adapt) when a channel changes
  L by no more than epsilon of what it was without channels.

Where we depart from it:

* Channels are taken ``rounds`` times, in equal portions, not one by one; gradients and losses are those of a few
  batches, the same for all layers of a part,
  and batch norms keep their statistics meanwhile.
* "What it was" is what the network, fine-tuned, gave before any layer of the part was pruned.
* Classifiers of parts whose turn has not come learn beside, without a say in the features: theta is learnt when it is
  needed.
* A channel that is not taken becomes zero in the layer that reads it; when no reader is left, so does the filter that
  makes it (`wiring`).

The layers are all convolutions but those that read the network's input, and depthwise ones. Structures that a recipe
gives are ignored: the budget is the ``rate``. Zeros that are there already stay. Fine-tuning of the pruned network is a
stage of its own, `Train`.
"""

import itertools
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import distributed, nn
from torch.func import functional_call

from pcc.errors import PccError
from pcc.sparsity.budget import budget
from pcc.training.data import Batch, Data
from pcc.training.layers import Structures, groups_of
from pcc.training.method import Masks, Method, average
from pcc.training.methods.wiring import Wiring, connection_norms, per_channel, per_connection, per_weight

HEAD = "dcp_classifier"
"""Where a classifier lies in the convolution whose output it sees, while the stage runs."""
EPOCHS = 1_000_000
"""Data epochs from here on are those of the selection's batches."""


class Dcp(Method):
    """Prunes input channels that do not help to tell classes apart.

    ``rate``: channels of a layer for each that stays, at least; ``epsilon``: where DCP-Adapt ends (0.001 in the paper),
    None to spend the whole budget; ``losses``: P; ``weight``: of L_S; ``rounds``: portions of channels in a layer;
    ``batches`` of ``batch`` samples are what channels are chosen on, with ``steps`` steps of SGD at ``lr`` after each
    round.
    """

    name: ClassVar[str] = "dcp"
    uses: ClassVar[tuple[str, ...]] = ("data", "seed")

    def __init__(
        self,
        model: nn.Module,
        structures: Structures,
        epochs: int,
        *,
        data: Data,
        seed: int,
        rate: float = 2.0,
        epsilon: float | None = None,
        losses: int = 2,
        weight: float = 1.0,
        rounds: int = 8,
        batches: int = 4,
        batch: int = 128,
        steps: int = 4,
        lr: float = 0.01,
    ) -> None:
        super().__init__(model, structures, epochs)
        self.wiring = Wiring(model, data.input_shape)
        convolutions = [name for name in self.wiring.nodes if isinstance(model.get_submodule(name), nn.Conv2d)]
        if not 0 <= losses < len(convolutions):
            raise PccError(
                f"dcp: {losses} losses inside {type(model).__name__}, which has {len(convolutions)} convolutions; give "
                f"0 to {len(convolutions) - 1}"
            )
        if epochs < losses + 1:
            raise PccError(
                f"dcp: {losses} losses make {losses + 1} parts, each fine-tuned before it is pruned; give {losses + 1} "
                f"epochs or more, not {epochs}"
            )
        if (
            min(rounds, batches, batch) < 1
            or steps < 0
            or weight < 0
            or lr <= 0
            or (epsilon is not None and epsilon < 0)
        ):
            raise PccError(
                "dcp: rounds, batches and batch are 1 or more, lr is above 0, steps, weight and epsilon are 0 or more"
            )
        budget(1, rate)
        self.data, self.seed = data, seed
        self.rate, self.epsilon, self.weight = rate, epsilon, weight
        self.rounds, self.batches, self.batch, self.steps, self.lr = rounds, batches, batch, steps, lr
        self._batches()  # refuses, before anything is trained, a batch that the processes cannot share
        ends = [part * len(convolutions) // (losses + 1) for part in range(losses + 2)]
        self.parts = [
            [name for name in convolutions[a:b] if not self.wiring.reads_input(name)]
            for a, b in itertools.pairwise(ends)
        ]
        """Layers that are pruned, by part."""
        for name in itertools.chain(*self.parts):
            if not model.get_submodule(name).get_parameter("weight").requires_grad:
                raise PccError(f"dcp: layer {name} is frozen, and what it keeps is trained: let it require gradients")
        self.masks = Masks(model)
        self.features: list[torch.Tensor] = [torch.empty(0)] * losses
        self.labels: torch.Tensor | None = None
        self.places = [model.get_submodule(convolutions[end - 1]) for end in ends[1:-1]]
        """What the classifiers look at."""
        self.heads = [_classifier(place, data.classes) for place in self.places]
        self.hooks = [
            place.register_forward_hook(partial(self._observe, number)) for number, place in enumerate(self.places)
        ]
        for place, head in zip(self.places, self.heads, strict=True):
            place.add_module(HEAD, head)

    @property
    def part(self) -> int:
        """The part that the epoch which runs fine-tunes."""
        return min(self.epoch, self.epochs - 1) * len(self.parts) // self.epochs

    def take(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.labels = y

    def penalty(self) -> torch.Tensor | float:
        """L_S^p; nothing in the last part, where it is the network's own loss."""
        if not self.heads:
            return 0.0
        if self.labels is None:
            raise PccError("dcp: the classifiers need the labels: call take(x, y) before each batch")
        losses = []
        for number, head in enumerate(self.heads):
            features = self.features[number].float()
            losses.append(F.cross_entropy(head(features if number == self.part else features.detach()), self.labels))
        self.labels = None
        return torch.stack(losses).sum()

    def after_step(self) -> None:
        self.masks.apply()

    def update(self) -> None:
        ended = (self.epoch - 1) * len(self.parts) // self.epochs
        if self.epoch == self.epochs or ended != self.part:
            self._prune(ended)
            self.masks = Masks(self.model)

    @torch.no_grad()
    def finish(self) -> None:
        for hook in self.hooks:
            hook.remove()
        for place in self.places:
            delattr(place, HEAD)
        # From the end: a filter that goes reads nothing any more.
        for source in reversed(self.wiring.sources.values()):
            source.silence(source.unread())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.masks = Masks(self.model)

    def _observe(self, number: int, module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        self.features[number] = output
        return output.clone()  # an activation behind may work in place

    def _prune(self, part: int) -> None:
        """Algorithm 2 on each layer of a part, on the same batches."""
        samples = self._samples()
        dense = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        with evaluating(self.model):
            for name in self.parts[part]:
                Selection(self, part, name, dense, samples).run()

    def _samples(self) -> list[Batch]:
        """The batches on which channels are chosen."""
        device = next(self.model.parameters()).device
        return [(x.to(device), y.to(device)) for x, y in itertools.islice(self._batches(), self.batches)]

    def _batches(self) -> Iterator[Batch]:
        """Of several processes each has its share."""
        joined = distributed.is_available() and distributed.is_initialized()
        rank, ranks = (distributed.get_rank(), distributed.get_world_size()) if joined else (0, 1)
        size = min(self.batch, self.data.train_size)
        return self.data.batches(EPOCHS + self.epoch, size, seed=self.seed, rank=rank, ranks=ranks)


class Selection:
    """Algorithm 2 on one layer."""

    def __init__(self, method: Dcp, part: int, name: str, dense: dict[str, torch.Tensor], samples: list[Batch]) -> None:
        self.method, self.part, self.samples = method, part, samples
        module = method.model.get_submodule(name)
        assert isinstance(module, nn.Conv2d)
        self.module, self.weight, self.start = module, module.weight, module.weight.detach().clone()
        self.there = self.start != 0
        """Weights that earlier pruning left."""
        self.outputs: list[torch.Tensor] = []
        with torch.no_grad(), self._output():
            self.before = [self._forward(x, dense) for x, _ in samples]
        """The layer's output on each batch, before any layer of the part was pruned."""

    @torch.no_grad()
    def run(self) -> None:
        method, channels = self.method, self.module.in_channels
        keep = budget(channels, method.rate)
        portion = -(-keep // method.rounds)
        optimizer = torch.optim.SGD([self.weight], lr=method.lr, momentum=0.9)
        chosen = torch.zeros(channels, dtype=torch.bool, device=self.weight.device)
        self.weight.zero_()
        with self._output():
            gradient, loss = self._gradient(self.samples)
            without = loss
            while (count := int(chosen.sum())) < keep:
                norms = per_channel(
                    connection_norms(gradient, self.weight.shape[1]), groups_of(self.module)
                ).masked_fill(chosen, -1)
                new = torch.zeros_like(chosen)
                new[norms.argsort(descending=True, stable=True)[: min(portion, keep - count)]] = True
                chosen |= new
                # They begin with the weights they had.
                self.weight.copy_(torch.where(self._weights(new), self.start, self.weight))
                self._descend(optimizer, chosen)
                before = loss
                gradient, loss = self._gradient(self.samples)
                if method.epsilon is not None and abs(before - loss) <= method.epsilon * without:
                    break

    def _descend(self, optimizer: torch.optim.Optimizer, chosen: torch.Tensor) -> None:
        """SGD on the weights of the chosen channels."""
        trained = self._weights(chosen) & self.there
        for step in range(self.method.steps):
            number = step % len(self.samples)
            self.weight.grad = self._gradient(self.samples[number : number + 1], number)[0] * trained
            optimizer.step()
        self.weight.grad = None

    def _weights(self, channels: torch.Tensor) -> torch.Tensor:
        return per_weight(per_connection(channels, len(self.weight), groups_of(self.module)), self.weight)

    def _gradient(self, samples: list[Batch], first: int = 0) -> tuple[torch.Tensor, float]:
        """dL/dW of the weights that earlier pruning left, and L, on the mean over batches and processes; ``first``:
        number of the first batch."""
        gradient, total = torch.zeros_like(self.weight), torch.zeros((), device=self.weight.device)
        for number, (x, y) in enumerate(samples, start=first):
            with torch.enable_grad():
                loss = self._loss(x, y, self.before[number])
                gradient += torch.autograd.grad(loss, self.weight)[0]
            total += loss.detach()
        return average(gradient / len(samples)) * self.there, float(average(total / len(samples)))

    def _loss(self, x: torch.Tensor, y: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """L = L_M + weight * L_S^p."""
        scores = self.method.model(x)
        if self.part < len(self.method.heads):
            scores = self.method.heads[self.part](self.method.features[self.part])
        return F.mse_loss(self.outputs[0], before) / 2 + self.method.weight * F.cross_entropy(scores, y)

    def _forward(self, x: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
        functional_call(self.method.model, state, (x,))
        return self.outputs[0]

    @contextmanager
    def _output(self) -> Generator[None]:
        """Keeps the layer's last output while it lasts."""

        def keep(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            self.outputs[:] = [output]
            return output.clone()  # as in `Dcp._observe`

        hook = self.module.register_forward_hook(keep)
        try:
            yield
        finally:
            hook.remove()
            self.outputs.clear()


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _classifier(layer: nn.Module, classes: int) -> nn.Sequential:
    """A linear classifier on AvgPool(ReLU(BN(O))) of a convolution's output O, (N, C, H, W)."""
    assert isinstance(layer, nn.Conv2d)
    head = nn.Sequential(
        nn.BatchNorm2d(layer.out_channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(layer.out_channels, classes),
    )
    return head.to(layer.weight.device)

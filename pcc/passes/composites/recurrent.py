"""Recurrent layers as loops that are written out: one linear layer for the inputs of all steps, then a small one and
some arithmetic for each."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcc.passes.canonical import CannotCompile

_aten: Any = torch.ops.aten

State = tuple[Tensor, ...]
Step = Callable[[Tensor, State, Tensor, Tensor | None], State]
"""``step(projected input, state, hidden weight, hidden bias)`` gives the next state, whose first tensor is the
output."""


def lstm_step(x: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    hidden, cell = state
    i, f, g, o = (x + F.linear(hidden, weight, bias)).chunk(4, -1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def gru_step(x: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    (hidden,) = state
    (x_r, x_z, x_n), (h_r, h_z, h_n) = x.chunk(3, -1), F.linear(hidden, weight, bias).chunk(3, -1)
    update, new = (x_z + h_z).sigmoid(), (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
    return (new + update * (hidden - new),)


def plain_step(activation: Callable[[Tensor], Tensor]) -> Step:
    return lambda x, state, weight, bias: (activation(x + F.linear(state[0], weight, bias)),)


# ---- layers ----


def _layers(
    step: Step,
    input: Tensor,
    start: State,
    params: list[Tensor],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, State]:
    """Output of the last layer, and the states after the last step (layers * directions, batch, hidden), of layers on
    top of each other."""
    if input.dim() != 3:
        output, last = _layers(
            step,
            input.unsqueeze(1),
            tuple(s.unsqueeze(1) for s in start),
            params,
            has_biases,
            num_layers,
            bidirectional,
            False,
        )
        return output.squeeze(1), tuple(s.squeeze(1) for s in last)
    x = input.transpose(0, 1) if batch_first else input
    directions = 2 if bidirectional else 1
    each = len(params) // (num_layers * directions)
    if each != (4 if has_biases else 2):
        raise CannotCompile("an LSTM with projections")
    finals: list[State] = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            place = layer * directions + direction
            weights = params[place * each : (place + 1) * each]
            states = list(_steps(step, x, tuple(s[place] for s in start), weights, backwards=direction == 1))
            outputs.append(torch.stack([state[0] for state in (reversed(states) if direction else states)]))
            finals.append(states[-1])
        x = outputs[0] if directions == 1 else torch.cat(outputs, -1)
    return x.transpose(0, 1) if batch_first else x, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))


def _steps(step: Step, x: Tensor, state: State, weights: list[Tensor], backwards: bool) -> Iterator[State]:
    """The states after each step of (steps, batch, features)."""
    of_input, of_hidden, *biases = weights
    projected = F.linear(x, of_input, biases[0] if biases else None).unbind(0)
    for row in reversed(projected) if backwards else projected:
        state = step(row, state, of_hidden, biases[1] if biases else None)
        yield state


def lstm(
    input: Tensor,
    hx: list[Tensor],
    params: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    _check(dropout, train)
    output, (hidden, cell) = _layers(
        lstm_step, input, tuple(hx), params, has_biases, num_layers, bidirectional, batch_first
    )
    return output, hidden, cell


def recurrent(step: Step) -> Callable[..., tuple[Tensor, Tensor]]:
    """A layer whose state is one tensor."""

    def function(
        input: Tensor,
        hx: Tensor,
        params: list[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, Tensor]:
        _check(dropout, train)
        output, (hidden,) = _layers(step, input, (hx,), params, has_biases, num_layers, bidirectional, batch_first)
        return output, hidden

    return function


def _check(dropout: float, train: bool) -> None:
    if dropout and train:
        raise CannotCompile("dropout in training mode")


def cell(step: Step) -> Callable[..., Any]:
    """One step of a layer."""

    def function(
        input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
    ) -> Any:
        state = step(F.linear(input, w_ih, b_ih), tuple(hx) if isinstance(hx, list | tuple) else (hx,), w_hh, b_hh)
        output, *rest = state
        return (output, *rest) if rest else output

    return function


COMPOSITES = {
    _aten.lstm.input: lstm,
    _aten.gru.input: recurrent(gru_step),
    _aten.rnn_tanh.input: recurrent(plain_step(torch.tanh)),
    _aten.rnn_relu.input: recurrent(plain_step(torch.relu)),
    _aten.lstm_cell.default: cell(lstm_step),
    _aten.gru_cell.default: cell(gru_step),
    _aten.rnn_tanh_cell.default: cell(plain_step(torch.tanh)),
    _aten.rnn_relu_cell.default: cell(plain_step(torch.relu)),
}

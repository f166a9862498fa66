"""Recurrent layers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pcc.frontend.onnx.emitter import Emitter, Refused, Value, dtype, integers, known, shape
from pcc.frontend.onnx.rule import Rule

_aten: Any = torch.ops.aten


def lstm(
    emit: Emitter,
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    lengths: Value | None = None,
    hidden: Value | None = None,
    cell: Value | None = None,
    peephole: Value | None = None,
    *,
    activations: Sequence[str] | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Value, Value, Value]:
    if input_forget or peephole is not None:
        raise Refused(
            "an LSTM with peepholes or a joint input and forget gate; PyTorch and Keras have none: export the layer "
            "without them"
        )
    _check_activations(activations, ("Sigmoid", "Tanh", "Tanh"), direction)
    return _recurrent(
        emit, _aten.lstm.input, (0, 2, 3, 1), x, w, r, b, lengths, [hidden, cell], direction, hidden_size, layout
    )  # type: ignore[return-value]


def gru(
    emit: Emitter,
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    lengths: Value | None = None,
    hidden: Value | None = None,
    *,
    activations: Sequence[str] | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Value, Value]:
    """PyTorch has the GRU that applies the reset gate after the product (``linear_before_reset``); the other is written
    out."""
    _check_activations(activations, ("Sigmoid", "Tanh"), direction)
    return _recurrent(
        emit,
        _aten.gru.input if linear_before_reset else _reset_first,
        (1, 0, 2),
        x,
        w,
        r,
        b,
        lengths,
        [hidden],
        direction,
        hidden_size,
        layout,
    )  # type: ignore[return-value]


def rnn(
    emit: Emitter,
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    lengths: Value | None = None,
    hidden: Value | None = None,
    *,
    activations: Sequence[str] | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> tuple[Value, Value]:
    kinds = {(activation or "").lower() for activation in activations or ("Tanh",)}
    if kinds not in ({"tanh"}, {"relu"}):
        raise Refused(f"activations={list(activations or ())}")
    target = _aten.rnn_tanh.input if kinds == {"tanh"} else _aten.rnn_relu.input
    return _recurrent(emit, target, (0,), x, w, r, b, lengths, [hidden], direction, hidden_size, layout)  # type: ignore[return-value]


def _reset_first(emit: Emitter, x: Value, start: Value, parameters: Sequence[Tensor]) -> tuple[Value, Value]:
    """A GRU layer that applies the reset gate before the product: x (T, N, I), start (D, N, H) give (T, N, D * H) and
    the last states (D, N, H)."""

    def add(a: Value, b: Value) -> Value:
        return emit.call(_aten.add.Tensor, a, b)

    def mul(a: Value, b: Value) -> Value:
        return emit.call(_aten.mul.Tensor, a, b)

    directions, _, hidden = shape(start)
    steps, each = shape(x)[0], len(parameters) // directions
    outputs, finals = [], []
    for direction in range(directions):
        of_input, of_state, *biases = parameters[direction * each : (direction + 1) * each]
        input_bias, state_bias = biases or (None, torch.zeros(3 * hidden, dtype=of_state.dtype))
        projected = emit.call(
            _aten.split_with_sizes.default, emit.call(_aten.linear.default, x, of_input, input_bias), [hidden] * 3, 2
        )
        gates, news = torch.split(of_state, [2 * hidden, hidden]), torch.split(state_bias, [2 * hidden, hidden])
        state, rows = emit.call(_aten.select.int, start, 0, direction), []
        for step in range(steps - 1, -1, -1) if direction else range(steps):
            row_r, row_z, row_n = (emit.call(_aten.select.int, part, 0, step) for part in projected)
            of_r, of_z = emit.call(
                _aten.split_with_sizes.default,
                emit.call(_aten.linear.default, state, gates[0], news[0]),
                [hidden, hidden],
                1,
            )
            reset, update = (
                emit.call(_aten.sigmoid.default, add(row, part)) for row, part in ((row_r, of_r), (row_z, of_z))
            )
            new = emit.call(
                _aten.tanh.default, add(row_n, emit.call(_aten.linear.default, mul(reset, state), gates[1], news[1]))
            )
            state = add(new, mul(update, emit.call(_aten.sub.Tensor, state, new)))
            rows.append(state)
        outputs.append(emit.call(_aten.stack.default, rows[::-1] if direction else rows, 0))
        finals.append(state)
    return emit.call(_aten.cat.default, outputs, 2), emit.call(_aten.stack.default, finals, 0)


def _known(value: Value) -> Tensor:
    tensor = known(value, "a weight of it is")
    assert tensor is not None
    return tensor


def _check_activations(activations: Sequence[str] | None, usual: Sequence[str], direction: str) -> None:
    count = 2 if direction == "bidirectional" else 1
    if activations and [name.lower() for name in activations] != [name.lower() for name in usual] * count:
        raise Refused(f"activations={list(activations)}")


def _check(direction: str, hidden_size: int | None, hidden: int, lengths: Value | None, steps: int) -> None:
    if direction not in ("forward", "bidirectional", "reverse"):
        raise Refused(f"direction={direction}")
    if hidden_size not in (None, hidden):
        raise Refused(f"hidden_size={hidden_size} of a weight for {hidden}")
    wanted = integers(lengths, "its sequence lengths are")
    if wanted is not None and set(wanted) != {steps}:
        raise Refused(f"sequence_lens={wanted} of {steps} steps: pcc compiles sequences of one length")


def _recurrent(
    emit: Emitter,
    target: Any,
    gates: Sequence[int],
    x: Value,
    w: Value,
    r: Value,
    b: Value | None,
    lengths: Value | None,
    states: list[Value | None],
    direction: str,
    hidden_size: int | None,
    layout: int,
) -> tuple[Value, ...]:
    """One layer of PyTorch's, in one direction or two. ``gates[i]`` is the place of PyTorch's i-th gate among ONNX's.

    x (T, N, I), or (N, T, I) with ``layout``; w (D, G*H, I), r (D, G*H, H), b (D, 2*G*H); gives (T, D, N, H) and the
    last states (D, N, H).
    """
    if layout:
        x = emit.call(_aten.transpose.int, x, 0, 1)
        states = [None if state is None else emit.call(_aten.transpose.int, state, 0, 1) for state in states]
    steps, batch = shape(x)[:2]
    weights, recurrent = _known(w), _known(r)
    directions, hidden = recurrent.shape[0], recurrent.shape[2]
    _check(direction, hidden_size, hidden, lengths, steps)
    if direction == "reverse":
        x = emit.call(_aten.flip.default, x, [0])

    def reordered(value: Tensor) -> Tensor:
        return torch.cat([value[gate * hidden : (gate + 1) * hidden] for gate in gates])

    parameters = []
    for number in range(directions):
        parameters += [reordered(weights[number]), reordered(recurrent[number])]
        if b is not None:
            both = _known(b)[number]
            parameters += [reordered(both[: len(gates) * hidden]), reordered(both[len(gates) * hidden :])]
    initial = [torch.zeros(directions, batch, hidden, dtype=dtype(x)) if state is None else state for state in states]
    options = (b is not None, 1, 0.0, False, directions == 2, False)
    start: Any = initial if len(initial) > 1 else initial[0]
    results = (
        _reset_first(emit, x, start, parameters)
        if target is _reset_first
        else emit.call(target, x, start, parameters, *options)
    )
    y = emit.call(_aten.reshape.default, results[0], [steps, batch, directions, hidden])
    if direction == "reverse":
        y = emit.call(_aten.flip.default, y, [0])
    if layout:
        return emit.call(_aten.transpose.int, y, 0, 1), *(
            emit.call(_aten.transpose.int, state, 0, 1) for state in results[1:]
        )
    return emit.call(_aten.transpose.int, y, 1, 2), *results[1:]


RULES: dict[str, Rule] = {"LSTM": lstm, "GRU": gru, "RNN": rnn}

"""How a program of one image goes through a batch: calls for one image after the other, or each call for all images at
once.

One after the other, the images share their activations' memory, which stays in the caches; at once, a call reads its
weights once for all of them. So what counts is which is more: the weights of a call, or the activations that are alive
while it runs. Convolutions on large planes take turns, the linear layers behind them do not. Measured with 8 images on
one core (AVX-512): linear layers of 34 MB take a quarter of the time at once; MobileNetV2, its last third at once,
takes 0.8 of the time that it takes all at once, and a seventh of the memory. Both run the same kernels on the same
items.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise

from pcc.codegen.plan_memory import buffer_lifetimes
from pcc.codegen.program import Program, Stage, View

NEAR_BYTES = 256 * 1024
"""Activations of a whole batch that stay in the L2 cache: then there is nothing to win by turns."""


def stage_batch(program: Program, max_batch: int) -> Program:
    """The program of one image, for batches of up to ``max_batch``: its stages, and which buffers have a place for each
    image."""
    at_once = _at_once(program, max_batch)
    stages, begin = [], 0
    for choice, calls in groupby(at_once):
        end = begin + len(list(calls))
        stages.append(Stage(begin, end, choice))
        begin = end
    staged = replace(program, max_batch=max_batch, batch_stages=tuple(stages))
    buffers = dict(program.buffers)
    for name, touched in staged.touched_stages().items():
        if len(touched) > 1 or any(stages[place].at_once for place in touched):
            buffers[name] = replace(buffers[name], images=max_batch)
    return replace(staged, buffers=buffers)


def _at_once(program: Program, max_batch: int) -> list[bool]:
    """For each call whether it is for all images at once."""
    weights, alive = [0] * len(program.calls), [0] * len(program.calls)
    for index, call in enumerate(program.calls):
        read = {value.buffer for value in call.args.values() if isinstance(value, View)}
        weights[index] = sum(program.buffers[name].nbytes for name in read if program.buffers[name].is_weight)
    for name, life in buffer_lifetimes(program).items():
        if program.buffers[name].role != "thread":
            for index in range(max(0, life.first), min(life.last + 1, len(alive))):
                alive[index] += program.buffers[name].nbytes
    chosen = [weight >= bytes or bytes * max_batch <= NEAR_BYTES for weight, bytes in zip(weights, alive, strict=True)]
    return _bridged(chosen, weights, alive)


def _bridged(chosen: Sequence[bool], weights: Sequence[int], alive: Sequence[int]) -> list[bool]:
    """Calls between two that are at once are so, too, where their activations are less than the weights of those: a
    turn costs each of them a start."""
    bridged = list(chosen)
    once = [index for index, choice in enumerate(chosen) if choice]
    for before, after in pairwise(once):
        if max(alive[before + 1 : after], default=0) <= min(weights[before], weights[after]):
            bridged[before:after] = [True] * (after - before)
    return bridged

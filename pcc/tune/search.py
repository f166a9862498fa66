"""Which schedule to measure next: Optuna's tree-structured Parzen estimator (Bergstra et al., NIPS 2011) over what
families offer for a layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from math import log

import optuna
from optuna.trial import Trial as Asked
from optuna.trial import TrialState

from pcc.codegen.select_kernels import Priced

MOST_REPEATS = 20
"""How often in a row the estimator may ask for what is measured already, before a schedule is drawn from the others."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Search:
    """Asks for schedules that are not measured yet. What is asked of the estimator is a path: the family, the kind of
    its schedule, then each field of that, among the values that the schedules have which are left; so every answer is a
    schedule."""

    def __init__(self, schedules: Sequence[Priced], first: Sequence[Priced], measured: Mapping[str, float]) -> None:
        """``first`` are asked for before all others; ``measured`` has the ratios that are known, by schedules'
        texts."""
        self._schedules = {schedule.text: schedule for schedule in schedules}
        self._features = {text: _features(schedule) for text, schedule in self._schedules.items()}
        self._measured = dict(measured)
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=len(first) + 2))
        self._pending: dict[str, Asked] = {}
        self._refused: set[str] = set()
        for text in dict.fromkeys([*measured, *(schedule.text for schedule in first)]):
            if text in self._schedules:
                self._study.enqueue_trial(self._path_to(text))

    def ask(self, count: int) -> list[Priced]:
        """The next ones to measure, fewer where no more are left."""
        repeats = 0
        while len(self._pending) < count and (
            rest := [
                text
                for text in self._schedules
                if text not in self._measured and text not in self._pending and text not in self._refused
            ]
        ):
            if repeats > MOST_REPEATS:
                self._study.enqueue_trial(self._path_to(rest[0]))
            asked = self._study.ask()
            text = self._follow(lambda name, values, asked=asked: str(asked.suggest_categorical(name, values)))
            if text in self._measured:
                self._study.tell(asked, log(self._measured[text]))
            elif text in self._pending or text in self._refused:
                self._study.tell(asked, state=TrialState.FAIL)
            else:
                self._pending[text] = asked
                repeats = 0
                continue
            repeats += 1
        return [self._schedules[text] for text in self._pending]

    def tell(self, measured: Mapping[str, float]) -> None:
        """What was found, of those asked for and of others; what was asked for and is not there cannot be run, and is
        not asked for again."""
        self._measured |= measured
        for text, asked in self._pending.items():
            if text in measured:
                self._study.tell(asked, log(measured[text]))
            else:
                self._study.tell(asked, state=TrialState.FAIL)
                self._refused.add(text)
        self._pending.clear()

    def _follow(self, answer: Callable[[str, list[str]], str]) -> str:
        """The schedule at the end of a path: ``answer(name, values)`` takes each turn."""
        left, path = list(self._schedules), ""
        while len(left) > 1:
            name = next(
                name for name in self._features[left[0]] if len({self._features[text][name] for text in left}) > 1
            )
            chosen = answer(f"{path}{name}", sorted({self._features[text][name] for text in left}))
            left, path = [text for text in left if self._features[text][name] == chosen], f"{path}{name}={chosen}, "
        return left[0]

    def _path_to(self, text: str) -> dict[str, str]:
        turns: dict[str, str] = {}

        def turn(name: str, values: list[str]) -> str:
            turns[name] = self._features[text][name.rpartition(", ")[2]]
            return turns[name]

        self._follow(turn)
        return turns


def _features(priced: Priced) -> dict[str, str]:
    """What a schedule is, in the order of a path."""
    schedule = priced.candidate.schedule
    return {
        "family": priced.family,
        "kind": type(schedule).__name__,
        **{each.name: repr(getattr(schedule, each.name)) for each in fields(schedule)},
    }

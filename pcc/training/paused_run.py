"""Functions that stop in the middle, wherever that is, and go on later: a forward pass has no other way to wait at a
layer until all other batches are there."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

Pause = TypeVar("Pause")


NAME = "pcc paused run"
"""Of its threads."""


class _Closed(BaseException):
    """Ends a run that nobody wants to go on; handlers inside the run are not for it."""


class PausedRun(Generic[Pause]):
    """A function in a thread of its own, of which only one runs at a time: it begins, and goes on after it has called
    ``pause(value)``, when somebody calls `resume`."""

    def __init__(self, function: Callable[[Callable[[Pause], None]], object]) -> None:
        self._go: SimpleQueue[bool] = SimpleQueue()
        self._stops: SimpleQueue[Pause | BaseException | None] = SimpleQueue()
        self._function = function
        self._thread = Thread(target=self._run, name=NAME, daemon=True)
        self._thread.start()

    def resume(self) -> Pause | None:
        """Runs to the next pause and gives its value; None at the end. What the function raises is raised."""
        self._go.put(True)
        stop = self._stops.get()
        if isinstance(stop, BaseException):
            raise stop
        return stop

    def close(self) -> None:
        """Ends the run at its next pause."""
        self._go.put(False)
        self._thread.join()

    def _pause(self, value: Pause) -> None:
        self._stops.put(value)
        self._wait()

    def _wait(self) -> None:
        if not self._go.get():
            raise _Closed

    def _run(self) -> None:
        try:
            self._wait()
            self._function(self._pause)
            self._stops.put(None)
        except BaseException as error:
            self._stops.put(error)

"""What a worker needs to know of an engine."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

ONNX, EXPORTED, PACKAGE = "model.onnx", "model.pt2", "package"
"""A network's files in its folder: for engines that read ONNX, for those that take PyTorch's exported programs, and for
pcc."""


class Adapter(ABC):
    """A network in an engine, on one thread. Each module of this folder calls its subclass ``Adapter``, too."""

    def __init__(self, folder: Path, converted: Path) -> None:
        self.folder = folder
        self.converted = converted
        """Where `convert` has put what it made."""

    def convert(self, into: Path) -> None:  # noqa: B027
        """Makes the engine's own files of the network's; called once, without a clock. Nothing where the engine reads
        them as they are."""

    @abstractmethod
    def load(self) -> None:
        """Loads the network."""

    @abstractmethod
    def feed(self, image: np.ndarray) -> None:
        """Keeps an input (N, C, H, W) fp32, in the layout that the engine wants, for all runs that follow."""

    @abstractmethod
    def run(self) -> Any:
        """Runs the network to its end: what is timed."""

    @abstractmethod
    def output(self, result: Any) -> np.ndarray:
        """The output of a run in PyTorch's layout."""

    @abstractmethod
    def version(self) -> str:
        """The engine's release."""

    def evidence(self) -> dict[str, Any]:
        """Facts which show that the engine itself did the work; raises `RuntimeError` where it did not."""
        return {}

    def layers(self, runs: int) -> dict[str, float] | None:
        """Mean seconds of each layer; None where the engine does not tell."""
        return None

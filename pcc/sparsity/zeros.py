"""What structures of zeros share: they say which weights may be other than zero, and nothing about values."""

from abc import abstractmethod

import numpy as np

from pcc.sparsity.structure import Structure


class Zeros(Structure):
    """A structure that is a set of masks with a budget.

    The nearest weight keeps the mask with the largest sum of squares. A criterion of another kind (gradients,
    strengths, what quantisation will leave) keeps the mask of its own largest sum: `keep` takes any scores.
    """

    @property
    def zeros_only(self) -> bool:
        return True

    @abstractmethod
    def keep(self, scores: np.ndarray, groups: int = 1) -> np.ndarray:
        """Of the masks that spend the budget in full, the one with the largest sum of scores: bool, of the weight's
        shape; ties by lower index.

        ``scores`` have the weight's shape and any sign. Raises `PccError` where a weight of this shape cannot have the
        structure.
        """

    def project(self, weight: np.ndarray, groups: int = 1) -> np.ndarray:
        return np.where(self.keep(np.square(weight, dtype=np.float64), groups), weight, np.float32(0))

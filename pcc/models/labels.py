"""Names of the classes that networks tell apart.

ImageNet's are the first names of its WordNet synsets, in the order in which all ImageNet networks number them; where
two would be equal (crane, maillot) a word in brackets tells them apart.
"""

from functools import cache
from importlib.resources import files


@cache
def imagenet_labels() -> tuple[str, ...]:
    """The 1000 class names of ILSVRC 2012."""
    return tuple((files("pcc.models") / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines())


def digit_labels() -> tuple[str, ...]:
    """MNIST's classes."""
    return tuple("0123456789")


def cifar10_labels() -> tuple[str, ...]:
    """CIFAR-10's classes."""
    return "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"

"""Real weights on real photos; fetched into the cache by the functions under test."""

import pytest
import torch

from pcc import models
from pcc.models.labels import imagenet_labels
from pcc.models.photos import photos

CORRECT = {"mobilenet_v2": 18, "resnet50": 19, "efficientnet_lite0": 18}
"""Top-1 hits on the twenty photos."""


def test_labels_are_a_thousand_different_names() -> None:
    labels = imagenet_labels()
    assert len(labels) == len(set(labels)) == 1000
    assert (labels[0], labels[243], labels[999]) == ("tench", "bull mastiff", "toilet tissue")


def test_photos() -> None:
    shown = [photo.label for photo in photos()]
    assert shown[:4] == [243, 559, 438, 990]
    assert len(shown) == 20


@pytest.mark.parametrize("name", CORRECT)
def test_top1_on_photos(name: str) -> None:
    model, preprocessing = models.create(name), models.entry(name).preprocessing
    with torch.no_grad():
        logits = torch.cat([model(torch.from_numpy(preprocessing.apply(photo.path))) for photo in photos()])
    hits = logits.argmax(1) == torch.tensor([photo.label for photo in photos()])
    assert int(hits.sum()) == CORRECT[name]


def test_vgg16_features_are_torchvisions() -> None:
    """The first connection of torchvision's VGG-16, which also shows that the axes were put right."""
    connection = models.create("vgg16-features").state_dict()["features.0.weight"][0, 0]
    expected = torch.tensor([[-0.5537, 0.1427, 0.5290], [-0.5831, 0.3566, 0.7657], [-0.6902, -0.0480, 0.4841]])
    torch.testing.assert_close(connection, expected, rtol=0, atol=1e-4)

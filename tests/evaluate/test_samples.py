"""Photos in folders, class folders and lists; test sets; and what is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pcc.errors import PccError
from pcc.evaluate.samples import open_photos, open_samples
from pcc.models.preprocess import Preprocessing
from pcc.training.data.folder import FolderData

SEEN = Preprocessing(size=4, resize=4, scale=1 / 255, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
SHAPE = (3, 4, 4)


def photo(path: Path, red: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (red, 0, 0)).save(path)


def reds(folder: Path | str, names: tuple[str, ...] = ()) -> tuple[list[int], list[int] | None]:
    """What was read, as the photos' red values and classes, two photos at a time."""
    samples = open_samples(str(folder), SHAPE, SEEN, names)
    batches = list(samples.batches(2))
    inputs = np.concatenate([x for x, _ in batches])
    assert inputs.shape == (samples.count, *SHAPE)
    labels = [y for _, y in batches]
    found = np.rint(inputs[:, 0, 0, 0] * 255).astype(int).tolist()
    return found, None if labels[0] is None else np.concatenate([y for y in labels if y is not None]).tolist()


def test_a_list_without_classes_and_a_text_that_is_none(tmp_path: Path) -> None:
    for red in (30, 10, 20):
        photo(tmp_path / "photos" / f"{red}.png", red)
    (tmp_path / "some.txt").write_text("photos/20.png\nphotos/10.png\n")
    assert reds(tmp_path / "some.txt") == ([20, 10], None)
    (tmp_path / "photos" / "notes.txt").write_text("taken in 2019")
    assert reds(tmp_path / "photos") == ([10, 20, 30], None)
    (tmp_path / "some.txt").write_text("photos/20.png\nphotos/10.png 3\n")
    with pytest.raises(PccError, match="1 of 2 lines have a class"):
        open_samples(str(tmp_path / "some.txt"), SHAPE, SEEN)
    (tmp_path / "more.txt").write_text("photos/20.png\n")
    with pytest.raises(PccError, match="more than one list of photos"):
        open_samples(str(tmp_path), SHAPE, SEEN)


def test_photos_without_labels(tmp_path: Path) -> None:
    for red in (30, 10, 20):
        photo(tmp_path / f"{red}.png", red)
    assert reds(tmp_path) == ([10, 20, 30], None)


def test_hidden_files_are_no_photos(tmp_path: Path) -> None:
    """What systems leave beside photos: forks of files, folders of thumbnails, lists of their own."""
    folder = tmp_path / ".cache" / "photos"  # where the folder itself lies is the user's affair
    for number, name in enumerate(("ant", "bee")):
        photo(folder / "test" / name / "1.png", 10 * number)
        photo(folder / "train" / name / "1.png", 10 * number)
        (folder / "test" / name / "._1.png").write_bytes(b"no photo")
        (folder / "train" / name / "._1.png").write_bytes(b"no photo")
    photo(folder / "test" / ".thumbnails" / "1.png", 200)
    photo(folder / "train" / ".thumbnails" / "1.png", 200)
    (folder / "test" / "._1.png").write_bytes(b"no photo")
    (folder / "._list.txt").write_text("1.png 0\n")
    assert reds(folder) == ([0, 10], [0, 1])
    assert open_photos(str(folder), SHAPE, SEEN).count == 2
    assert FolderData(folder, SEEN).class_names == ["ant", "bee"]


@pytest.mark.parametrize("half", ["", "test", "val"])
def test_class_folders(tmp_path: Path, half: str) -> None:
    for number, name in enumerate(("owl", "ant", "bee")):
        photo(tmp_path / half / name / "1.png", 10 * number)
    assert reds(tmp_path) == ([10, 20, 0], [0, 1, 2])
    assert reds(tmp_path, ("bee", "owl", "cat", "ant")) == ([10, 20, 0], [3, 0, 1])


def test_photos_beside_folders_are_of_no_class(tmp_path: Path) -> None:
    for number, name in enumerate(("1.png", "small/1.png", "small/2.png")):
        photo(tmp_path / name, 10 * number)
    assert reds(tmp_path) == ([0, 10, 20], None)


def test_the_test_set_is_where_classes_are(tmp_path: Path) -> None:
    """As `pcc prune` takes it."""
    for number, name in enumerate(("train/ant", "train/bee", "valid/ant", "valid/bee", "test")):
        photo(tmp_path / name / "1.png", 10 * number)
    assert reds(tmp_path) == ([20, 30], [0, 1])
    assert FolderData(tmp_path, SEEN).test_samples(torch.arange(2))[1].tolist() == [0, 1]


def test_photos_of_no_test_set(tmp_path: Path) -> None:
    for number, name in enumerate(("train/ant", "train/bee", "test/ant")):
        photo(tmp_path / name / "1.png", 10 * number)
    (x, labels) = open_photos(str(tmp_path), SHAPE, SEEN).read(0, 2)
    assert labels is None
    assert np.rint(x[:, 0, 0, 0] * 255).tolist() == [0, 10]
    (tmp_path / "list.txt").write_text("train/ant/1.png\ntest/ant/1.png 1\n")
    assert open_photos(str(tmp_path), SHAPE, SEEN).count == 2


def test_class_folders_beside_those_of_training(tmp_path: Path) -> None:
    """As `pcc prune` numbers them: by all names of the training set, a text file beside them or not."""
    for name in ("2", "10", "1"):
        photo(tmp_path / "train" / name / "1.png", 99)
    for name in ("2", "1"):
        photo(tmp_path / "test" / name / "1.png", int(name))
    (tmp_path / "test" / "README.txt").write_text("These are 12")
    assert reds(tmp_path, ("1", "2")) == ([1, 2], [0, 2])
    data = FolderData(tmp_path, SEEN)
    assert data.test_samples(torch.arange(2))[1].tolist() == [0, 2]
    photo(tmp_path / "test" / "3" / "1.png", 1)
    with pytest.raises(PccError, match="the test set has photos of '3', the training set has none"):
        open_samples(str(tmp_path), SHAPE, SEEN)


def test_class_folders_that_are_numbers(tmp_path: Path) -> None:
    for name in ("7", "12", "3"):
        photo(tmp_path / name / "1.png", int(name))
    assert reds(tmp_path) == ([12, 3, 7], [12, 3, 7])
    photo(tmp_path / "others" / "1.png", 0)
    assert reds(tmp_path) == ([12, 3, 7, 0], [0, 1, 2, 3])


def test_class_folders_that_cannot_be_all_classes(tmp_path: Path) -> None:
    for name in ("cat", "wolf"):
        photo(tmp_path / name / "1.png", 1)
    with pytest.raises(PccError, match="'wolf' is none of the network's 3 classes, and 2 class folders cannot be all"):
        open_samples(str(tmp_path), SHAPE, SEEN, ["cat", "dog", "zebra"])


def test_a_list_that_begins_with_a_byte_order_mark(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 5)
    (tmp_path / "list.txt").write_text("a.png 2\r\n", encoding="utf-8-sig")
    assert reds(tmp_path / "list.txt") == ([5], [2])


@pytest.mark.parametrize("below", ["", "list"])
def test_lists(tmp_path: Path, below: str) -> None:
    for name in ("b c.png", "a.png", "unlisted.png"):
        photo(tmp_path / below / name, len(name))
    (tmp_path / "list.txt").write_text("b c.png 4\n\na.png\t2\n")
    assert reds(tmp_path / "list.txt") == ([7, 5], [4, 2])
    assert reds(tmp_path) == ([7, 5], [4, 2])


def test_without_preprocessing_photos_are_made_like_imagenets(tmp_path: Path) -> None:
    photo(tmp_path / "1.png", 255)
    ((x, labels),) = open_samples(str(tmp_path), (3, 8, 8), None).batches(9)
    assert labels is None
    np.testing.assert_allclose(x[0, 0], (1 - 0.485) / 0.229, rtol=1e-5)


def test_a_users_test_set(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "import torch\nhalf = [(torch.full((3, 4, 4), float(i)), i % 2) for i in range(5)]\nmake = lambda: (half, half)"
    )
    samples = open_samples(f"{tmp_path / 'data.py'}:make", SHAPE, None)
    assert [(x[:, 0, 0, 0].tolist(), y.tolist()) for x, y in samples.batches(3) if y is not None] == [
        ([0, 1, 2], [0, 1, 0]),
        ([3, 4], [1, 0]),
    ]


def test_bad_data_are_one_line(tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "1.png", 1)
    (tmp_path / "empty").mkdir()
    for name, text in (("torn", "one 1st\n"), ("gone", "2.png 1\n"), ("blank", "\n"), ("binary", "\udcff\n")):
        (tmp_path / f"{name}.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    cases = {
        "empty": "holds no photos",
        "torn.txt": "line 1: not 'NAME CLASS'",
        "gone.txt": "line 1: there is no photo",
        "blank.txt": "lists no photos",
        "binary.txt": "no UTF-8 text",
        "absent.txt": "no such file",
        "absent": "no data",
    }
    for name, words in cases.items():
        with pytest.raises(PccError, match=words) as error:
            open_samples(str(tmp_path / name), SHAPE, SEEN)
        assert "\n" not in str(error.value)
    with pytest.raises(PccError, match="a photo becomes"):
        open_samples(str(tmp_path / "photos"), (3, 8, 8), SEEN)

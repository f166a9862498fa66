"""The batches that a model runs."""

import pytest

from pcc.errors import PccError
from pcc.package.batches import Batches

UP_TO_FIVE, FIXED = Batches("net", 5), Batches("net", None)
SHAPE = (5, 3, 8)


def test_any_batch_up_to_the_most() -> None:
    given = [(batch, 3, 8) for batch in range(7)]
    assert [UP_TO_FIVE.fits(shape, SHAPE) for shape in given] == [False, *[True] * 5, False]
    assert not any(UP_TO_FIVE.fits(shape, SHAPE) for shape in ((), (2, 3), (2, 3, 9)))
    assert UP_TO_FIVE.text(SHAPE) == "(1 to 5, 3, 8)"
    assert UP_TO_FIVE.of([(2, 3, 8), (2,)]) == 2
    assert [UP_TO_FIVE.shape(shape, 2) for shape in (SHAPE, (10, 4))] == [(2, 3, 8), (4, 4)]


def test_the_batch_of_the_shapes() -> None:
    assert [FIXED.fits(shape, SHAPE) for shape in (SHAPE, (4, 3, 8), ())] == [True, False, False]
    assert FIXED.text(SHAPE) == "(5, 3, 8)"
    assert FIXED.of([(2, 3, 8), (3,)]) is None
    assert FIXED.shape(SHAPE, None) == SHAPE


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([(2, 3), (1, 3)], "net: the inputs have 1 and 2 images: give as many of each"),
        ([(6, 3)], "net was compiled for batches of 1 to 5, 6 images were given"),
        ([()], "net was compiled for batches of 1 to 5, 0 images were given"),
    ],
)
def test_batches_that_cannot_be_run(given: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(PccError) as error:
        UP_TO_FIVE.of(given)
    assert str(error.value) == message

"""What is made on the device when a library is loaded: tables of sparse 1x1 convolutions from a processor's lists."""

import numpy as np
import pytest

from pcc.codegen.kernels.shared_tables import shared_tables
from pcc.codegen.kernels.sparse_tables import gather_tables
from pcc.codegen.opencl.kernels.unlist import UnlistWeight
from pcc.codegen.opencl.work_group import range_over
from pcc.dtype import FLOAT16, FLOAT32, DType
from pcc.sparsity.fkw import pack
from tests.opencl import POCL, run, run_reference


def check_unlisted(
    share: int,
    size: int,
    dtype: DType = FLOAT32,
    channels: int = 11,
    platform: str = POCL,
    zeros: float = 0.3,
    even: bool = False,
) -> None:
    """Asserts that tables made of lists are those that a convolution's kernel would read otherwise, but for the order
    of a filter group's connections; of a weight of which a part is kept and zero all the same."""
    random = np.random.default_rng(share * 8 + size)
    kept = np.repeat(random.random((12 // share, channels)) < 0.4, share, axis=0)
    weight = (random.standard_normal((12, channels)) * kept).astype(np.float32)
    fkw = pack(weight.reshape(12, channels, 1, 1), share=share)
    fkw.weight[random.random(fkw.weight.shape) < zeros] = 0
    lists, wanted, groups = shared_tables(fkw, size, 4, 30, FLOAT32, even), gather_tables(fkw, 1), 12 // share
    arrays = {
        "entries": lists.entries.ravel(),
        "lists": lists.lists.ravel(),
        "begins": wanted.segments,
        "weight": np.zeros(wanted.weight.size, dtype.numpy),
        "places": np.zeros(len(wanted.channels), np.int32),
    }
    of_lists = {"list_groups": lists.groups, "columns": lists.lists.shape[1], "blocks": -(-channels // 4)}
    numbers = {"size": size, **of_lists, "plane": 30}
    args = {**arrays, **numbers, "groups": groups, "begin_step": 1, "channel_step": 7}
    kernel, range_ = UnlistWeight(share, dtype), range_over((groups, 1, 1))
    for made in (run(kernel, args, range_, platform), run_reference(kernel, args, range_)):
        of_weight = made["weight"].reshape(-1, share)
        for begin, end in zip(wanted.segments, wanted.segments[1:], strict=False):
            rows = np.zeros((2, channels, share), np.float32)
            np.add.at(rows[0], made["places"][begin:end] // 7, of_weight[begin:end].astype(np.float32))
            rows[1, wanted.channels[begin:end]] = wanted.weight[begin:end, 0].astype(dtype.numpy)
            assert (rows[0] == rows[1]).all()


@pytest.mark.parametrize("share", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_tables_made_of_lists(share: int, size: int) -> None:
    check_unlisted(share, size)


@pytest.mark.parametrize("share", [1, 2])
def test_tables_made_of_even_lists(share: int) -> None:
    check_unlisted(share, 4, even=True)


@pytest.mark.parametrize("size", [2, 4])
def test_tables_made_of_lists_that_all_filters_share(size: int) -> None:
    check_unlisted(4, size, zeros=0.0)


def test_tables_of_fp16_made_of_lists() -> None:
    check_unlisted(4, 4, FLOAT16)

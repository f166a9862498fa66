"""The images of a batch followed through a graph: what is one image's graph, what is refused and by which name, and
both against brute force."""

from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from pcc.any_batch import import_one_image
from pcc.errors import PccError
from pcc.ir import ops
from pcc.ir.graph import MAX_BATCH, infer_all, max_batch, shape_of
from pcc.ir.verify import relative_error, run_graph, verify_structure
from pcc.passes.one_image import Images, _Split
from tests.nets import NETS, make

Network = Callable[..., Any]


def split(model: Network | nn.Module, *shapes: tuple[int, ...]) -> GraphModule:
    return import_one_image(model, tuple(torch.zeros(1, *shape) for shape in shapes), 8).graph


class Learned(nn.Module):
    """Positions that are learnt, for each image; 784 KiB of them."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(256, 28, 28))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.positions.unsqueeze(0).repeat(x.shape[0], 1, 1, 1)


class Training(nn.Module):
    """Goes another way in training, and where there are many images."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise ValueError("targets needed")
        return x * 2 if x.shape[0] > 3 else x


def test_constants_for_each_image_of_any_size() -> None:
    module = Learned()
    assert_same(module, split(module, (256, 28, 28)), (256, 28, 28))


def test_rows_joined_to_images_are_refused() -> None:
    with pytest.raises(PccError, match="it joins along the dimension that they lie in"):
        split(lambda x: torch.cat([x, torch.ones(5, 4)]), (4,))


def test_branches_are_those_of_inference() -> None:
    with pytest.raises(PccError, match="does not do the same for every batch of 1 to 8 images"):
        split(Training(), (4,))


def test_inputs_keep_their_types() -> None:
    examples = torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    imported = import_one_image(lambda ids, photo: (100 // ids, photo / 255), examples, 8)
    assert [(taken.shape, taken.dtype) for taken in imported.inputs] == [
        ((1, 3), torch.int64),
        ((1, 3, 4, 4), torch.uint8),
    ]


def assert_same(model: Network | nn.Module, graph: GraphModule, *shapes: tuple[int, ...]) -> None:
    """The graph gives for each image what the model gives for all of them."""
    torch.manual_seed(0)
    inputs = [torch.randn(4, *shape) for shape in shapes]
    with torch.no_grad():
        expected = model(*inputs)
    expected = (
        tuple(expected.values())
        if isinstance(expected, dict)
        else expected
        if isinstance(expected, tuple)
        else (expected,)
    )
    images = [run_graph(graph, [value[i : i + 1] for value in inputs]) for i in range(4)]
    assert relative_error([torch.cat(parts) for parts in zip(*images, strict=True)], expected) < 1e-5
    verify_structure(graph)


@pytest.mark.parametrize("name", NETS)
def test_splits_networks(name: str) -> None:
    module, examples = make(name)
    shapes = [tuple(example.shape[1:]) for example in examples]
    graph = split(module, *shapes)
    assert all(shape_of(node)[0] == 1 for node in graph.graph.find_nodes(op="placeholder"))
    assert graph.meta[MAX_BATCH] == max_batch(graph) == 8
    assert_same(module, graph, *shapes)


class TokensAndTime(nn.Module):
    """A class token for each image, time before the batch, rows of several images in one matrix, a reduction of all but
    the images."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 1, 6))
        self.attention = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.recurrent = nn.LSTM(6, 5)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.attention(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1))
        time = self.recurrent(x.transpose(0, 1))[0]
        return self.fc(time.reshape(-1, 5)).reshape(-1, x.shape[0], 3).transpose(0, 1), F.softmax(
            x.amax((1, 2)).unsqueeze(1) + x[:, 0], 1
        )


def test_splits_tokens_and_time() -> None:
    module = TokensAndTime().eval()
    assert_same(module, split(module, (4, 6)), (4, 6))


class Normalised(nn.Module):
    """Statistics that were learnt: they are of no batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


ALLOWED: dict[str, tuple[Network, tuple[tuple[int, ...], ...]]] = {
    "constant for each image": (lambda x: x + torch.zeros(x.shape[0], 4), ((4,),)),
    "table of the batch's size": (lambda x: torch.ones(x.shape[0], 2, 1) * x[:, None], ((4,),)),
    "two inputs": (lambda x, y: torch.einsum("ni,nj->nij", x, y).flatten(1), ((4,), (3,))),
    "attention over an image": (lambda x: torch.softmax(x @ x.transpose(1, 2), -1) @ x, ((5, 4),)),
    "patches": (lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(2), ((3, 4, 6),)),
    "rows of all images": (lambda x: (x.reshape(-1, 4) @ torch.eye(4)).reshape(x.shape).sum(1), ((5, 4),)),
    "best of each": (lambda x: x.topk(2, 1).values, ((7,),)),
    "batch norm": (Normalised().eval(), ((3, 4, 4),)),
    "same rows for all": (lambda x: x.repeat_interleave(2, 0), ((4,),)),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_accepts(name: str) -> None:
    model, shapes = ALLOWED[name]
    assert_same(model, split(model, *shapes), *shapes)


REFUSED: dict[str, tuple[Network, str]] = {
    "softmax over the batch": (
        lambda x: torch.softmax(x, 0),
        r"node softmax\w* \(pcc.softmax.default\) mixes the images.* x has them in dimension 0",
    ),
    "mean over the batch": (lambda x: x - x.mean(0), r"node \w+ \(\S+\) mixes the images"),
    "largest of all": (lambda x: x / x.abs().amax(), r"node \w+ \(\S+\) mixes the images"),
    "running sum over the batch": (lambda x: x.cumsum(0), r"node \w+ \(\S+\) mixes the images"),
    "product of images": (
        lambda x: x @ x.T,
        r"node \w+ \(pcc.matmul.default\) mixes the images.*multiplies some of them by others",
    ),
    "image of the batch": (
        lambda x: x[:1] + x,
        r"node slice_1 \(aten.slice.Tensor\) mixes the images.*takes some of them and not others",
    ),
    "batch turned around": (lambda x: x.flip(0), r"node gather \(pcc.gather.default\) mixes the images"),
    "joined along the batch": (
        lambda x: torch.cat([x, x], 0),
        r"node cat \(pcc.concat.default\) mixes the images.*joins along the dimension",
    ),
    "folded batch and time": (
        lambda x: x.reshape(2, -1),
        "depends on how many images|puts values of several of them together",
    ),
    "batch behind": (lambda x: x.T, r"output 'output' is \[4, 2\] for 2 images"),
    "one output for all": (lambda x: (x, torch.arange(3.0)), "output 'output_1' is"),
    "number of the image": (
        lambda x: x + torch.arange(x.shape[0])[:, None],
        r"node add\w* .*the constant \w+ has other values for each",
    ),
    "literal of the batch": (lambda x: x / x.shape[0], r"node div\w* .*depends on how many images"),
    "weights of the batch": (
        lambda x: x @ torch.full((4, 4), 1.0 / x.shape[0]),
        r"node \w+ \(\S+\) depends on how many images",
    ),
    "operators of the batch": (lambda x: x.relu() if x.shape[0] > 2 else x.tanh(), "depends on how many images"),
    "operators of large batches": (
        lambda x: x.relu() if x.shape[0] > 4 else x.tanh(),
        "does not do the same for every batch of 1 to 8 images.*another way",
    ),
    "padded batch": (
        lambda x: F.pad(x, (0, 0, 0, 1)),
        r"\(aten.constant_pad_nd.default\) mixes the images.*puts more beside them",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    model, message = REFUSED[name]
    with pytest.raises(PccError, match=message) as caught:
        split(model, (4,))
    assert "\n" not in str(caught.value)


def test_refuses_a_batch_that_is_none() -> None:
    with pytest.raises(PccError, match="a maximum batch of 1: give 2 to 65536"):
        import_one_image(lambda x: x, torch.zeros(1, 4), 1)
    with pytest.raises(PccError, match="an input without dimensions"):
        import_one_image(lambda x: x, torch.tensor(1.0), 4)


# ---- movements of data against brute force ----


@st.composite
def movements(draw: st.DrawFn) -> tuple[tuple[int, ...], list[tuple[str, Any]]]:
    """A shape whose first dimension has the images, and a few reshapes, permutations and slices that fit one after the
    other."""
    shape = start = (draw(st.sampled_from([2, 3])), *draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    steps: list[tuple[str, Any]] = []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["reshape", "permute", "slice"]))
        if kind == "reshape":
            shape = draw(factorisations(prod(shape)))
            steps.append((kind, list(shape)))
        elif kind == "permute":
            order = draw(st.permutations(range(len(shape))))
            shape = tuple(shape[dim] for dim in order)
            steps.append((kind, list(order)))
        else:
            dim = draw(st.integers(0, len(shape) - 1))
            begin = draw(st.integers(0, shape[dim] - 1))
            end = draw(st.integers(begin + 1, shape[dim]))
            shape = (*shape[:dim], end - begin, *shape[dim + 1 :])
            steps.append((kind, (dim, begin, end)))
    return start, steps


@st.composite
def factorisations(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    sizes = []
    while size > 1 and len(sizes) < 4:
        sizes.append(draw(st.sampled_from([factor for factor in range(1, size + 1) if size % factor == 0])))
        size //= sizes[-1]
    return (*sizes, size)


def moved(shape: tuple[int, ...], steps: list[tuple[str, Any]]) -> tuple[GraphModule, Node]:
    graph = Graph()
    node = graph.placeholder("x")
    node.meta["val"] = torch.empty(shape)
    for kind, how in steps:
        target, args = {"reshape": (ops.RESHAPE, (how,)), "permute": (ops.PERMUTE, (how,)), "slice": (ops.SLICE, how)}[
            kind
        ]
        node = graph.call_function(target, (node, *args))
    graph.output((node,))
    module = GraphModule(nn.Module(), graph)
    infer_all(module, [torch.empty(shape)])
    return module, node


def place_by_brute_force(elements: Tensor, count: int, size: int) -> Images | None:
    """Where a tensor of the numbers of an input's elements has its images, of ``size`` elements each: the same ones of
    each, in one place; else None."""
    for dim, extent in enumerate(elements.shape):
        for inner in range(1, extent // count + 1):
            if extent % (count * inner) == 0:
                images = elements.unflatten(dim, (-1, count, inner)).movedim(dim + 1, 0)
                if all(
                    torch.equal(image, images[0] + number * size) and int(images[0].max()) < size
                    for number, image in enumerate(images)
                ):
                    return Images(dim, extent // (count * inner), inner)
    return None


@given(movements())
@settings(max_examples=300)
def test_follows_images_as_brute_force_does(drawn: tuple[tuple[int, ...], list[tuple[str, Any]]]) -> None:
    """What is accepted is in the place that the elements themselves show; what is refused has, at that node, no
    place."""
    shape, steps = drawn
    count = shape[0]
    module, _ = moved(shape, steps)
    values, size = torch.arange(prod(shape)).reshape(shape), prod(shape[1:])
    before: dict[Node, Tensor] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder":
            before[node] = values
        elif node.op == "call_function":
            before[node] = node.target(*[before.get(arg, arg) if isinstance(arg, Node) else arg for arg in node.args])
    follow = _Split(count)
    for node in module.graph.nodes:
        if node.op == "output":
            continue
        try:
            follow.visit(node)
        except PccError:
            assert place_by_brute_force(before[node], count, size) is None
            return
        assert follow.places[node] == place_by_brute_force(before[node], count, size)
    module.recompile()
    infer_all(module, [torch.empty(1, *shape[1:])])
    single = run_graph(module, [values[:1]])[0]
    place = follow.places[list(module.graph.nodes)[-2]]
    assert place is not None
    parts = list(before.values())[-1].unflatten(place.dim, (place.outer, count, place.inner))
    assert torch.equal(parts.select(place.dim + 1, 0).flatten(place.dim, place.dim + 1), single)

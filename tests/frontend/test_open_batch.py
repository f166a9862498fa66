"""Files and programs whose batch is open, for any batch up to a maximum; those that fix it are refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pcc.any_batch import import_one_image
from pcc.errors import PccError
from pcc.frontend.imported import ImportedModel, Input, import_model
from pcc.ir.verify import relative_error, run_graph
from tests.frontend.onnx.models import model, run_onnxruntime
from tests.nets import make

NET = """
    agraph (float[N,3,6,5] image, float[N,4] beside) => (float[N,2] y) {
        features = Conv <pads = [1, 1, 1, 1]> (image, w)
        shape = Shape (features)
        batch = Slice (shape, zero, one)
        sizes = Concat <axis = 0> (batch, rest)
        rows = Reshape (features, sizes)
        both = Concat <axis = 1> (rows, beside)
        y = Gemm <transB = 1> (both, dense)
    }
"""


def net() -> object:
    weights = {
        "w": np.random.default_rng(0).standard_normal((2, 3, 3, 3), dtype=np.float32),
        "dense": np.random.default_rng(1).standard_normal((2, 64), dtype=np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "rest": np.array([-1]),
    }
    return model(NET, weights)


def by_images(imported: ImportedModel, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    results = [
        run_graph(imported.graph, [value[image : image + 1] for value in inputs]) for image in range(len(inputs[0]))
    ]
    return tuple(torch.cat(parts) for parts in zip(*results, strict=True))


def test_an_onnx_model_needs_no_shape() -> None:
    imported = import_one_image(net(), None, 8)
    assert imported.inputs == (Input("image", (1, 3, 6, 5)), Input("beside", (1, 4)))
    inputs = torch.randn(4, 3, 6, 5), torch.randn(4, 4)
    assert relative_error(by_images(imported, inputs), run_onnxruntime(net(), inputs)) < 1e-6  # type: ignore[arg-type]


def test_without_a_maximum_it_is_mentioned() -> None:
    with pytest.raises(
        PccError, match="give --input-shape image=1,3,6,5, or compile it with --max-batch N to run any batch up to N"
    ):
        import_model(net())


def test_an_onnx_model_that_fixes_its_batch() -> None:
    fixed = model("agraph (float[1,3] x) => (float[1,3] y) { y = Relu (x) }")
    with pytest.raises(
        PccError,
        match=r"fixes the batch: it takes x \(1, 3\); for any batch up to a maximum, "
        "export it with the first dimension left open",
    ):
        import_one_image(fixed, None, 4)


def test_other_sizes_that_are_open() -> None:
    proto = model("agraph (float[N,C] x) => (float[N,C] y) { y = Relu (x) }")
    with pytest.raises(PccError, match="leaves sizes of its inputs open"):
        import_one_image(proto, None, 4)
    assert import_one_image(proto, {"x": torch.zeros(1, 7)}, 4).inputs == (Input("x", (1, 7)),)


def exported(most: int) -> torch.export.ExportedProgram:
    module, _ = make("residual")
    return torch.export.export(
        module, (torch.randn(2, 3, 13, 10),), dynamic_shapes=({0: torch.export.Dim("batch", max=most)},)
    )


def test_an_archive_and_an_exported_program(tmp_path: Path) -> None:
    module, _ = make("residual")
    torch.export.save(exported(8), tmp_path / "net.pt2")
    x = torch.randn(4, 3, 13, 10)
    for source, examples in ((tmp_path / "net.pt2", None), (exported(8), torch.zeros(1, 3, 13, 10))):
        imported = import_one_image(source, examples, 8)
        with torch.no_grad():
            assert relative_error(by_images(imported, (x,)), (module(x),)) < 1e-5
    with pytest.raises(PccError, match=r"was exported for s.* to 8, not 9"):
        import_one_image(tmp_path / "net.pt2", None, 9)


def test_an_exported_program_of_a_fixed_batch() -> None:
    module, _ = make("residual")
    with pytest.raises(PccError, match="cannot export"):
        import_one_image(torch.export.export(module, (torch.randn(1, 3, 13, 10),)), torch.zeros(1, 3, 13, 10), 4)

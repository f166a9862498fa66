"""Sample inputs: what a model is verified with, and what a package records with its outputs."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule

from pcc.frontend.imported import ImportedModel
from pcc.ir.graph import max_batch
from pcc.ir.verify import as_taken, run_graph
from pcc.package.spec import SelfTest

SELFTEST_IMAGES = 3
"""In the recorded input of a package for any batch: fewer than the maximum, mostly, and no multiple of a tile's
rows."""

FP16_TOLERANCE = 2e-2
"""Of the recorded output of a network in fp16: PyTorch's has each layer's sums rounded once, a kernel's after each
addition."""


def sample_inputs(model: ImportedModel) -> list[Tensor]:
    """Inputs to verify and record with, from a fixed seed; no whole number is 0 where the model divides by one."""
    generator = torch.Generator().manual_seed(0)
    samples = [taken.sample(generator) for taken in model.inputs]
    if all(sample.is_floating_point() for sample in samples):
        return samples
    try:
        run_graph(model.graph, samples)
    except RuntimeError as error:
        if "ZeroDivisionError" not in str(error):
            raise
        return [
            sample if sample.is_floating_point() else sample.where(sample != 0, torch.ones_like(sample))
            for sample in samples
        ]
    return samples


def selftest_of(graph: GraphModule, samples: Sequence[Tensor], tolerance: float) -> SelfTest:
    """The samples and what the graph gives for them; of a graph for any batch, for a few images, all of them
    different."""
    if not max_batch(graph):
        taken = as_taken(graph, samples)
        return SelfTest(
            [sample.numpy() for sample in taken], [result.numpy() for result in run_graph(graph, taken)], tolerance
        )
    images = [
        as_taken(graph, [sample.roll(image) for sample in samples])
        for image in range(min(max_batch(graph), SELFTEST_IMAGES))
    ]
    results = [run_graph(graph, image) for image in images]
    inputs, outputs = (
        [torch.cat(parts).numpy() for parts in zip(*tensors, strict=True)] for tensors in (images, results)
    )
    return SelfTest(inputs, outputs, tolerance)

"""Whether passes leave a model what it is: a verifier that runs after each of them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule

from pcc.errors import PccError
from pcc.frontend.imported import ImportedModel
from pcc.ir.graph import max_batch
from pcc.ir.verify import TOLERANCE, as_taken, relative_error, run_graph
from pcc.passes.instruments import VerifyEach
from pcc.passes.manager import Instrument, PassEvent
from pcc.passes.pipeline import SplitPipeline, prunes
from pcc.planner import Clock


def verifier_for(
    verify_each: bool | None,
    steps: SplitPipeline,
    graph: GraphModule,
    samples: Sequence[Tensor],
    two_images: Callable[[], ImportedModel],
    clock: Clock,
) -> VerifyEach | None:
    """The verifier, where one is asked for, or nothing is said and no pass prunes. A graph of one image is compared
    with the model for two, of which it was made."""
    if verify_each is False or (verify_each is None and any(map(prunes, steps.graph))):
        return None
    with clock.measure("verify"):
        if max_batch(graph):
            _check_images(two_images().graph, graph, samples)
        return VerifyEach(graph, samples)


def _check_images(batch: GraphModule, graph: GraphModule, samples: Sequence[Tensor]) -> None:
    """`PccError` where a model for two images, as it was imported, computes something else than its graph of one."""
    images = [as_taken(graph, [sample.roll(image) for sample in samples]) for image in range(2)]
    expected = run_graph(batch, [torch.cat(pair) for pair in zip(*images, strict=True)])
    found = [torch.cat(pair) for pair in zip(*(run_graph(graph, image) for image in images), strict=True)]
    if not (error := relative_error(found, expected)) <= TOLERANCE:
        raise PccError(
            f"the graph of one image computes something else than the model: relative error {error:.2g} (--no-verify "
            "compiles it all the same)"
        )


def timed(verifier: VerifyEach | None, clock: Clock) -> list[Instrument]:
    """The verifier, timed."""

    def verify(event: PassEvent) -> None:
        assert verifier is not None
        with clock.measure("verify"):
            verifier(event)

    return [verify] if verifier else []

"""A model that runs any batch up to a maximum: imported for two numbers of images, which must come to the same graph
for one image.

Files are graphs without ways to choose from, so two numbers show all that depends on the batch. The Python code of a
module might do something else for a third: torch.export follows it once more with the batch left open.
"""

from dataclasses import replace
from typing import Any

from pcc.errors import PccError
from pcc.frontend.imported import ImportedModel, import_model, importer_of
from pcc.frontend.supported import refuse_unsupported
from pcc.frontend.torch_module import refuse_batch_branches
from pcc.ir.graph import MAX_BATCH
from pcc.passes.canonicalize import Canonicalize
from pcc.passes.decompose import Decompose
from pcc.passes.fold_constants import FoldConstants
from pcc.passes.manager import PassManager
from pcc.passes.one_image import one_image, refuse_difference

COUNTS = (2, 3)
"""Of images, that the graphs which are compared are made for. Two numbers tell what counts images from what happens to
be as many."""


MOST_IMAGES = 65536
"""Of a batch; a larger number is a mistake."""


def import_one_image(model: Any, examples: Any, max_batch: int) -> ImportedModel:
    """The canonical graph of one image of a model, which the model computes for each image of a batch, and nothing
    else.

    ``model`` and ``examples`` are what `import_model` takes; first dimensions of the examples do not count. Raises
    `PccError` for whatever cannot be imported, and for a model that mixes images or depends on how many there are, with
    the name of a node.
    """
    if not 2 <= max_batch <= MOST_IMAGES:
        raise PccError(
            f"a maximum batch of {max_batch}: give 2 to {MOST_IMAGES}; without one, a package runs the batch of its "
            "example"
        )
    models: list[ImportedModel] = []
    for count in COUNTS:
        imported = import_model(model, examples, count)
        graph = PassManager([Decompose(), Canonicalize(), FoldConstants()], [refuse_unsupported])(
            imported.graph
        ).graph_module
        inputs = tuple(replace(taken, shape=(1, *taken.shape[1:])) for taken in imported.inputs)
        models.append(replace(imported, graph=one_image(graph, count), inputs=inputs))
    refuse_difference(models[0].graph, models[1].graph)
    if importer_of(model).suffix is None:
        refuse_batch_branches(model, examples, max_batch)
    else:
        import_model(model, examples, max_batch)  # a file may say that it is for fewer
    models[0].graph.meta[MAX_BATCH] = max_batch
    return models[0]

"""The driver of ``pcc export``: frontend, passes on the graph, and out again as a file that other tools read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pcc.errors import PccError
from pcc.files import save_file
from pcc.frontend.imported import ImportedModel, import_model
from pcc.frontend.save import writer_for
from pcc.frontend.supported import refuse_unsupported
from pcc.passes.instruments import NotePruning
from pcc.passes.manager import PassManager
from pcc.passes.pipeline import parse_pipeline, split_pipeline
from pcc.passes.spell_out import SpellOut

DEFAULT_PIPELINE = "decompose,canonicalize,fold-constants,fold-batchnorm,drop-filters"
"""What makes a model smaller for whoever runs it."""


def export_model(
    model: Any, examples: Any = None, *, out: Path, pipeline: str = DEFAULT_PIPELINE
) -> tuple[ImportedModel, list[str]]:
    """Writes a model after a pipeline of passes to an ``.onnx``, ``.pt2`` or ``.safetensors`` file, all of it or
    nothing.

    ``model`` and ``examples`` are what `import_model` takes. Gives the model as it was written, and warnings. Raises
    `PccError` for what cannot be imported or written, and for passes that work on the kernel program.
    """
    steps = split_pipeline(parse_pipeline(pipeline))
    if steps.program:
        raise PccError(
            f"pass {steps.program[0].name} works on the kernel program, and what is exported is the graph: leave it "
            "out of the pipeline"
        )
    write = writer_for(out)
    imported = import_model(model, examples)
    pruning = NotePruning()
    graph = PassManager([*steps.graph, SpellOut()], [refuse_unsupported, pruning])(imported.graph).graph_module
    exported = replace(imported, graph=graph)
    save_file(out, lambda path: write(exported, path), f"'{out}'")
    return exported, pruning.warnings

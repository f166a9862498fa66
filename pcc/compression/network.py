"""The network that is compressed: a module in memory, whatever it came from."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

import torch
from torch import Tensor, nn

from pcc.compiler import compile_model
from pcc.errors import PccError
from pcc.evaluate.network import Network, of_module
from pcc.files import save_file
from pcc.frontend.imported import import_model, is_model_file
from pcc.frontend.inputs import library_name, model_name
from pcc.models.preprocess import Preprocessing
from pcc.target import Target
from pcc.training.folder import CHECKPOINT
from pcc.training.from_file import FromFile, open_file
from pcc.training.layers import prunable
from pcc.training.prune import save_checkpoint, saved_name

PACKAGE = "package"


Shape = tuple[int, int, int]
"""C, H, W."""


@dataclass(frozen=True)
class Subject:
    """A trained network of one image input."""

    name: str
    """Fit for a library's name."""
    called: str
    """As the user names it: ``resnet50``, ``net.py:make``, ``net.onnx``."""
    module: nn.Module
    input_shape: Shape
    preprocessing: Preprocessing | None = None
    labels: Sequence[str] | None = None
    file: FromFile | None = None
    """Where the model is from a file that holds it whole."""
    weights: str | None = None
    """Where they are from, as the user names it."""

    @property
    def example(self) -> Tensor:
        return torch.zeros(1, *self.input_shape)

    def layers(self, module: nn.Module | None = None) -> dict[str, nn.Conv2d | nn.Linear]:
        """Those that can be pruned, without any whose weight another layer has, too; `PccError` where there are
        none."""
        module = module or self.module
        owners = Counter(
            _weight_id(layer)
            for _, layer in module.named_modules(remove_duplicate=False)
            if isinstance(layer, nn.Conv2d | nn.Linear)
        )
        found = {name: layer for name, layer in prunable(module).items() if owners[_weight_id(layer)] == 1}
        if not found:
            raise PccError(f"{self.called} has no convolution or linear layer that can be pruned")
        return found

    def network(self, module: nn.Module) -> Network:
        """A state of the network, to be evaluated."""
        return of_module(self.called, module, [(1, *self.input_shape)], self.preprocessing, self.labels)

    def compile(self, module: nn.Module, out: Path, target: Target) -> None:
        """A package of a state of the network."""
        compile_model(
            self.file.imported(module) if self.file else module.eval(),
            (self.example,),
            out=out,
            targets=[target],
            name=self.name,
            preprocessing=self.preprocessing,
            labels=self.labels,
            verify_each=False,
        )

    def save(self, module: nn.Module, folder: Path) -> None:
        """Writes the checkpoint of a state of the network, and for a model from a file that file, too."""
        save_checkpoint(module, folder / CHECKPOINT)
        if file := self.file:
            saved = folder / saved_name(self.called)
            save_file(saved, lambda path: file.save(module, path, saved.suffix))

    def command(self, folder: Path, target: Target) -> str:
        """The command line that compiles for a target what `save` wrote."""
        if self.file:
            source = [str(folder / saved_name(self.called))]
        else:
            shape = ",".join(map(str, (1, *self.input_shape)))
            source = [self.called, "--weights", str(folder / CHECKPOINT), "--input-shape", shape]
        made_for = ["--target", target.name, "--cpu", target.cpu]
        return shlex.join(["pcc", "compile", *source, *made_for, "-o", str(folder / PACKAGE)])


def _weight_id(layer: nn.Module) -> int:
    """The same for layers that share a weight; one that is computed is its layer's."""
    return id(layer._parameters.get("weight", layer))


def open_subject(
    model: str | PathLike[str] | nn.Module,
    input_shape: Shape | None,
    preprocessing: Preprocessing | None = None,
    name: str | None = None,
) -> Subject:
    """A module, or the model of an ONNX file or a ``.pt2`` archive. `PccError` where its input is not known, or is no
    image."""
    if isinstance(model, nn.Module):
        if input_shape is None:
            raise PccError(f"a {type(model).__name__} does not say what it takes: give input_shape, (C, H, W)")
        return Subject(name or model_name(model), type(model).__name__, model, input_shape, preprocessing)
    called = fspath(model)
    if not is_model_file(called):
        raise PccError(f"model '{called}': give a module, or a file that holds a model (.onnx, .pt2)")
    if not Path(called).is_file():
        raise PccError(f"model '{called}': there is no such file")
    shape = input_shape or one_image(called, [taken.shape for taken in import_model(Path(called)).inputs])
    file = open_file(called, shape)
    return Subject(name or library_name(Path(called).stem), called, file.module, shape, preprocessing, None, file)


def one_image(model: str, shapes: Sequence[tuple[int, ...]]) -> Shape:
    """C, H, W of a network's only input; `PccError` where it is none."""
    if len(shapes) != 1 or len(shapes[0]) != 4:
        taken = " and ".join("x".join(map(str, shape)) for shape in shapes)
        raise PccError(f"{model} takes {taken}: pcc compress is for networks of one image input, NxCxHxW")
    _, channels, height, width = shapes[0]
    return channels, height, width

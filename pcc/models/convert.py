"""Turns weights as packages carry them into tensors under the key names of pcc's models."""

import io
import json
import pickle  # noqa: TID251 - only for `_NumpyUnpickler`, which can make numpy arrays and nothing else
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcc.errors import PccError

Files = Mapping[str, bytes]
"""A package's members by path."""


def checkpoint(files: Files) -> dict[str, Tensor]:
    """The one PyTorch checkpoint among the files, as it is."""
    (data,) = files.values()
    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")


# ---- ResNet-50 from Keras, in TensorFlow.js shards ----


def keras_resnet50(files: Files) -> dict[str, Tensor]:
    """``model.json`` and its weight shards. Convolution biases go into the batch norm that follows: torchvision's
    convolutions have none."""
    arrays = _tfjs_arrays(files)
    state: dict[str, Tensor] = {}
    for layer in sorted({name.split("/")[0] for name in arrays}):
        if layer == "fc1000":
            state["fc.weight"] = _tensor(arrays["fc1000/kernel"].T)
            state["fc.bias"] = _tensor(arrays["fc1000/bias"])
        elif not layer.startswith("bn"):
            conv, norm = _resnet_names(layer)
            keras_norm = layer.replace("res", "bn") if layer.startswith("res") else f"bn_{layer}"
            state[f"{conv}.weight"] = _tensor(arrays[f"{layer}/kernel"].transpose(3, 2, 0, 1))
            state[f"{norm}.weight"] = _tensor(arrays[f"{keras_norm}/gamma"])
            state[f"{norm}.bias"] = _tensor(arrays[f"{keras_norm}/beta"])
            mean = arrays[f"{keras_norm}/moving_mean"].astype(np.float64) - arrays[f"{layer}/bias"]
            state[f"{norm}.running_mean"] = _tensor(mean)
            state[f"{norm}.running_var"] = _tensor(arrays[f"{keras_norm}/moving_variance"])
    return state


def _resnet_names(layer: str) -> tuple[str, str]:
    """Keras' ``res3b_branch2c`` is convolution 3 of the second block of ``layer2``; ``branch1`` is the shortcut's."""
    if layer == "conv1":
        return "conv1", "bn1"
    match = re.fullmatch(r"res([2-5])([a-f])_branch(1|2[abc])", layer)
    if match is None:
        raise PccError(f"ResNet-50 weights: unexpected layer '{layer}'")
    block = f"layer{int(match[1]) - 1}.{'abcdef'.index(match[2])}"
    if match[3] == "1":
        return f"{block}.downsample.0", f"{block}.downsample.1"
    number = "abc".index(match[3][1]) + 1
    return f"{block}.conv{number}", f"{block}.bn{number}"


def _tfjs_arrays(files: Files) -> dict[str, np.ndarray]:
    """The arrays that a TensorFlow.js ``weightsManifest`` lays end to end over its shards."""
    (model_path,) = (path for path in files if path.endswith("/model.json"))
    folder = model_path.removesuffix("model.json")
    arrays: dict[str, np.ndarray] = {}
    for group in json.loads(files[model_path])["weightsManifest"]:
        data = b"".join(files[folder + path] for path in group["paths"])
        sizes = [4 * int(np.prod(weight["shape"])) for weight in group["weights"]]
        for weight, end, size in zip(group["weights"], accumulate(sizes), sizes, strict=True):
            if weight["dtype"] != "float32" or "quantization" in weight:
                raise PccError(f"{weight['name']} is not plain float32")
            arrays[weight["name"]] = np.frombuffer(data, "<f4", size // 4, end - size).reshape(weight["shape"])
    return arrays


# ---- VGG-16's convolutions from a JAX package ----


def jax_vgg16_features(files: Files) -> dict[str, Tensor]:
    """A pickled dict of numpy arrays, ``VGG16_0/Conv_i/{kernel,bias}`` for the thirteen convolutions."""
    from pcc.models.vgg import CONFIGURATION_D

    (data,) = files.values()
    convolutions = _NumpyUnpickler(io.BytesIO(data)).load()["VGG16_0"]
    state: dict[str, Tensor] = {}
    position, number = 0, 0
    for filters in CONFIGURATION_D:
        if filters is None:
            position += 1
            continue
        layer = convolutions[f"Conv_{number}"]
        state[f"features.{position}.weight"] = _tensor(layer["kernel"].transpose(3, 2, 0, 1))
        state[f"features.{position}.bias"] = _tensor(layer["bias"])
        position, number = position + 2, number + 1
    return state


class _NumpyUnpickler(pickle.Unpickler):
    """Reads pickled numpy arrays in plain containers; any other class or function is refused before it is looked up."""

    _ALLOWED = (("numpy", "dtype"), ("numpy", "ndarray"))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._ALLOWED:
            return getattr(np, name)
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return np._core.multiarray._reconstruct  # pyright: ignore[reportAttributeAccessIssue]
        raise PccError(f"the weights file asks for {module}.{name}, which is not array data: refused")


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32).copy())

"""Why operators cannot be compiled, and what could be done instead."""

import re
from typing import Any

QUANTISED = "it computes with quantised values; pcc compiles fp32 models: export the network before it is quantised"
RANDOM = "random numbers; pcc compiles models that give the same each time: let the model take them as an input"
BY_VALUE = (
    "the size of its result depends on the values of the model's input; pcc compiles models whose shapes are always "
    "the same: keep all elements and set the others to 0, or end the model before it"
)
VOLUMES = "it works on volumes; pcc compiles images and rows: cut the volume into images"
SPECTRUM = (
    "it computes a spectrum, of complex numbers; pcc compiles real ones: compute it before the model, or as a product "
    "with a table of cosines and of sines"
)
DECOMPOSITION = (
    "it takes a matrix apart; pcc compiles products of matrices: compute it before the model, or end the model before "
    "it"
)

_PYTORCH = {
    r"torchvision\.nms\.": "how many boxes stay depends on their values; "
    "torch.ops.pcc.nms(boxes, scores, count, overlap, threshold) gives a fixed number:"
    " import pcc.ir.ops, or end the model before it",
    r"aten\.\w*3d\.": VOLUMES,
    r"aten\.(fft_|stft|istft|view_as_complex|view_as_real|complex|polar)": SPECTRUM,
    r"aten\.(linalg_|_linalg_|inverse|det|logdet|cholesky|qr|svd|eig|lu_)": DECOMPOSITION,
    r"(quantized|quantized_decomposed)\.|aten\.(quantize|fake_quantize|dequantize)": QUANTISED,
    r"aten\.(nonzero|masked_select|_?unique|unique_)": BY_VALUE,
}
"""By what the name of an operator begins with, ``aten.conv3d.default``."""


def advice(target: Any) -> str | None:
    """What is known about a call of a PyTorch graph that pcc cannot compile."""
    return next((phrase for name, phrase in _PYTORCH.items() if re.match(name, str(target))), None)

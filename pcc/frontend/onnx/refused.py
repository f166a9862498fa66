"""What pcc cannot import of ONNX, and what could be done instead: operators, and what mixes or counts marked rows."""

from pcc.frontend.advice import BY_VALUE, DECOMPOSITION, QUANTISED, RANDOM, SPECTRUM
from pcc.frontend.onnx.emitter import Refused
from pcc.frontend.onnx.marks import Rows, Sizes

_LOOP = "it runs a part of the model by itself; pcc compiles plain operators: export the model with its loops unrolled"
_SEQUENCE = "it handles lists of tensors; pcc compiles tensors: return or concatenate them"
_TEXT = "it handles text; pcc compiles numbers: do it before the model"
_REGIONS = "it takes the largest of each region; pcc has averages: train and export the model with RoiAlign"

REFUSED = {
    **dict.fromkeys(
        ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"),
        QUANTISED,
    ),
    "SequenceMap": _LOOP,
    **dict.fromkeys(
        ("SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength"),
        _SEQUENCE,
    ),
    **dict.fromkeys(
        ("SplitToSequence", "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement"), _SEQUENCE
    ),
    **dict.fromkeys(
        ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"), RANDOM
    ),
    **dict.fromkeys(
        ("StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "TfIdfVectorizer", "ImageDecoder"), _TEXT
    ),
    "Unique": BY_VALUE,
    **dict.fromkeys(("DFT", "STFT"), SPECTRUM),
    "Det": DECOMPOSITION,
    "MaxRoiPool": _REGIONS,
}


def refusal(mark: Rows | Sizes) -> Refused:
    name = mark.output if isinstance(mark, Rows) else mark.rows.output
    return Refused(
        "it mixes or counts the rows of a NonMaxSuppression, which gives as many as there could be: end the model "
        f"before; its output '{name}' says how many of them count"
    )

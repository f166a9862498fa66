"""ONNX operators that pcc cannot import, and what could be done instead."""

_QUANTISED = "it computes with quantised values; pcc compiles fp32 models: export the network before it is quantised"
_LOOP = "it runs a part of the model by itself; pcc compiles plain operators: export the model with its loops unrolled"
_SEQUENCE = "it handles lists of tensors; pcc compiles tensors: return or concatenate them"
_RANDOM = "random numbers; pcc compiles models that give the same each time"
_TEXT = "it handles text; pcc compiles numbers: do it before the model"
_BY_VALUE = (
    "the size of its result depends on the values of the model's input; pcc compiles models whose shapes are always "
    "the same"
)

REFUSED = {
    **dict.fromkeys(
        ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"),
        _QUANTISED,
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
        ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"), _RANDOM
    ),
    **dict.fromkeys(
        ("StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "TfIdfVectorizer", "ImageDecoder"), _TEXT
    ),
    "Unique": _BY_VALUE,
}

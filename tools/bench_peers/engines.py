"""The engines, as data: where each is installed, which adapter runs it, and whether it gains from zeros."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tools.bench_peers.environments import Environment


@dataclass(frozen=True)
class Engine:
    """One way to run a network, with its column in the table."""

    name: str
    title: str
    adapter: str
    """Module with a class ``Adapter``."""
    environment: Environment | None = None
    """None: this program's own."""
    uses_zeros: bool = False
    """Whether it may be faster for zeros in the weights. Engines that are not are dense peers whatever the weights."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of its process."""


_ADAPTERS = "tools.bench_peers.adapters"
_TORCH = "torch==2.13.0"
_NUMPY = "numpy==2.4.6"
_MNN = Environment("mnn", ("MNN==3.6.1", _NUMPY))
_NCNN = Environment("ncnn", ("ncnn==1.0.20261020", _NUMPY), alone=("pnnx==20261020",))
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_ENGINES = (
    Engine("pcc", "pcc", f"{_ADAPTERS}.pcc_package", uses_zeros=True),
    Engine(
        "onnxruntime",
        "ONNX Runtime",
        f"{_ADAPTERS}.onnx_runtime",
        Environment("onnxruntime", ("onnxruntime==1.31.1", _NUMPY)),
    ),
    Engine("openvino", "OpenVINO", f"{_ADAPTERS}.open_vino", Environment("openvino", ("openvino==2026.4.1", _NUMPY))),
    Engine("mnn", "MNN", f"{_ADAPTERS}.mnn_module", _MNN),
    Engine("mnn-sparse", "MNN, sparse", f"{_ADAPTERS}.mnn_sparse", _MNN, uses_zeros=True),
    Engine("ncnn", "ncnn", f"{_ADAPTERS}.ncnn_net", _NCNN, variables=_ONE_THREAD),
    Engine(
        "executorch",
        "ExecuTorch",
        f"{_ADAPTERS}.executorch_program",
        Environment("executorch", (_TORCH, "executorch==1.5.1")),
    ),
    Engine(
        "litert", "LiteRT", f"{_ADAPTERS}.litert_interpreter", Environment("litert", (_TORCH, "litert-torch==0.10.0"))
    ),
    Engine(
        "deepsparse",
        "DeepSparse",
        f"{_ADAPTERS}.deepsparse_engine",
        Environment("deepsparse", ("deepsparse==1.8.0", "protobuf<5"), python="3.10"),
        uses_zeros=True,
        variables={"NM_DISABLE_ANALYTICS": "True"},  # it reports its use to its makers otherwise
    ),
    Engine(
        "inductor",
        "torch inductor",
        f"{_ADAPTERS}.torch_inductor",
        Environment("inductor", (_TORCH, _NUMPY)),
        variables=_ONE_THREAD,
    ),
)
ENGINES: Mapping[str, Engine] = {engine.name: engine for engine in _ENGINES}
"""By name, in the order of the table's columns; pcc is the first."""

FP16_ENGINES: Mapping[str, Engine] = {
    "ncnn-fp16": Engine("ncnn-fp16", "ncnn, fp16", f"{_ADAPTERS}.ncnn_half", _NCNN, variables=_ONE_THREAD)
}
"""Those that compute in fp16, on arm64."""

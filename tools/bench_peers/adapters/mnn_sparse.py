"""MNN with its sparse marking: convolutions with enough zeros are marked by the converter, and the CPU backend may take
a sparse kernel for them."""

# pyright: reportMissingImports=false
import json
import tempfile
from pathlib import Path
from typing import Any

from tools.bench_peers.adapters import mnn_module


class Adapter(mnn_module.Adapter):
    def options(self, into: Path) -> list[str]:
        """``--detectSparseSpeedUp`` does nothing without a file that says the network was pruned."""
        parameters = into / "pruned.bin"
        parameters.write_bytes(pruned_at_random())
        return ["--detectSparseSpeedUp", "--compressionParamsFile", str(parameters)]

    def evidence(self) -> dict[str, Any]:
        """How many convolutions are marked; the converter prints them as JSON."""
        import _tools

        with tempfile.TemporaryDirectory() as folder:
            text = Path(folder) / "model.json"
            _tools.mnnconvert(
                ["mnnconvert", "-f", "MNN", "--modelFile", str(self.converted / "model.mnn"), "--JsonFile", str(text)]
            )
            operators = [entry.get("main", {}) for entry in json.loads(text.read_text())["oplists"]]
        marked = sum("sparseParameter" in operator for operator in operators)
        if not marked:
            raise RuntimeError("the converter marked no convolution as sparse")
        return {"sparse convolutions": marked, "convolutions": sum("common" in operator for operator in operators)}


def pruned_at_random() -> bytes:
    """MNN's protobuf message Compression.Pipeline: version 0.0.0, one algorithm, PRUNE, RANDOM, with default level
    parameters.

    Written by hand: field 1 is the version; field 2 an algorithm, whose field 1 is its type and field 3 how it prunes
    (type, parameters).
    """
    version = b"0.0.0"
    prune = bytes([0x08, 0, 0x12, 0])
    algorithm = bytes([0x08, 1, 0x1A, len(prune)]) + prune
    return bytes([0x0A, len(version)]) + version + bytes([0x12, len(algorithm)]) + algorithm

"""What a command imports: kernels from the cache need no TVM, which takes seconds to import."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from pcc.cli.app import run
assert not {"torch", "tvm", "numpy"} & set(sys.modules), "the command line imports too much before it knows what to do"
assert run(["compile", "lenet5", "--weights", "none", "--target", "x86_64-linux", "-o", sys.argv[1]]) == 0
print(*{name.split(".")[0] for name in sys.modules})
"""


def test_a_compilation_from_the_cache_imports_no_tvm(tmp_path: Path) -> None:
    def imported() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "net")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1].split()

    imported()  # fills the cache
    modules = imported()
    assert "torch" in modules
    assert not {"tvm", "onnx", "onnxruntime", "tensorboard"} & set(modules)

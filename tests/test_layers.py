"""The walls of the house: who in ``pcc/`` may import whom. Which foreign packages go where is ruff's business
(banned-api in pyproject.toml)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pcc

PACKAGE = Path(pcc.__file__).parent

EVERYWHERE = {
    "errors",
    "cache",
    "config",
    "dtype",
    "fields",
    "files",
    "preprocessing",
    "progress",
    "scratch",
    "target",
    "tensor_file",
    "zig",
}

MAY_IMPORT = {
    "sparsity": set(),
    "ir": {"sparsity"},
    "passes": {"ir", "sparsity"},
    "frontend": {"ir", "passes", "sparsity"},
    "models": {"frontend"},
    "codegen": {"ir", "passes", "sparsity"},
    "package": {"codegen", "ir", "sparsity"},
    "runtime": {"package"},
    "deploy": {"package", "runtime"},
    "tune": {"codegen", "deploy", "ir", "package", "sparsity"},
    "training": {"frontend", "ir", "models", "passes", "sparsity"},
    "report": {"codegen", "deploy", "ir", "package", "passes", "sparsity"},
    "any_batch": {"frontend", "ir", "passes"},
    "planner": {"codegen", "frontend", "ir", "package", "passes"},
    "compile_report": {"codegen", "ir", "package", "passes"},
    "reporter": {"compile_report", "deploy", "ir", "package", "report"},
    "compiler": {
        "any_batch",
        "codegen",
        "compile_report",
        "frontend",
        "ir",
        "package",
        "passes",
        "planner",
        "reporter",
    },
    "explain": {"codegen", "frontend", "package", "passes", "planner", "report"},
    "exporter": {"frontend", "models", "passes"},
    "evaluate": {"deploy", "frontend", "ir", "models", "package", "runtime", "training"},
    "compression": {
        "codegen",
        "compiler",
        "deploy",
        "evaluate",
        "frontend",
        "ir",
        "models",
        "package",
        "passes",
        "planner",
        "report",
        "runtime",
        "sparsity",
        "training",
    },
    "cli": {
        *(
            "codegen",
            "compile_report",
            "compiler",
            "compression",
            "deploy",
            "evaluate",
            "explain",
            "exporter",
            "frontend",
            "ir",
            "models",
            "package",
            "passes",
            "planner",
            "report",
        ),
        *("training", "tune"),
    },
    "__init__": {"codegen", "compile_report", "compiler", "compression", "frontend", "models", "passes", "runtime"},
    "errors": set(),
    "cache": set(),
    "config": set(),
    "dtype": set(),
    "fields": set(),
    "files": set(),
    "preprocessing": set(),
    "progress": set(),
    "scratch": set(),
    "target": set(),
    "zig": set(),
}
"""Downward only: the structures of sparsity know no graph, the graph knows no kernels, kernels know no package."""


_BY_NAME = re.compile(r"pcc\.(\w*)[\w.]*(?::\w*)?")


def imports(source: Path) -> Iterator[tuple[str, bool]]:
    """Modules that a file imports, and whether the import runs with the file (not inside a function or under
    TYPE_CHECKING).

    A text that is the name of a module, ``"pcc.codegen.lower:lower"`` or ``f"pcc.cli.{command}"``, is an import by
    name.
    """
    tree = ast.parse(source.read_text(encoding="utf-8"))
    at_once = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: relative import"
            names = [f"pcc.{alias.name}" for alias in node.names] if node.module == "pcc" else [str(node.module)]
            yield from ((name, id(node) in at_once) for name in names)
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and (named := _BY_NAME.fullmatch(node.value))
        ):
            assert named[1], f"{source}: '{node.value}' hides which room is imported"
            if named[1] in MAY_IMPORT:
                yield f"pcc.{named[1]}", False


def room(source: Path) -> str:
    return source.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_imports_run_downward() -> None:
    upward = [
        f"{source.relative_to(PACKAGE)} imports {module}"
        for source in sources()
        for module, _ in imports(source)
        if module.startswith("pcc.")
        and module.split(".")[1] not in {room(source), *EVERYWHERE, *MAY_IMPORT[room(source)]}
    ]
    assert not upward


@pytest.mark.parametrize(
    "text",
    [
        "import pcc.codegen.lower",
        "from pcc import codegen",
        "from pcc.codegen.lower import lower",
        "importlib.import_module('pcc.codegen.lower')",
        "importlib.import_module(f'pcc.codegen.{name}')",
        "package = 'pcc.codegen'",
        "PASSES = {'lower': 'pcc.codegen.lower:lower'}",
        "def function():\n    import pcc.codegen",
    ],
)
def test_every_way_to_import_is_seen(text: str, tmp_path: Path) -> None:
    (tmp_path / "source.py").write_text(text)
    assert [module.split(".")[:2] for module, _ in imports(tmp_path / "source.py")] == [["pcc", "codegen"]]


def test_tvm_is_imported_late() -> None:
    """Lowering, interpreting and linking cached kernels do without TVM, which takes seconds to import."""
    eager = {
        str(source.relative_to(PACKAGE))
        for source in sources()
        for module, at_once in imports(source)
        if at_once and module.split(".")[0] == "tvm"
    }
    assert eager == {"codegen/builder.py", "codegen/opencl/builder.py"}
    builders = {
        str(source.relative_to(PACKAGE))
        for source in sources()
        for module, at_once in imports(source)
        if at_once and module in ("pcc.codegen.builder", "pcc.codegen.opencl.builder")
    }
    assert not builders, "these import the builder, and TVM with it, at once"

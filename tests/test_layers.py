"""The walls of the house: who in ``pcc/`` may import whom. Which foreign packages go where is ruff's business (banned-api in pyproject.toml)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pcc

PACKAGE = Path(pcc.__file__).parent

EVERYWHERE = {"errors", "cache", "preprocessing", "scratch", "target"}

MAY_IMPORT = {
    "sparsity": set(),
    "ir": {"sparsity"},
    "passes": {"ir", "sparsity"},
    "frontend": {"ir", "passes", "sparsity"},
    "models": {"frontend"},
    "codegen": {"ir", "passes", "sparsity"},
    "package": {"codegen"},
    "runtime": {"package"},
    "deploy": {"package", "runtime"},
    "training": {"frontend", "ir", "models", "sparsity"},
    "compiler": {"codegen", "frontend", "ir", "package", "passes"},
    "cli": {"compiler", "deploy", "frontend", "models", "package", "passes", "training"},
    "__init__": {"compiler", "passes", "runtime"},
    "errors": set(),
    "cache": set(),
    "preprocessing": set(),
    "scratch": set(),
    "target": set(),
}
"""Downward only: the structures of sparsity know no graph, the graph knows no kernels, kernels know no package."""


def imports(source: Path) -> Iterator[tuple[str, bool]]:
    """Modules that a file imports, and whether the import runs with the file (not inside a function or under TYPE_CHECKING)."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    at_once = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: relative import"
            names = [f"pcc.{alias.name}" for alias in node.names] if node.module == "pcc" else [str(node.module)]
            yield from ((name, id(node) in at_once) for name in names)


def room(source: Path) -> str:
    return source.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_imports_run_downward() -> None:
    upward = [
        f"{source.relative_to(PACKAGE)} imports {module}"
        for source in sources()
        for module, _ in imports(source)
        if module.startswith("pcc.") and module.split(".")[1] not in {room(source), *EVERYWHERE, *MAY_IMPORT[room(source)]}
    ]
    assert not upward


def test_tvm_is_imported_late() -> None:
    """Lowering, interpreting and linking cached kernels do without TVM, which takes seconds to import."""
    eager = {str(source.relative_to(PACKAGE)) for source in sources() for module, at_once in imports(source) if at_once and module.split(".")[0] == "tvm"}
    assert eager == {"codegen/builder.py"}
    builders = {str(source.relative_to(PACKAGE)) for source in sources() for module, at_once in imports(source) if at_once and module == "pcc.codegen.builder"}
    assert not builders, "these import the builder, and TVM with it, at once"

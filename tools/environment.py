"""Says by its exit status whether this interpreter already has what pyproject.toml and constraints.txt ask for, and
this checkout's pcc.

Lets `make setup` leave a finished environment alone, also without a network. Standard library only: it runs before
anything is installed.
"""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def wanted() -> dict[str, str]:
    """Requirement name -> exact version, or an empty string where any will do."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    versions: dict[str, str] = {}
    for requirement in [*requirements, *pins]:
        match = re.match(r"([\w.-]+)(?:==([\w.]+))?", requirement)
        assert match, requirement
        if requirement in requirements or match[1] in versions:
            versions[match[1]] = match[2] or versions.get(match[1], "")
    return versions


def installed(name: str) -> str | None:
    """The installed version, without a local label such as ``+cpu``; None when there is none."""
    try:
        return importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def is_this_checkout() -> bool:
    """Whether ``pcc`` is installed here and is the one beside this file."""
    try:
        origin = importlib.metadata.distribution("pcc").read_text("direct_url.json") or ""
    except importlib.metadata.PackageNotFoundError:
        return False
    return f'"{ROOT.as_uri()}"' in origin


def main() -> int:
    """0 when everything is there."""
    missing = [
        name for name, version in wanted().items() if (found := installed(name)) is None or version not in ("", found)
    ]
    return 0 if not missing and is_this_checkout() else 1


if __name__ == "__main__":
    sys.exit(main())

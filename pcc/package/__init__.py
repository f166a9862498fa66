"""What lands on disk: packages, written and read."""

from pcc.package.manifest import Manifest
from pcc.package.publish import new_package
from pcc.package.read import Package, open_package
from pcc.package.spec import PackageSpec, SelfTest, TargetBuild
from pcc.package.write import build_package, package_files

__all__ = [
    "Manifest",
    "Package",
    "PackageSpec",
    "SelfTest",
    "TargetBuild",
    "build_package",
    "new_package",
    "open_package",
    "package_files",
]

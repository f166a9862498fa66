"""Twenty labelled ImageNet photos, to see that a compiled network still recognises things."""

import re
from dataclasses import dataclass
from pathlib import Path

from pcc.cache import cache_root
from pcc.files import write_atomically
from pcc.models.fetch import RemotePackage, fetch_members

PACKAGE = RemotePackage(
    "pypi", "foolbox", "3.3.4", "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb", "wheel"
)
COUNT = 20


@dataclass(frozen=True)
class Photo:
    """A photo file, and the ImageNet class it shows."""

    path: Path
    label: int


def photos() -> tuple[Photo, ...]:
    """The photos, in a fixed order; the first call fetches them into the cache."""
    folder = cache_root() / "photos" / f"{PACKAGE.name}-{PACKAGE.version}"
    if len(list(folder.glob("*.jpg"))) != COUNT:
        for name, data in fetch_members(PACKAGE, r"foolbox/data/imagenet_\d+_\d+\.jpg").items():
            write_atomically(folder / Path(name).name, lambda path, data=data: path.write_bytes(data))
    return tuple(Photo(path, _label(path)) for path in sorted(folder.glob("*.jpg")))


def _label(path: Path) -> int:
    match = re.fullmatch(r"imagenet_\d+_(\d+)", path.stem)
    assert match is not None  # `photos` keeps no other files there
    return int(match[1])

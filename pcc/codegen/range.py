"""How many work-items a call of a device kernel has, and in which groups."""

from dataclasses import dataclass

Sizes = tuple[int, int, int]


@dataclass(frozen=True)
class Range:
    """OpenCL's NDRange: how many work-items there are, and how many form a work-group, which divides it."""

    global_size: Sizes
    local_size: Sizes

    def __post_init__(self) -> None:
        if any(size < 1 or items % size for items, size in zip(self.global_size, self.local_size, strict=True)):
            raise ValueError(f"work-groups of {self.local_size} do not divide a range of {self.global_size}")

    def __str__(self) -> str:
        return f"{_sizes(self.global_size)} in {_sizes(self.local_size)}"

    @staticmethod
    def covering(items: Sizes, local_size: Sizes) -> "Range":
        """The smallest range of whole work-groups that has so many items; kernels return from those outside."""
        x, y, z = (-(-count // size) * size for count, size in zip(items, local_size, strict=True))
        return Range((x, y, z), local_size)


def _sizes(sizes: Sizes) -> str:
    return "x".join(map(str, sizes))

"""The text of a recipe: YAML with names, texts and numbers as its only values, none of them absurd."""

from typing import Any

import yaml

from pcc.errors import PccError

MOST_DEPTH = 20
MOST_NODES = 10_000
"""Values of a recipe, those that an alias repeats counted each time."""
LARGEST = 2**53
"""Of whole numbers: up to it every one of them is a floating-point number, too."""


def read_yaml(text: str, source: str) -> Any:
    """What a YAML text holds: dicts, lists, texts, bools, finite numbers and None. `PccError` naming ``source``, line
    and column where it is anything else."""
    try:
        _check_size(text)
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise PccError(f"{source}{place} is no YAML of a recipe: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        raise PccError(f"{source}, character {error.position}: {error.character:#04x} is no text") from None


def _check_size(text: str) -> None:
    """Refuses what would be very deep or very large in memory, before anything of it is made."""
    sizes: dict[str, int] = {}
    """Nodes under each anchor."""
    opened: list[tuple[str | None, int]] = []
    """Anchor of each collection that has not ended, and the nodes before it."""
    nodes = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, nodes))
            nodes += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor:
                sizes[anchor] = nodes - before
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise _wrong(f"alias '{event.anchor}' stands for nothing that has ended before it", event.start_mark)
            nodes += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor:
                sizes[event.anchor] = 1
        _check_limits(len(opened), nodes, event.start_mark)


def _check_limits(depth: int, nodes: int, mark: yaml.Mark) -> None:
    if depth > MOST_DEPTH:
        raise _wrong(f"lists and mappings lie more than {MOST_DEPTH} deep", mark)
    if nodes > MOST_NODES:
        raise _wrong(f"it has more than {MOST_NODES:,} values, those that aliases repeat counted", mark)


class _Loader(yaml.SafeLoader):
    """With numbers, texts and names only."""


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    try:
        value = loader.construct_yaml_int(node) if node.tag.endswith(":int") else loader.construct_yaml_float(node)
    except (ValueError, OverflowError):
        value = None
    if value is None or not abs(value) <= LARGEST:  # NaN is not, either
        raise _wrong(
            f"'{node.value[:20]}' is no number that a recipe can hold: give a finite one, up to 2^53", node.start_mark
        )
    return value


def _other(loader: _Loader, node: yaml.Node) -> Any:
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    raise _wrong(f"a value of kind '{kind}': a recipe has names, texts, numbers, lists and mappings", node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
for _kind in ("timestamp", "binary", "set", "omap", "pairs"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _other)
_Loader.add_constructor(None, _other)  # pyright: ignore[reportArgumentType]  # None stands for every other tag


def _wrong(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)

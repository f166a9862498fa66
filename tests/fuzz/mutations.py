"""Files that are wrong: other bytes, and, for those that a checksum or a parser would refuse at once, other values in
their place."""

import copy
import io
import json
import struct
import zipfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import onnx

Mutation = Callable[[bytes, Random], bytes]

NUMBERS = (0, 1, -1, 7, 255, 2**16, 2**31 - 1, 2**31, -(2**31), 2**40, 2**63 - 1, -(2**63))
"""Sizes, counts and places that overflow, or ask for more memory than there is."""
REALS = (0.0, -1.0, 1e-320, 1e308, float("inf"), float("nan"))
TEXTS = (
    "",
    "x",
    "\0",
    "\n",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a" * 5000,
    "é\u202e",
    "-1",
    "1e999",
    "None",
    "{}",
    "Tensor(a!)[]?",
)
WORDS = (b"\0", b"\xff", b"[", b"{", b'"', b"9", b"\t", b"&a ", b"*a ", b"..", b"/", b"\xff\xff\xff\xff", b"\0\0\0\x80")


def damage(content: bytes, random: Random) -> bytes:
    """One to four bytes or bits are others, are gone, or have come in; or the end is missing. Most often near the
    start, where formats have their sizes."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 4)):
        place = random.randrange(max(1, min(len(changed), random.choice((64, 256, len(content) or 1)))))
        match random.randrange(6):
            case 0:
                changed[place : place + 1] = random.randbytes(1)
            case 1 if changed:
                changed[place % len(changed)] ^= 1 << random.randrange(8)
            case 2:
                changed[place:place] = random.choice(WORDS)
            case 3:
                del changed[place : place + random.randint(1, 9)]
            case 4:
                del changed[len(changed) - random.randrange(8) :]
            case _:
                changed[place : place + 4] = struct.pack("<I", random.choice(NUMBERS) & 0xFFFFFFFF)
    return bytes(changed[: random.randrange(len(changed) + 1)]) if random.randrange(20) == 0 else bytes(changed)


def other_value(random: Random, depth: int = 0) -> Any:
    """A value of JSON that nobody expects."""
    match random.randrange(6):
        case 0:
            return random.choice(NUMBERS)
        case 1:
            return random.choice(REALS)
        case 2:
            return random.choice(TEXTS)
        case 3:
            return random.choice((None, True, False))
        case 4 if depth < 3:
            return [other_value(random, depth + 1) for _ in range(random.randrange(4))]
        case _:
            return {random.choice(TEXTS): other_value(random, 3)} if depth < 3 else {}


def change_value(tree: Any, random: Random) -> Any:
    """A tree of dicts, lists and plain values with one to three of them changed, left out or put in another's place.
    Texts that are JSON are trees, too."""
    for _ in range(random.randint(1, 3)):
        places = list(_places(tree))
        if not places:
            return other_value(random)
        holder, key = random.choice(places)
        value = holder[key]
        match random.randrange(5):
            case 0:
                del holder[key]
            case 1:
                other, place = random.choice(places)
                holder[key] = json.loads(json.dumps(other[place]))
            case 2 if isinstance(value, str) and value[:1] in ("{", "["):
                holder[key] = json.dumps(change_value(json.loads(value), random))
            case 3 if isinstance(holder, dict):
                holder[random.choice(TEXTS)] = value
            case _:
                holder[key] = other_value(random)
    return tree


def _places(tree: Any) -> Any:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])


def change_json(content: bytes, random: Random) -> bytes:
    """A JSON text with other values, now and then very deep."""
    if random.randrange(50) == 0:
        return content[:-1] + b"[" * 100_000
    return json.dumps(change_value(json.loads(content), random)).encode()


def change_onnx(content: bytes, random: Random) -> bytes:
    """A model with other values in one to three of its fields, whatever messages they are in; parts are left out,
    repeated, or stand for others."""
    model = onnx.ModelProto.FromString(content)
    for _ in range(random.randint(1, 3)):
        fields = list(_fields(model))
        message, field = random.choice(fields)
        if field.is_repeated:
            _change_parts(getattr(message, field.name), field, random)
        elif field.message_type is not None:
            same = [
                value
                for other, kind in fields
                if kind.message_type is field.message_type
                for value in _messages(other, kind)
            ]
            if random.randrange(2):
                # A copy first: a message that is copied into a part of itself is gone before it is read.
                copied = copy.deepcopy(random.choice(same))
                getattr(message, field.name).CopyFrom(copied)
            else:
                message.ClearField(field.name)
        else:
            setattr(message, field.name, _scalar(field, random))
    return model.SerializeToString()


def _change_parts(parts: Any, field: Any, random: Random) -> None:
    place = random.randrange(len(parts))
    match random.randrange(4):
        case 0:
            del parts[place]
        case 1 if field.message_type is not None:
            parts.add().CopyFrom(random.choice(parts))
        case 2 if field.message_type is not None:
            parts[place].CopyFrom(random.choice(parts))
        case _:
            if field.message_type is not None:
                return
            value = _scalar(field, random)
            parts[place] = value
            if random.randrange(2):
                parts.append(value)


def _messages(message: Any, field: Any) -> Sequence[Any]:
    value = getattr(message, field.name)
    return list(value) if field.is_repeated else [value]


def _fields(message: Any) -> Any:
    """All fields that are set, in all messages."""
    for field, value in message.ListFields():
        yield message, field
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                yield from _fields(part)


def _scalar(field: Any, random: Random) -> Any:
    kinds = type(field)
    if field.type == kinds.TYPE_STRING:
        return random.choice(TEXTS)
    if field.type == kinds.TYPE_BYTES:
        return random.choice(TEXTS).encode()
    if field.type in (kinds.TYPE_FLOAT, kinds.TYPE_DOUBLE):
        return random.choice(REALS)
    if field.type == kinds.TYPE_ENUM:
        return random.choice(field.enum_type.values).number
    value = random.choice((*NUMBERS, *range(24)))
    return (
        value
        if field.type == kinds.TYPE_INT64
        else max(-(2**31), min(2**31 - 1, value))
        if field.type == kinds.TYPE_INT32
        else abs(value)
    )


def change_zip(content: bytes, random: Random) -> bytes:
    """An archive whose checksums are right, with one file changed, left out, twice there, compressed, or of another
    name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    place = random.randrange(len(files))
    name, data = files[place]
    how = zipfile.ZIP_STORED
    match random.randrange(8):
        case 0:
            del files[place]
        case 1:
            files.append((name, random.choice(files)[1]))
        case 2:
            files[place] = (random.choice((*TEXTS, random.choice(files)[0])) or "_", data)
        case 3:
            how = zipfile.ZIP_DEFLATED
        case _ if name.endswith(".json") and data[:1] in (b"{", b"["):
            files[place] = (name, change_json(data, random))
        case _:
            files[place] = (name, damage(data, random))
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", how) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name[:5000]), data, how)
    return whole.getvalue()


def change_safetensors(content: bytes, random: Random) -> bytes:
    """A safetensors file whose header has other values, and its right length."""
    length = struct.unpack("<Q", content[:8])[0]
    header = change_json(content[8 : 8 + length], random)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def either(change: Mutation) -> Mutation:
    """One of the two: bytes that are wrong, and values that are wrong. What the second cannot read any more gets the
    first."""

    def mutate(content: bytes, random: Random) -> bytes:
        if random.randrange(3):
            try:
                return change(content, random)
            except Exception:  # it is no such file any more
                pass
        return damage(content, random)

    return mutate

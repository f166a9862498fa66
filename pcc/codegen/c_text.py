"""Names that people chose, in C: any text as a string literal, or in a comment. What comes out is ASCII, and means the
same with and without trigraphs."""

import re

_ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def c_string(text: str) -> str:
    """A C string literal whose bytes are the text in UTF-8. What a C string cannot hold (NUL, half a surrogate pair) is
    written out as Python would."""
    text = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
    return f'"{re.sub(r"(?<=[?])[?]", lambda _: chr(92) + "?", "".join(map(_escape, text)))}"'


def _escape(character: str) -> str:
    if character in _ESCAPED:
        return _ESCAPED[character]
    if " " <= character <= "~":
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode())


def c_comment(text: str) -> str:
    """The text on one line inside of a comment, never at its end: it neither ends the comment nor begins another, and
    joins no lines."""
    shown = "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in text)
    return re.sub(r"[*](?=/)|/(?=[*])|[?](?=[?])", lambda found: found[0] + " ", shown)

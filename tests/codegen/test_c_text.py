"""Any text in C: read back by the project's C compiler, as the bytes that went in."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pcc.codegen.c_text import c_comment, c_string
from pcc.package.toolchain import run_tool, zig

TEXTS = [
    "",
    "plain",
    "*/ int x;",
    "/*",
    "/*/",
    "**//",
    "??/",
    "???/",
    "a\nb\r\tc",
    "\x07\x1b[31m",
    "größe 图 🙂",
    '"',
    "\\",
    "\\n",
    "a\\",
    "%s",
    "\x7f1",
    "\u202e",
]


@pytest.mark.parametrize("flag", ["-trigraphs", "-fno-trigraphs"])
def test_read_back_by_the_compiler(tmp_path: Path, flag: str) -> None:
    lines = [
        f"/* {c_comment(text)}: */ {{sizeof {c_string(text)} - 1, {c_string(text)}}}, // {c_comment(text)}."
        for text in TEXTS
    ]
    rows = "\n".join(lines)
    source = f"""#include <stdio.h>
static const struct {{ size_t size; const char *text; }} rows[] = {{
{rows}
}};
int main(void) {{
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) fwrite(rows[i].text, 1, rows[i].size, stdout), putchar(0);
  return 0;
}}
"""
    (tmp_path / "text.c").write_text(source, encoding="ascii")
    command = [
        *zig(),
        "cc",
        "-target",
        "x86_64-linux-musl",
        "-O2",
        "-static",
        "-s",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-std=c11",
        flag,
    ]
    run_tool([*command, str(tmp_path / "text.c"), "-o", str(tmp_path / "text")])
    printed = subprocess.run([tmp_path / "text"], capture_output=True, check=True).stdout
    assert printed.decode().split("\0") == [*TEXTS, ""]


def test_what_no_string_can_hold_is_written_out() -> None:
    assert c_string("a\0b") == r'"a\\x00b"'
    assert c_string("\ud800") == r'"\\ud800"'


@given(st.text(st.characters() | st.sampled_from('*/?\\\n"')))
@example("\ud800")
def test_comments_never_end_or_begin(text: str) -> None:
    shown = c_comment(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert not [mark for mark in ("*/", "/*", "??") if mark in shown]
    assert "??" not in c_string(text)

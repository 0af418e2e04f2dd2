"""Text from models, files and people, made safe to look at and to carry inside a page.

    visible("a\\u202eb")        # 'a\\\\u202eb': what would hide or reorder text is written out
    safe_json({"x": "\\x9b2J"})   # JSON that says the same and holds no such character
    script_json({"x": "</script>"})   # JSON that can stand in a <script> element

The template engine escapes HTML (autoescape). This module neutralises what escaping leaves: control characters, lone
surrogates, bidirectional and invisible marks, and the ends of script elements.
"""

from __future__ import annotations

import json
import re
from typing import Any

# C0 and C1 controls but tab and newline, soft hyphen, Arabic letter mark, zero-width and bidirectional marks,
# line and paragraph separators, invisible operators, surrogates, byte order mark, annotations, noncharacters, tags.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)
_MARKUP = re.compile("[<>&]")


def visible(text: str) -> str:
    """Text in which every hidden character is written out as an escape, and line ends are newlines."""
    return HIDDEN.sub(_escape, text.replace("\r\n", "\n"))


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def one_line(text: str) -> str:
    r"""Text on one line, with hidden characters, newlines and tabs written out (`\x1b`, `\n`, `\u202e`)."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def safe_json(value: Any) -> str:
    """JSON for a terminal or a file: nothing in it hides, and it reads back as the same value."""
    return visible_json(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def visible_json(text: str) -> str:
    """The same JSON, with every hidden character as an escape of JSON's own."""
    return HIDDEN.sub(_escape_json, text)


def script_json(value: Any) -> str:
    """Compact JSON without a character that could open or end anything in HTML, hide, or not be UTF-8."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return visible_json(_MARKUP.sub(_escape_json, text))


def _escape_json(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1] if ord(found[0]) > 0x7F else f"\\u{ord(found[0]):04x}"

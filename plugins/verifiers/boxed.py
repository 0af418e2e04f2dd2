"""Finds the last `\\boxed{...}` (or `\\fbox{...}`, or LaTeX's braceless `\\boxed 5`) in a text.

Braces are balanced, `\\{` and `\\}` are not braces. A box that never closes (a completion cut at the token
limit) is no box. One pass over the text, so a hostile completion costs no more than its length.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\\(?P<box>boxed|fbox)(?![A-Za-z])\s*+(?P<open>\{)?|\\.|[{}]", re.DOTALL)
_BARE = re.compile(r"[^\s${}\\]++")


def last_boxed(text: str) -> str | None:
    """Content of the last complete box, stripped (an empty box gives ""); None where there is no box."""
    best_start, best = -1, None
    # Start of the content for a box's brace, -1 for any other open brace.
    open_braces: list[int] = []
    for token in _TOKEN.finditer(text):
        if token["box"]:
            if token["open"]:
                open_braces.append(token.end())
            elif bare := _BARE.match(text, token.end()):
                best_start, best = token.end(), bare[0].rstrip(".,;:")
        elif token[0] == "{":
            open_braces.append(-1)
        elif token[0] == "}" and open_braces:
            start = open_braces.pop()
            if start > best_start:
                best_start, best = start, text[start : token.start()].strip()
    return best

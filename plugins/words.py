"""How durations, shares and suggestions are said, everywhere the same.

duration(185)                                        # "3 min 05 s"
percent(None)                                        # "-"
did_you_mean("studnt", names, "; `nsd runs` ...")    # "; did you mean 'student'?"
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CORRECTIONS = {"holm": "Holm", "bonferroni": "Bonferroni", "bh": "Benjamini-Hochberg", "none": "no correction"}


def duration(seconds: float) -> str:
    """Seconds as `4.2 s`, `42 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def percent(share: float | None) -> str:
    """A share in percent, a dash where there is none."""
    return "-" if share is None else f"{share:.1%}"


def did_you_mean(name: str, names: Iterable[str], otherwise: str) -> str:
    """The end of an error about an unknown name: up to three that are near, else `otherwise`."""
    near = difflib.get_close_matches(name, list(dict.fromkeys(names)), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else otherwise

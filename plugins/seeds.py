"""Named random streams: one seed in the spec becomes independent seeds for every use of chance.

`stream(42, "eval")` is the seed of evaluation, `stream(seed, question_id, 3)` that of a question's
fourth completion. A stream depends on its names only, never on what was drawn before it.
"""

from __future__ import annotations

import hashlib


def stream(seed: int, *names: str | int) -> int:
    """Return a seed in [0, 2**63) for the stream `names` under `seed`, by sha256."""
    text = "\x1f".join([str(seed), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

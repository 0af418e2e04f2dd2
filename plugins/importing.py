"""Imports of the packages that compute, which Python's garbage collector then leaves alone.

    with importing():
        from trl import SFTTrainer

torch, transformers and TRL make a million objects that live as long as the process. One full collection goes over all
of them for a quarter of a second, and there are several in every stage: importing sets off five, each training asks
for one (accelerate), and each change of models for another.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 100  # fewer new modules are not worth it
_left_out = 0  # modules that there were when the collector was last told


@contextmanager
def importing() -> Iterator[None]:
    """Within it nothing is collected; afterwards collections leave out all that lives, where much was imported.

    Garbage goes before. What lives and is large, such as a model, is to be closed before: were it part of a cycle, it
    would never be freed.
    """
    global _left_out
    on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()
        if len(sys.modules) >= _left_out + MANY:
            _left_out = len(sys.modules)
            gc.freeze()

"""torch.compile for the steps of the `hf` engine.

Only steps of one token are compiled: prompts differ in length, and each would be compiled anew. A step has the shapes
of a static memory (hf_slots.py), so one compilation serves a call; the code stays in torch's own cache on disk.

This module imports torch: import it only inside functions that run a model, or that ask for a compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nsd.plugins.errors import InputError, MissingExtra


def check_compiler() -> None:
    """Raise InputError where torch.compile finds no C++ compiler, which it needs on every device."""
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler
    except ImportError as error:
        raise MissingExtra("torch", "train") from error
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise InputError(
            "engine hf: `compile: true` needs a C++ compiler, and torch.compile finds none on this machine: install "
            "g++ or clang++, name one in the environment variable CXX, or leave `compile` out"
        ) from error


def compiled_steps(model: Any) -> Callable[..., Any]:
    """The model as it is called for steps of one token; compiled at the first call for each set of shapes."""
    import torch

    called: Callable[..., Any] = torch.compile(model.__call__, dynamic=False)
    return called

"""What imports made is left alone by the garbage collector, what models and trainings made is not."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from nsd.plugins.importing import importing


def test_nothing_is_collected_while_importing_and_as_before_afterwards() -> None:
    with importing():
        assert not gc.isenabled()
        with importing():
            pass
        assert not gc.isenabled(), "the outer one is not over"
    assert gc.isenabled()


LOADED = """
import gc, weakref
from nsd.plugins.api import ModelRef
from nsd.plugins.models import load_model

first, _ = load_model(ModelRef("builtin:wordmath-1m"))
print(len(gc.get_objects()) < gc.get_freeze_count() / 10)
second, _ = load_model(ModelRef("builtin:wordmath-1m"))
second.forward = second.forward  # a cycle, as TRL makes one
gone = weakref.ref(second)
del second
gc.collect()
print(gone() is None)
"""


@pytest.mark.slow
def test_a_loaded_model_can_be_freed_and_what_was_imported_for_it_is_left_out() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]

"""What the worker does about the process it lives in."""

from __future__ import annotations

from pathlib import Path

from nsd.runner.work.worker import leave_group


def test_a_process_leaves_its_group_before_it_ends(tmp_path: Path) -> None:
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    leave_group()
    assert not distributed.is_initialized()
    leave_group()  # without a group there is nothing to do

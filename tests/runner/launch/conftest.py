"""A SkyPilot without machines, and nsd's way to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsd.runner.launch.bridge import SkyPilot
from sky_stand_in import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@pytest.fixture
def sky(world: World) -> SkyPilot:
    return SkyPilot.find()

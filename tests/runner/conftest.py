"""Two machines' workspaces, the store between them, and a plan, for the tests of what travels."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.bucket import Bucket
from nsd.runner.store.workspace import Workspace
from support import REPOSITORY


@pytest.fixture
def here(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "here")
    workspace.create()
    return workspace


@pytest.fixture
def there(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "there")
    workspace.create()
    return workspace


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    """A shared folder."""
    return Bucket.open(f"file://{tmp_path / 'shared'}")


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Of the quickstart."""
    return build_plan(load_spec(REPOSITORY / "specs" / "quickstart.yaml"))

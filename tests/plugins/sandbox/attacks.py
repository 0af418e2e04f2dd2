"""Attacks on a sandbox, each a function that plants what it looks for, runs a program, and returns what went wrong.

    python attacks.py KIND        # all of them; JSON of what this user's sandbox claims, and what each attack found

An attack belongs to the guarantee that it breaks. None means that it found nothing; it is asked of a kind of sandbox
that claims the guarantee.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nsd.plugins import sandbox
from nsd.plugins.sandbox import Kind, Program, Ran

Run = Callable[..., Ran]
Attack = Callable[[Run], str | None]
ATTACKS: dict[str, tuple[str, Attack]] = {}
SECRET = secrets.token_hex(12)


def attack(guarantee: str) -> Callable[[Attack], Attack]:
    """Enter an attack under the guarantee that it breaks."""

    def enter(function: Attack) -> Attack:
        ATTACKS[function.__name__] = (guarantee, function)
        return function

    return enter


def runner(kind: Kind) -> Run:
    """Runs a program, given as its text, in this kind of sandbox."""

    def run(source: str, stdin: str = "", *, seconds: float = 5.0, memory_mb: int = 256) -> Ran:
        return sandbox.run_many([Program(source, stdin, seconds, memory_mb)], kind)[0]

    return run


def all_attacks() -> dict[str, tuple[str, Attack]]:
    """Every attack by its name, with the guarantee that it breaks."""
    from attacks_on_data import ATTACKS

    return ATTACKS


def try_all(kind: Kind) -> dict[str, str | None]:
    """What each attack on a claimed guarantee found."""
    held = sandbox.guarantees(kind)
    return {name: function(runner(kind)) for name, (guarantee, function) in all_attacks().items() if guarantee in held}


@contextlib.contextmanager
def planted(content: str = SECRET) -> Iterator[Path]:
    """A file that everybody may read and write, in a folder of the same kind."""
    with tempfile.TemporaryDirectory(prefix="nsd-attacked-") as folder:
        Path(folder).chmod(0o777)
        path = Path(folder) / "file"
        path.write_text(content)
        path.chmod(0o666)
        yield path


@contextlib.contextmanager
def sibling() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this user with the secret in its environment and arguments."""
    program = [sys.executable, "-S", "-c", "import time; time.sleep(100)", SECRET]
    process = subprocess.Popen(program, env={"SECRET": SECRET})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def processes_with(mark: str) -> list[int]:
    """Processes whose arguments hold a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return [one for one in found if one != os.getpid()]


def survivors(mark: str) -> str | None:
    """What is left over of a program whose processes carry a mark; they are ended."""
    left = processes_with(mark)
    for process in left:
        with contextlib.suppress(OSError):
            os.kill(process, 9)
    return f"left over: {left}" if left else None


def remaining(pattern: str) -> list[Path]:
    """What is left in the folder for temporary files; a sandbox tidies up after it has answered."""
    until, left = time.monotonic() + 20, [Path()]
    while left and time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError):  # a folder that goes while it is read
            left = list(Path(tempfile.gettempdir()).glob(pattern))
        time.sleep(0.02)
    return left


# --------------------------------------------------------------------------- time


@attack("time")
def sleeping(run: Run) -> str | None:
    began = time.monotonic()
    ran = run("import time; time.sleep(1000)", seconds=0.3)
    return None if ran.timed_out and time.monotonic() - began < 20 else str(ran)


@attack("time")
def computing_for_ever(run: Run) -> str | None:
    return None if (ran := run("while True: pass", seconds=0.3)).timed_out else str(ran)


@attack("time")
def ignoring_signals(run: Run) -> str | None:
    source = (
        "import os, signal\n"
        "for n in range(1, 65):\n"
        "    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "os.setpgid(0, 0) if os.getpid() != os.getsid(0) else None\n"
        "while True: pass\n"
    )
    return None if (ran := run(source, seconds=0.3)).timed_out else str(ran)


@attack("time")
def a_child_that_holds_the_output_open(run: Run) -> str | None:
    began = time.monotonic()
    ran = run("import os, time\nif os.fork() == 0: time.sleep(60)\nprint('done')")
    return None if ran.stdout == "done\n" and time.monotonic() - began < 30 else str(ran)


@attack("time")
def endless_output(run: Run) -> str | None:
    ran = run("while True: print('x' * 100000)")
    return None if ran.stopped == "output" and len(ran.stdout) <= 8 << 20 else f"{ran.stopped} {len(ran.stdout)}"


@attack("time")
def endless_output_without_lines_to_both(run: Run) -> str | None:
    source = "import sys\nwhile True:\n    sys.stderr.write('e' * 100000)\n    sys.stdout.write('o' * 1000)"
    ran = run(source, seconds=1.0)
    bounded = len(ran.stderr) <= 64 << 10 and len(ran.stdout) <= 8 << 20
    return None if bounded and ran.stopped in ("time", "output") else f"{ran.stopped} {len(ran.stderr)}"


@attack("time")
def output_that_is_no_text(run: Run) -> str | None:
    ran = run("import os; os.write(1, b'\\xff\\xfe\\x00ok\\n')")
    return None if ran.exit_code == 0 and ran.stdout == "\ufffd\ufffd\x00ok\n" else str(ran)


@attack("time")
def deep_recursion(run: Run) -> str | None:
    ran = run("import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1) + 1\nf(0)", seconds=0.5)
    return None if ran.exit_code != 0 or ran.stopped else str(ran)


@attack("time")
def a_broken_interpreter(run: Run) -> str | None:
    ran = run("import ctypes; ctypes.string_at(0)")
    return None if ran.exit_code == 128 + 11 else str(ran)


@attack("time")
def exit_codes(run: Run) -> str | None:
    codes = [run(f"import os; os._exit({code})").exit_code for code in (0, 1, 77, 255)]
    return None if codes == [0, 1, 77, 255] else str(codes)


# --------------------------------------------------------------------------- memory


@attack("memory")
def ten_gigabytes(run: Run) -> str | None:
    ran = run("x = bytearray(10 << 30)\nprint('held')")
    return None if "held" not in ran.stdout and ran.exit_code != 0 else str(ran)


@attack("memory")
def memory_that_grows(run: Run) -> str | None:
    ran = run("held = []\nwhile True: held.append(bytearray(b'x') * (1 << 20))")
    return None if ran.exit_code != 0 and not ran.timed_out else str(ran)


@attack("memory")
def memory_of_many_children(run: Run) -> str | None:
    source = (
        "import os, time\npipes = []\nfor _ in range(8):\n    r, w = os.pipe()\n    if os.fork() == 0:\n"
        "        x = bytearray(b'x') * (150 << 20)\n        os.write(w, b'1'); time.sleep(.5); os.write(w, b'1')\n"
        "        os._exit(0)\n    os.close(w); pipes.append(r)\n"
        "print(sum(bool(os.read(r, 1) and os.read(r, 1)) for r in pipes))"
    )
    ran = run(source)
    return None if ran.stopped == "memory" or not ran.stdout or int(ran.stdout) < 3 else str(ran)


@attack("memory")
def raising_the_limits(run: Run) -> str | None:
    source = (
        "import resource\nfor n in range(16):\n"
        "    try: resource.setrlimit(n, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "    except (OSError, ValueError): pass\n"
        "x = bytearray(b'x') * (2 << 30)\nprint('held')"
    )
    ran = run(source)
    return None if "held" not in ran.stdout else str(ran)


@attack("memory")
def shared_memory(run: Run) -> str | None:
    source = "import mmap, os\nx = mmap.mmap(-1, 1 << 30)\nfor n in range(0, 1 << 30, 4096): x[n] = 1\nprint('held')"
    ran = run(source)
    return None if "held" not in ran.stdout else str(ran)


@attack("memory")
def files_in_memory(run: Run) -> str | None:
    source = (
        "import os\nheld = 0\nfor n in range(200):\n    try:\n        f = os.memfd_create('x')\n"
        "        for _ in range(15): held += os.write(f, b'x' * (1 << 20))\n    except OSError: break\nprint(held)"
    )
    ran = run(source, memory_mb=128)
    return None if ran.stopped or not ran.stdout or int(ran.stdout) <= 200 << 20 else str(ran)


# --------------------------------------------------------------------------- processes


@attack("processes")
def a_fork_bomb(run: Run) -> str | None:
    mark = secrets.token_hex(8)
    source = (
        f"import os, sys\nif len(sys.argv) < 2: os.execv(sys.executable, [sys.executable, '-S', '-c', '''\n"
        f"import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n''', '{mark}'])"
    )
    began, most = time.monotonic(), 0
    ran = run(source, seconds=1.0)
    took = time.monotonic() - began
    return survivors(mark) or (None if ran.timed_out and took < 40 and most < 200 else f"{ran} {took}")


@attack("processes")
def as_many_processes_as_it_can(run: Run) -> str | None:
    source = (
        "import os, time\nn = 0\nfor _ in range(500):\n    try:\n"
        "        if os.fork() == 0: time.sleep(3); os._exit(0)\n"
        "        n += 1\n    except OSError: break\nprint(n, flush=True); os._exit(0)"
    )
    ran = run(source)
    return None if int(ran.stdout) < 100 else str(ran)


@attack("processes")
def as_many_threads_as_it_can(run: Run) -> str | None:
    source = (
        "import threading, time, os\nn = 0\nfor _ in range(500):\n    try:\n"
        "        threading.Thread(target=time.sleep, args=(3,)).start(); n += 1\n    except RuntimeError: break\n"
        "print(n, flush=True); os._exit(0)"
    )
    ran = run(source, memory_mb=8000)
    return None if int(ran.stdout or 0) < 100 else str(ran)


@attack("processes")
def a_daemon(run: Run) -> str | None:
    mark = secrets.token_hex(8)
    source = (
        "import os, sys\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        for n in range(3): os.close(n)\n"
        f"        os.execv(sys.executable, [sys.executable, '-S', '-c', 'import time; time.sleep(90)', '{mark}'])\n"
        "    os._exit(0)\nos.wait(); print('left')"
    )
    ran = run(source)
    return survivors(mark) or (None if ran.stdout == "left\n" else str(ran))


@attack("processes")
def daemons_that_make_daemons(run: Run) -> str | None:
    mark = secrets.token_hex(8)
    inner = "import os, time\\nwhile True:\\n    os.setsid() if os.fork() == 0 else os._exit(0)\\n    time.sleep(.001)"
    source = (
        f"import os, sys, time\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid()\n"
        f"        os.execv(sys.executable, [sys.executable, '-S', '-c', '{inner}', '{mark}'])\ntime.sleep(.3)"
    )
    run(source)
    return survivors(mark)


@attack("processes")
def killing_the_parent(run: Run) -> str | None:
    source = (
        "import os, signal\nfor who in (os.getppid(), -1, 1, 0):\n    for sign in (signal.SIGSTOP, signal.SIGKILL):\n"
        "        if who in (0, -1): signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "        try:\n            if who not in (0, -1): os.kill(who, sign)\n        except OSError: pass\n"
        "print('alive')"
    )
    ran = run(source)
    after = run("print(1)")
    return None if after.stdout == "1\n" and "ended its sandbox" not in ran.stderr else f"{ran} {after}"


@attack("processes")
def killing_everything(run: Run) -> str | None:
    with sibling() as other:
        ran = run("import os; os.kill(-1, 9)")
        time.sleep(0.05)
        alive = other.poll() is None
    return None if alive and "ended its sandbox" not in ran.stderr else f"{alive} {ran}"


@attack("processes")
def killing_a_sibling(run: Run) -> str | None:
    with sibling() as other:
        run(f"import os\nfor s in (15, 9):\n    try: os.kill({other.pid}, s)\n    except OSError: pass")
        time.sleep(0.05)
        return None if other.poll() is None else "it was killed"


@attack("processes")
def tracing_a_sibling(run: Run) -> str | None:
    with sibling() as other:
        ran = run(f"import ctypes\nprint(ctypes.CDLL(None).ptrace(16, {other.pid}, 0, 0))")
    return None if ran.stdout == "-1\n" else str(ran)


if __name__ == "__main__":
    asked: Kind = sys.argv[1]  # type: ignore[assignment]
    said = {"user": os.getuid(), "guarantees": sorted(sandbox.guarantees(asked)), "found": try_all(asked)}
    print(json.dumps(said))

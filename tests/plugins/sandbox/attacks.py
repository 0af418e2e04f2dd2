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
import socket
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


def try_all(kind: Kind) -> dict[str, str | None]:
    """What each attack on a claimed guarantee found."""
    held = sandbox.guarantees(kind)
    return {name: function(runner(kind)) for name, (guarantee, function) in ATTACKS.items() if guarantee in held}


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
    until = time.monotonic() + 20
    while (left := list(Path(tempfile.gettempdir()).glob(pattern))) and time.monotonic() < until:
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
        "import os, time\nn = 0\nfor _ in range(500):\n    try:\n        if os.fork() == 0: time.sleep(3); os._exit(0)\n"
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


# --------------------------------------------------------------------------- environment and siblings


@attack("environment")
def secrets_of_the_environment(run: Run) -> str | None:
    os.environ["NSD_ATTACKED"] = SECRET
    try:
        ran = run("import os; print(dict(os.environ), os.popen('env').read() if os.path.exists('/bin/sh') else '')")
    finally:
        del os.environ["NSD_ATTACKED"]
    return None if SECRET not in ran.stdout else ran.stdout


@attack("environment")
def reading_siblings_by_proc(run: Run) -> str | None:
    source = (
        "import glob\nfor name in ('environ', 'maps', 'mem'):\n    for path in glob.glob(f'/proc/[0-9]*/{name}'):\n"
        "        try: print(open(path, 'rb').read(1 << 16))\n        except OSError: pass"
    )
    with sibling():
        ran = run(source)
    return None if SECRET not in ran.stdout else "the secret was read"


@attack("processes")
def reading_arguments_of_siblings(run: Run) -> str | None:
    source = (
        "import glob\nfor path in glob.glob('/proc/[0-9]*/cmdline'):\n"
        "    try: print(open(path, 'rb').read())\n    except OSError: pass"
    )
    with sibling():
        ran = run(source)
    return None if SECRET not in ran.stdout else "the secret was read"


# --------------------------------------------------------------------------- files


@attack("files")
def reading_a_file(run: Run) -> str | None:
    with planted() as path:
        ran = run(f"print(open({str(path)!r}).read())")
    return None if SECRET not in ran.stdout and ran.exit_code == 1 else str(ran)


@attack("files")
def reading_the_home_folder(run: Run) -> str | None:
    home = Path.home()
    with contextlib.suppress(OSError):
        files = [str(path) for path in home.iterdir() if path.is_file()]
        source = (
            f"import os\nfor path in {files!r}:\n    try: open(path, 'rb').read(1); print(path)\n"
            "    except OSError: pass"
        )
        return run(source).stdout or None
    return None


@attack("files")
def reading_the_workspace(run: Run) -> str | None:
    here = [str(path) for path in (Path(__file__), Path(sandbox.__file__), Path.cwd()) if path.is_file()]
    source = f"for path in {here!r}:\n    try: open(path, 'rb').read(1); print(path)\n    except OSError: pass"
    return run(source).stdout or None


@attack("files")
def reading_what_the_system_knows_of_its_users(run: Run) -> str | None:
    ran = run(
        "for p in ('/etc/shadow', '/etc/passwd', '/etc/hostname'):\n    try: print(open(p).read())\n    except OSError: pass"
    )
    return ran.stdout or None


@attack("files")
def a_symbolic_link_out(run: Run) -> str | None:
    with planted() as path:
        source = (
            f"import os\nos.symlink({str(path)!r}, 'a')\nos.symlink({str(path.parent)!r}, 'b')\n"
            "for name in ('a', 'b/file', '../../../../../../..' + os.readlink('a')):\n"
            "    for mode in 'ra':\n        try:\n            with open(name, mode) as f: print(f.read() if mode == 'r' else f.write('x'))\n"
            "        except OSError: pass"
        )
        ran = run(source)
        changed = path.read_text() != SECRET
    return None if not ran.stdout and not changed else str(ran)


@attack("files")
def a_hard_link_out(run: Run) -> str | None:
    with planted() as path:
        ran = run(f"import os\nos.link({str(path)!r}, 'a')\nprint(open('a').read())")
    return None if SECRET not in ran.stdout else str(ran)


@attack("files")
def writing_outside(run: Run) -> str | None:
    with planted() as path:
        places = [
            str(path.parent),
            str(Path.home()),
            str(Path.cwd()),
            "/",
            "/usr",
            "/etc",
            "/var/tmp",
            "/dev/shm",
            "/run",
        ]
        name = f"made-{secrets.token_hex(4)}"
        source = (
            f"import os\nfor place in {places!r}:\n    for how in (lambda p: open(p, 'w').close(), os.mkdir):\n"
            f"        try: how(os.path.join(place, {name!r}))\n        except OSError: pass"
        )
        run(source)
        found = [place for place in places if os.path.lexists(f"{place}/{name}")]
        for place in found:
            with contextlib.suppress(OSError):
                Path(place, name).unlink()
    return str(found) if found else None


@attack("files")
def changing_outside(run: Run) -> str | None:
    with planted() as path:
        before = path.stat()
        calls = [
            "open(p, 'w').write('x')",
            "open(p, 'a').write('x')",
            "os.truncate(p, 0)",
            "os.chmod(p, 0)",
            "os.utime(p, (1, 1))",
            "os.chown(p, 0, 0)",
            "os.setxattr(p, 'user.x', b'x')",
            "os.rename(p, p + '2')",
            "os.unlink(p)",
            "os.rmdir(os.path.dirname(p))",
        ]
        tries = "\n".join(f"try: {call}\nexcept OSError: pass" for call in calls)
        run(f"import os\np = {str(path)!r}\n{tries}")
        if not path.exists():
            return "it is gone"
        after = path.stat()
        names = ("st_mode", "st_uid", "st_size", "st_mtime_ns", "st_ctime_ns")
        changed = [name for name in names if getattr(before, name) != getattr(after, name)]
    return str(changed) if changed else None


@attack("files")
def settings_of_the_kernel(run: Run) -> str | None:
    source = (
        "for p in ('/proc/sys/kernel/hostname', '/proc/sysrq-trigger', '/proc/sys/vm/overcommit_memory', '/proc/1/oom_score_adj'):\n"
        "    try: open(p, 'r+').close(); print(p)\n    except OSError: pass"
    )
    ran = run(source)
    return ran.stdout or None


@attack("files")
def a_thousand_files(run: Run) -> str | None:
    ran = run("for n in range(1000): open(f'f{n}', 'w').write('x')\nprint('made')")
    after = run("import os; print(os.listdir())")
    left = remaining("nsd-sandbox-*/f*")
    return None if not left and after.stdout == "[]\n" and ran.stdout in ("made\n", "") else f"{ran} {left} {after}"


@attack("files")
def files_without_end(run: Run) -> str | None:
    source = "n = 0\nwhile True:\n    try: open(f'f{n}', 'w').close(); n += 1\n    except OSError: break\n    if n > 2000000: break"
    ran = run(source, seconds=20.0)
    return None if ran.stopped == "files" or ran.exit_code else str(ran)


@attack("files")
def bytes_without_end(run: Run) -> str | None:
    source = (
        "n = 0\nwhile True:\n    with open(f'f{n}', 'wb') as f:\n"
        "        for _ in range(15): f.write(b'x' * (1 << 20))\n    n += 1"
    )
    ran = run(source, seconds=20.0)
    return None if ran.stopped in ("files", "memory") or ran.exit_code == 1 else str(ran)


@attack("files")
def one_large_file(run: Run) -> str | None:
    ran = run("f = open('f', 'wb')\nfor _ in range(1000): f.write(b'x' * (1 << 20)); f.flush()\nprint('held')")
    return None if "held" not in ran.stdout else str(ran)


@attack("files")
def folders_that_are_hard_to_delete(run: Run) -> str | None:
    source = (
        "import os\nfor n in range(1500):\n    os.mkdir('d'); os.chdir('d')\n"
        "os.chdir('/tmp') if os.path.isdir('/tmp') else None\n"
        "try: os.mkdir('locked'); os.mkdir('locked/in'); os.chmod('locked', 0)\nexcept OSError: pass"
    )
    run(source)
    left = remaining("nsd-sandbox-*/d")
    return str(left) if left else None


@attack("files")
def open_files_of_the_supervisor(run: Run) -> str | None:
    ran = run(
        "import os\nfound = []\nfor n in range(3, 256):\n    try: os.fstat(n); found.append(n)\n    except OSError: pass\nprint(found)"
    )
    return None if ran.stdout == "[]\n" else ran.stdout


# --------------------------------------------------------------------------- network


@attack("network")
def connecting(run: Run) -> str | None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0.2)
        port = listening.getsockname()[1]
        ran = run(f"import socket; socket.create_connection(('127.0.0.1', {port}), 2); print('open')")
        with contextlib.suppress(OSError):
            listening.accept()
            return "it connected"
    return None if "open" not in ran.stdout else str(ran)


@attack("network")
def a_datagram(run: Run) -> str | None:
    with socket.socket(type=socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(0.2)
        port = listening.getsockname()[1]
        run(f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))")
        with contextlib.suppress(OSError):
            return f"it arrived: {listening.recv(1)!r}"
    return None


@attack("network")
def local_sockets(run: Run) -> str | None:
    with planted() as path, socket.socket(socket.AF_UNIX) as named, socket.socket(socket.AF_UNIX) as abstract:
        place, name = str(path.parent / "socket"), secrets.token_hex(8)
        named.bind(place)
        Path(place).chmod(0o777)
        abstract.bind(f"\0{name}")
        for one in (named, abstract):
            one.listen()
        source = (
            f"import socket\nfor to in ({place!r}, '\\0{name}'):\n"
            "    try: socket.socket(socket.AF_UNIX).connect(to); print(to)\n    except OSError: pass"
        )
        return run(source).stdout or None


@attack("network")
def a_listener_for_others(run: Run) -> str | None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = (
        f"import socket\ns = socket.socket()\ns.bind(('127.0.0.1', {port}))\ns.listen()\ns.settimeout(1)\n"
        "try: s.accept(); print('reached')\nexcept OSError: pass"
    )
    import threading

    def knock() -> None:
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                return
            time.sleep(0.05)

    thread = threading.Thread(target=knock)
    thread.start()
    ran = run(source)
    thread.join()
    return None if "reached" not in ran.stdout else str(ran)


if __name__ == "__main__":
    asked: Kind = sys.argv[1]  # type: ignore[assignment]
    said = {"user": os.getuid(), "guarantees": sorted(sandbox.guarantees(asked)), "found": try_all(asked)}
    print(json.dumps(said))

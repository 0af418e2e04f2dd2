"""Which guarantees a kind of sandbox really gives here: each is tried, by programs that attack it.

    guarantees = probe(box)           # about a second

What is planted for them to find (a file, a process with a secret in its environment, listeners, folders that anybody
may write) is taken away afterwards. A guarantee that no attack broke holds as far as the attacks go: they are the kinds
of attack that are known, not all there are.
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
from typing import Any

from nsd.plugins.sandbox.ran import GUARANTEES, Program, Ran

Run = Callable[[Program], Ran]

_NETWORK = """
import json, socket, sys
found = []
def attempt(name, how):
    try:
        how()
        found.append(name)
    except OSError:
        pass
def tcp(): socket.create_connection(("127.0.0.1", given["tcp"]), 1)
def datagrams(): return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def udp(): datagrams().sendto(given["secret"].encode(), ("127.0.0.1", given["udp"]))
def away(): datagrams().connect(("192.0.2.1", 9))
def abstract(): socket.socket(socket.AF_UNIX).connect("\\0" + given["abstract"])
def named(): socket.socket(socket.AF_UNIX).connect(given["named"])
try:
    udp()
except OSError:
    pass
for name, how in (("tcp", tcp), ("away", away), ("abstract", abstract), ("named", named)):
    attempt(name, how)
print(json.dumps(found))
"""

_FILES = """
import json, os
found = []
def attempt(how, path):
    try:
        how(path)
        found.append([how.__name__, path])
    except (OSError, UnicodeError):
        pass
def read(path): open(path, "rb").read(1)
def listed(path): os.listdir(path)
def append(path): open(path, "ab").write(b"x")
def mode(path): os.chmod(path, 0o777)
def times(path): os.utime(path, (1, 1))
def make(path): open(path + "/made-by-a-probe", "x").close()
def link(path): os.symlink(path, "to"); open("to", "rb").read(1)
def remove(path): os.unlink(path)
for path in given["read"]:
    attempt(read, path)
for how in (link, append, mode, times, remove):
    attempt(how, given["planted"])
attempt(listed, given["folder"])
attempt(make, given["folder"])
print(json.dumps(found))
"""

_ENVIRONMENT = """
import glob, json, os
found = [name for name in os.environ if name in given["names"]]
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        if given["secret"].encode() in open(path, "rb").read():
            found.append(path)
    except OSError:
        pass
print(json.dumps(found))
"""

_PROCESSES = """
import json, os, signal, sys, time
found = []
try:
    os.kill(given["victim"], signal.SIGTERM)
    found.append("kill")
except OSError:
    pass
try:
    open("/proc/%d/cmdline" % given["victim"]).read()
    found.append("seen")
except OSError:
    pass
children = 0
for _ in range(given["most"]):
    try:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execv(sys.executable, [sys.executable, "-S", "-c", "import time; time.sleep(30)", given["secret"]])
            os._exit(0)
        children += 1
    except OSError:
        break
    if children == 1:
        time.sleep(0.1)
print(json.dumps(found))
"""

_BOMB = """
import json, os, time
made = 0
for _ in range(given["most"]):
    try:
        if os.fork() == 0:
            time.sleep(2)
            os._exit(0)
        made += 1
    except OSError:
        break
print(json.dumps(["unbounded"] if made == given["most"] else []), flush=True)
os._exit(0)
"""

_MEMORY = """
import json, os, sys
found = []
try:
    held = bytearray(given["bytes"] * 2)
    found.append("one")
except MemoryError:
    pass
print(json.dumps(found))
"""

_MEMORY_TOGETHER = """
import json, os, time
pipes = []
for _ in range(4):
    ready, done = os.pipe()
    if os.fork() == 0:
        held = bytearray(b"x") * (given["bytes"] * 6 // 10)
        os.write(done, b"1")
        time.sleep(0.4)
        os.write(done, b"1")
        os._exit(0)
    os.close(done)
    pipes.append(ready)
print(json.dumps(["together"] if all(os.read(one, 1) and os.read(one, 1) for one in pipes) else []))
"""

_MEMORY_HIDDEN = """
import json, os
held = 0
try:
    for _ in range(100):
        file = os.memfd_create("held")
        for _ in range(8):
            held += os.write(file, b"x" * (1 << 20))
except (OSError, AttributeError):
    pass
print(json.dumps(["hidden"] if held > 2 * given["bytes"] else []))
"""

_TIME = """
import os, signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
os.fork()
while True:
    pass
"""

_BYTES = 192 << 20
_MOST = 400
_LONGEST_FOLDER = 70  # bytes of the folder of temporary files in which a socket's path is not too long


def probe(run: Run) -> frozenset[str]:
    """The guarantees that hold when programs are run by `run`. Raises SandboxFailed where nothing runs at all."""
    run(Program("print(1)"))
    checks = {
        "network": _network,
        "files": _files,
        "environment": _environment,
        "processes": _processes,
        "memory": _memory,
        "time": _time,
    }
    assert list(checks) == list(GUARANTEES)
    long = len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER
    with tempfile.TemporaryDirectory(prefix="nsd-probe-", dir="/tmp" if long else None) as folder:
        Path(folder).chmod(0o755)
        return frozenset(name for name, check in checks.items() if check(run, Path(folder)))


def _nothing_found(run: Run, source: str, given: dict[str, Any], **limits: Any) -> bool:
    """Whether an attack says that it found nothing. One that was ended for want of memory found nothing either."""
    ran = run(Program(f"given = {given!r}\n{source}", **{"seconds": 20.0, **limits}))
    if ran.stopped == "memory":
        return True
    try:
        return bool(json.loads(ran.stdout.splitlines()[-1]) == [])
    except (ValueError, IndexError):
        return False


def _network(run: Run, folder: Path) -> bool:
    secret = secrets.token_hex(8)
    with contextlib.ExitStack() as held:
        tcp, udp = (held.enter_context(socket.socket(type=kind)) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM))
        given: dict[str, Any] = {"secret": secret, "abstract": secret, "named": str(folder / "socket")}
        for name, one in (("tcp", tcp), ("udp", udp)):
            one.bind(("127.0.0.1", 0))
            given[name] = one.getsockname()[1]
        tcp.listen()
        addresses = ["\0" + secret, given["named"]] if sys.platform == "linux" else [given["named"]]
        for address in addresses:
            local = held.enter_context(socket.socket(socket.AF_UNIX))
            local.bind(address)
            local.listen()
        Path(given["named"]).chmod(0o777)
        udp.setblocking(False)
        quiet = _nothing_found(run, _NETWORK, given)
        with contextlib.suppress(BlockingIOError):
            return quiet and not udp.recv(64)
        return quiet


def _files(run: Run, folder: Path) -> bool:
    planted, open_to_all = folder / "planted", folder / "open"
    planted.write_text("secret")
    planted.chmod(0o666)
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    before = planted.stat()
    reading = [str(planted), *_some_files(Path.home()), *_some_files(Path.cwd())]
    given = {"read": reading, "planted": str(planted), "folder": str(open_to_all)}
    quiet = _nothing_found(run, _FILES, given)
    try:
        after = planted.stat()
    except OSError:
        return False
    same = (before.st_mode, before.st_mtime_ns, before.st_size) == (after.st_mode, after.st_mtime_ns, after.st_size)
    return quiet and same and not list(open_to_all.iterdir())


def _some_files(folder: Path) -> list[str]:
    """Up to eight files that lie in a folder."""
    try:
        return [str(path) for path in sorted(folder.iterdir()) if path.is_file()][:8]
    except OSError:
        return []


@contextlib.contextmanager
def _victim(secret: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this user, outside of the sandbox, with a secret in its environment."""
    command = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    process = subprocess.Popen(command, env={"NSD_PROBE": secret}, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _environment(run: Run, folder: Path) -> bool:
    secret = secrets.token_hex(8)
    ordinary = {"PATH", "HOME", "LANG", "PWD", "LC_CTYPE"} | {name for name in os.environ if name.startswith("PYTHON")}
    with _victim(secret):
        return _nothing_found(run, _ENVIRONMENT, {"secret": secret, "names": sorted({*os.environ} - ordinary)})


def _processes(run: Run, folder: Path) -> bool:
    secret = secrets.token_hex(8)
    with _victim("") as victim:
        given = {"victim": victim.pid, "secret": secret, "most": 4}
        quiet = _nothing_found(run, _PROCESSES, given)
        alive = victim.poll() is None
        left = [process for process in _who_says(secret) if process != os.getpid()]
        for process in left:
            with contextlib.suppress(OSError):
                os.kill(process, 9)
    return quiet and alive and not left and _nothing_found(run, _BOMB, {"most": _MOST})


def _who_says(secret: str) -> list[int]:
    """The processes whose command line holds a text; none where /proc is not."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if secret.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def _memory(run: Run, folder: Path) -> bool:
    limit = _BYTES >> 20
    attacks = (_MEMORY, _MEMORY_TOGETHER, _MEMORY_HIDDEN)
    return all(_nothing_found(run, one, {"bytes": _BYTES}, memory_mb=limit) for one in attacks)


def _time(run: Run, folder: Path) -> bool:
    began = time.monotonic()
    ran = run(Program(_TIME, seconds=0.2))
    return ran.timed_out and time.monotonic() - began < 5.0

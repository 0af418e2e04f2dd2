"""Attacks on what is stored and said: environment, files, network. See attacks.py."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from pathlib import Path

from attacks import ATTACKS, SECRET, Run, attack, planted, remaining, sibling
from nsd.plugins import sandbox

__all__ = ["ATTACKS"]

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
        "for p in ('/etc/shadow', '/etc/passwd', '/etc/hostname'):\n"
        "    try: print(open(p).read())\n    except OSError: pass"
    )
    return ran.stdout or None


@attack("files")
def a_symbolic_link_out(run: Run) -> str | None:
    with planted() as path:
        source = (
            f"import os\nos.symlink({str(path)!r}, 'a')\nos.symlink({str(path.parent)!r}, 'b')\n"
            "for name in ('a', 'b/file', '../../../../../../..' + os.readlink('a')):\n"
            "    for mode in 'ra':\n        try:\n"
            "            with open(name, mode) as f: print(f.read() if mode == 'r' else f.write('x'))\n"
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
        "for p in ('/proc/sys/kernel/hostname', '/proc/sysrq-trigger', '/proc/sys/vm/overcommit_memory',\n"
        "          '/proc/1/oom_score_adj'):\n"
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
    source = "n = 0\nwhile n < 2000000:\n    try: open(f'f{n}', 'w').close(); n += 1\n    except OSError: break"
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
    source = (
        "import os\nfound = []\nfor n in range(3, 256):\n    try: os.fstat(n); found.append(n)\n"
        "    except OSError: pass\nprint(found)"
    )
    ran = run(source)
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

"""What Landlock does not limit, denied by the kernel's filter of system calls; through libseccomp, which Linux has.

Landlock lets a program change modes, owners and times of files that it may not open, and knows of no network but TCP.
"""

from __future__ import annotations

import ctypes
import errno
import socket
from functools import lru_cache

# What holds memory that is in no process, or reaches into others.
HIDDEN = (
    *("memfd_create", "memfd_secret", "shmget", "msgget", "semget", "mq_open", "io_uring_setup", "userfaultfd"),
    *("bpf", "perf_event_open", "add_key", "request_key", "keyctl", "process_vm_readv", "process_vm_writev"),
    *("process_madvise", "pidfd_getfd", "kcmp", "fanotify_init"),
)
DENIED = (
    *HIDDEN,
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime", "utimes"),
    *("utimensat", "futimesat", "setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr"),
    *("fremovexattr", "removexattrat", "file_setattr", "ptrace", "mount", "umount2", "pivot_root", "move_mount"),
    *("open_tree", "fsopen", "unshare", "setns", "inotify_init1", "setpriority", "sched_setscheduler", "ioprio_set"),
    "socket",
)
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NOT_EQUAL, _MASKED_EQUAL = 1, 7
_NEW_USERS = 0x10000000  # CLONE_NEWUSER


class _Compared(ctypes.Structure):
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


@lru_cache
def library() -> ctypes.CDLL:
    """libseccomp. Raises OSError where it is not there."""
    found = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = [ctypes.c_uint32]
    found.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    found.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_void_p,
    ]
    found.seccomp_load.argtypes = found.seccomp_release.argtypes = [ctypes.c_void_p]
    return found


def deny(kind: str) -> None:
    """Deny the calling process and its children what a kind of sandbox does not limit otherwise. Raises OSError.

    bubblewrap: HIDDEN, which nothing needs. process: HIDDEN, and to send a signal to every process there is. landlock:
    that and all of DENIED, with pairs of sockets but for local ones.
    """
    lib = library()
    if not (made := lib.seccomp_init(_ALLOW)):
        raise OSError(errno.ENOMEM, "libseccomp makes no filter")
    rules = ctypes.c_void_p(made)
    try:
        for name in DENIED if kind == "landlock" else HIDDEN:
            _add(lib, rules, name)
        if kind == "landlock":
            _add(lib, rules, "socketpair", _Compared(0, _NOT_EQUAL, socket.AF_UNIX, 0))
            _add(lib, rules, "clone", _Compared(0, _MASKED_EQUAL, _NEW_USERS, _NEW_USERS))
            _add(lib, rules, "clone3", error=errno.ENOSYS)  # its flags cannot be read; the C library then uses clone
        if kind != "bubblewrap":
            _add(lib, rules, "kill", _Compared(0, _MASKED_EQUAL, 0xFFFFFFFF, 0xFFFFFFFF))
        if failed := lib.seccomp_load(rules):
            raise OSError(-failed, "the filter of system calls could not be set")
    finally:
        lib.seccomp_release(rules)


def _add(
    lib: ctypes.CDLL, rules: ctypes.c_void_p, name: str, compared: _Compared | None = None, error: int = errno.EPERM
) -> None:
    """Deny a call, where its first argument compares as said; one that this machine does not have is left out."""
    if (number := lib.seccomp_syscall_resolve_name(name.encode())) >= 0:
        given = (0, None) if compared is None else (1, ctypes.byref(compared))
        lib.seccomp_rule_add_array(rules, _ERRNO | error, number, *given)

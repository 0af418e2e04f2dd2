"""What Landlock does not limit, denied by the kernel's filter of system calls; through libseccomp, which Linux has.

Landlock lets a program change modes, owners and times of files that it may not open, and knows of no network but TCP.
"""

from __future__ import annotations

import ctypes
import errno
import socket
from functools import lru_cache

DENIED = (
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime", "utimes"),
    *("utimensat", "futimesat", "setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr"),
    *("fremovexattr", "removexattrat", "file_setattr", "ptrace", "process_vm_readv", "process_vm_writev"),
    *("process_madvise", "pidfd_getfd", "kcmp", "io_uring_setup", "userfaultfd", "bpf", "perf_event_open", "add_key"),
    *("request_key", "keyctl", "mount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen", "unshare"),
    *("setns", "memfd_create", "memfd_secret", "shmget", "msgget", "semget", "mq_open", "inotify_init1"),
    *("fanotify_init", "setpriority", "sched_setscheduler", "ioprio_set", "socket"),
)
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_DENIAL = _ERRNO | errno.EPERM
_NOT_EQUAL, _MASKED_EQUAL = 1, 7


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


def deny() -> None:
    """Deny the calling process and its children these calls, and sockets but for pairs of its own. Raises OSError."""
    lib = library()
    rules = _begun(lib)
    try:
        for name in DENIED:
            if (number := lib.seccomp_syscall_resolve_name(name.encode())) >= 0:  # else not of this machine
                lib.seccomp_rule_add_array(rules, _DENIAL, number, 0, None)
        other = _Compared(0, _NOT_EQUAL, socket.AF_UNIX, 0)
        number = lib.seccomp_syscall_resolve_name(b"socketpair")
        lib.seccomp_rule_add_array(rules, _DENIAL, number, 1, ctypes.byref(other))
        _load(lib, rules)
    finally:
        lib.seccomp_release(rules)


def deny_killing_all() -> None:
    """Deny the calling process and its children to send a signal to every process there is. Raises OSError."""
    lib = library()
    rules = _begun(lib)
    try:
        everybody = _Compared(0, _MASKED_EQUAL, 0xFFFFFFFF, 0xFFFFFFFF)
        lib.seccomp_rule_add_array(
            rules, _DENIAL, lib.seccomp_syscall_resolve_name(b"kill"), 1, ctypes.byref(everybody)
        )
        _load(lib, rules)
    finally:
        lib.seccomp_release(rules)


def _begun(lib: ctypes.CDLL) -> ctypes.c_void_p:
    if not (rules := lib.seccomp_init(_ALLOW)):
        raise OSError(errno.ENOMEM, "libseccomp makes no filter")
    return ctypes.c_void_p(rules)


def _load(lib: ctypes.CDLL, rules: ctypes.c_void_p) -> None:
    if failed := lib.seccomp_load(rules):
        raise OSError(-failed, "the filter of system calls could not be set")

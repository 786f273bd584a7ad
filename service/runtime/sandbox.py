"""What a worker process may no longer do once it is set up, by the kernel's own interfaces (Linux).

    no_new_privs    no program with more rights can be had (PR_SET_NO_NEW_PRIVS)
    Landlock        the file system is read-only but for named folders, nothing is executed there, and
                    no other process is signalled (from Linux 6.12 on)
    seccomp         no program is started, no socket made, no other process traced

Landlock binds the thread that works and those that it starts, the others all threads. Reading is not bounded:
a sound is wherever its dataset is. See docs/security.md, landlock(7) and seccomp(2).
"""

import contextlib
import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# <linux/prctl.h>, <linux/seccomp.h>, <linux/audit.h>
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_TSYNC = 1, 1
_RETURN_ALLOW, _RETURN_EPERM = 0x7FFF0000, 0x00050000 | 1
# System calls that a decoder has no use for: name: numbers on x86_64 and aarch64.
_DENIED = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
_DENIED_NETWORK = {
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
}
_ARCHITECTURES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}
_X32 = 0x40000000  # numbers from here on are those of another ABI of x86_64

# <linux/landlock.h>: EXECUTE, WRITE_FILE, REMOVE_DIR … MAKE_SYM, of every version; then REFER, TRUNCATE.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITES = 1 << 0, 1 << 1 | 0b1_1111_1111 << 4
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_PATH_BENEATH, _SCOPE_SIGNAL = 1, 1 << 1

_libc = ctypes.CDLL(None, use_errno=True)


def confine(writable: Iterable[Path] = (), network: bool = False) -> list[str]:
    """Give up what a worker has no use for, for good; what the system does not let it give up, in words.

    writable : folders in which files may still be made, written and removed
    network : whether sockets may still be made
    """
    if sys.platform != "linux":
        return ["this system has neither Landlock nor seccomp"]
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return ["no_new_privs is refused"]
    left = []
    if not _restrict_files(writable):
        left.append("Landlock is not there: workers can write files")
    if not _filter_calls(network):
        left.append("seccomp is not there: workers can start programs")
    _keep_no_code()
    return left


def _restrict_files(writable: Iterable[Path]) -> bool:
    version = _libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    handled = _EXECUTE | _WRITES
    handled |= _REFER if version >= 2 else 0
    handled |= _TRUNCATE if version >= 3 else 0
    # what is handled of files, of the network, and what stays within: signals
    attribute = (ctypes.c_uint64 * 3)(handled, 0, _SCOPE_SIGNAL)
    size = ctypes.sizeof(attribute) if version >= 6 else 8
    rules = _libc.syscall(_CREATE_RULESET, ctypes.byref(attribute), size, 0)
    if rules < 0:
        return False
    try:
        for folder in writable:
            with contextlib.suppress(OSError):  # what is not there cannot be written
                opened = os.open(folder, os.O_PATH | os.O_CLOEXEC)
                try:
                    rule = struct.pack("=Qi", handled & ~_EXECUTE & ~_REFER, opened)
                    _libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0)
                finally:
                    os.close(opened)
        return bool(_libc.syscall(_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _filter_calls(network: bool) -> bool:
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return False
    column, architecture, seccomp = known
    denied = _DENIED if network else _DENIED | _DENIED_NETWORK
    numbers = sorted(it[column] for it in denied.values())
    # BPF: load a word (0x20), jump if equal (0x15) or greater or equal (0x35), return (0x06)
    program = [
        (0x20, 0, 0, 4),  # the architecture
        (0x15, 0, len(numbers) + 2, architecture),
        (0x20, 0, 0, 0),  # the number of the call
        (0x35, len(numbers), 0, _X32),
        *((0x15, len(numbers) - 1 - at, 0, number) for at, number in enumerate(numbers)),
    ]
    program[-1] = (0x15, 0, 1, numbers[-1])
    program += [(0x06, 0, 0, _RETURN_EPERM), (0x06, 0, 0, _RETURN_ALLOW)]
    code = b"".join(struct.pack("=HBBI", *each) for each in program)
    given = _Program(len(program), code)
    done = _libc.syscall(seccomp, _SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_TSYNC, ctypes.byref(given))
    return bool(done == 0)


def _keep_no_code() -> None:
    """Keep what is compiled from now on in memory: its cache is others' code."""
    if "numba" in sys.modules:
        from numba.core import caching as numba_caching

        caching: Any = numba_caching
        caching.Cache.save_overload = lambda self, sig, data: None
        caching._CacheLocator.ensure_cache_path = lambda self: None  # it is only read

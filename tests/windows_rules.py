"""What Windows does otherwise, as its documentation and Python's say, imposed on a process under Linux.

In force are: an open file is neither removed nor replaced; `os.fsync` wants a handle that can write; names of
devices and forbidden characters make no file; names differ by more than case; text is written with `\\r\\n`
and, unless told otherwise, as cp1252, as is stdout; processes are spawned, never forked; `os.kill` kills, or
interrupts for 0; no SIGTERM arrives; permissions are one bit, and what is read-only is not removed. Which
file is open is asked of /proc, so that of SQLite, HDF5 and FFmpeg count too.

The fixtures `windows_rules` and `system` (once as here, once so) are in conftest.py. They reach the processes
that a test starts through `sitecustomize`.
"""

import builtins
import errno
import io
import multiprocessing.context
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

DEVICES = {"con", "prn", "aux", "nul", *(port + digit for port in ("com", "lpt") for digit in "123456789")}
FORBIDDEN = set('<>:"|?*\\')
MISSING = {os: ("fork", "killpg", "mkfifo"), signal: ("SIGHUP", "SIGALRM", "SIGUSR1")}
SIGKILL = signal.SIGKILL

_os_stat, _os_chmod, _os_kill, _os_fsync = os.stat, os.chmod, os.kill, os.fsync
_open, _os_open, _os_mkdir = builtins.open, os.open, os.mkdir
_rules_hold = False


def _windows_error(kind: type, code: int, text: str, path) -> OSError:
    return kind(code, text, os.fspath(path))


def _absolute(path, folder_handle) -> str:
    """Return a path as text; it may be relative to an open folder."""
    path = os.fsdecode(path)
    if isinstance(folder_handle, int) and folder_handle >= 0:
        path = os.path.join(os.readlink(f"/proc/self/fd/{folder_handle}"), path)
    return os.path.abspath(path)


def open_files() -> set[str]:
    """Return the paths of the files that this process has open or mapped."""
    found = set()
    for handle in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{handle}"))
        except OSError:  # the one of this listing
            pass
    with _open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        found |= {line.split(maxsplit=5)[5].rstrip("\n") for line in maps if "/" in line}
    return {path for path in found if not os.path.isdir(path)}


def _refuse_if_open(path: str, code: int) -> None:
    path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    if any(name == path or name.startswith(path + os.sep) for name in open_files()):
        raise _windows_error(PermissionError, code, "[WinError 32] another process uses the file", path)


def _refuse_if_read_only(path: str) -> None:
    if os.path.isfile(path) and not _os_stat(path).st_mode & stat.S_IWRITE:
        raise _windows_error(PermissionError, errno.EACCES, "[WinError 5] Access is denied", path)


def _check_name(path: str) -> None:
    """Refuse a new file or folder that Windows would not make under this name."""
    name = os.path.basename(path)
    stem = name.split(".")[0].rstrip().lower()
    if stem in DEVICES or set(name) & FORBIDDEN or name != name.rstrip(". ") and name not in (".", ".."):
        raise _windows_error(OSError, errno.EINVAL, "[WinError 123] the name is not valid", path)
    try:
        others = os.listdir(os.path.dirname(path) or ".")
    except OSError:
        return
    if name not in others and name.lower() in {other.lower() for other in others}:
        raise _windows_error(FileExistsError, errno.EEXIST, "[WinError 183] differs by case only", path)


def _audit(event: str, arguments: tuple) -> None:
    if not _rules_hold:
        return
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path, mode, flags = arguments
        if (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or (mode and set(mode) & set("wxa+")):
            path = os.path.abspath(os.fsdecode(path))
            if not os.path.lexists(path):
                _check_name(path)
    elif event == "os.mkdir":
        path = _absolute(arguments[0], arguments[2])
        if not os.path.lexists(path):
            _check_name(path)
    elif event in ("os.remove", "os.rmdir"):
        path = _absolute(arguments[0], arguments[1])
        _refuse_if_open(path, errno.EACCES)
        _refuse_if_read_only(path)
    elif event == "os.rename":
        source, target = _absolute(arguments[0], arguments[2]), _absolute(arguments[1], arguments[3])
        _refuse_if_open(source, errno.EACCES)
        _refuse_if_open(target, errno.EACCES)
        _refuse_if_read_only(target)
        if source.lower() != target.lower() and not os.path.lexists(target):
            _check_name(target)


def _fsync(handle) -> None:
    import fcntl

    number = handle if isinstance(handle, int) else handle.fileno()
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")
    _os_fsync(number)


def _text_open(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, *more, **named):
    if "b" not in mode:
        encoding = "cp1252" if encoding in (None, "locale") else encoding
        newline = "\r\n" if newline is None and set(mode) & set("wxa+") else newline
    return _open(file, mode, buffering, encoding, errors, newline, *more, **named)


def _rename(source, target, **handles) -> None:
    if os.path.exists(target) and not os.path.samefile(source, target):
        raise _windows_error(FileExistsError, errno.EEXIST, "[WinError 183] the file exists", target)
    os.replace(source, target, **handles)


def _kill(process: int, number: int) -> None:
    _os_kill(process, signal.SIGINT if number == 0 else SIGKILL)


def _chmod(path, mode, **more) -> None:
    kept = stat.S_IMODE(_os_stat(path).st_mode)
    _os_chmod(path, kept | 0o222 if mode & stat.S_IWRITE else kept & ~0o222, **more)


class _Popen(subprocess.Popen):
    def send_signal(self, number) -> None:
        if number != signal.SIGTERM:
            raise ValueError(f"Unsupported signal: {number}")
        self.kill()

    def terminate(self) -> None:
        self.kill()

    def kill(self) -> None:
        if self.poll() is None:
            _os_kill(self.pid, SIGKILL)


def _signal(number, handler):
    """SIGTERM's handler is remembered, and never called."""
    return signal.SIG_DFL if number == signal.SIGTERM else _signal_signal(number, handler)


_signal_signal = signal.signal


def install(patch=None) -> None:
    """Put the rules in force; patch: pytest's monkeypatch, which ends them, or None for the whole process."""
    global _rules_hold
    put = patch.setattr if patch else setattr
    drop = (lambda module, name: patch.delattr(module, name, raising=False)) if patch else _drop
    if not getattr(sys, "_has_windows_hook", False):
        sys._has_windows_hook = True
        sys.addaudithook(_audit)
    for module, name, replacement in (
        (builtins, "open", _text_open),
        (io, "open", _text_open),
        (os, "fsync", _fsync),
        (os, "rename", _rename),
        (os, "kill", _kill),
        (os, "chmod", _chmod),
        (os, "mkdir", lambda path, mode=0o777, **more: _os_mkdir(path, **more)),
        (os, "open", lambda path, flags, mode=0o777, **more: _os_open(path, flags, 0o666, **more)),
        (shutil, "_use_fd_functions", False),
        (signal, "signal", _signal),
        (subprocess, "Popen", _Popen),
        (multiprocessing.context._default_context, "_actual_context", multiprocessing.get_context("spawn")),
    ):
        put(module, name, replacement)
    for module, names in MISSING.items():
        for name in names:
            drop(module, name)
    put(sys.modules[__name__], "_rules_hold", True)


def _drop(module, name: str) -> None:
    if hasattr(module, name):
        delattr(module, name)


def prepare_processes(folder: Path) -> dict[str, str]:
    """Return the environment in which a Python process follows the rules; writes into a folder."""
    (folder / "sitecustomize.py").write_text(
        f"import sys\nsys.path.append({str(Path(__file__).parent)!r})\n"
        "import windows_rules\nwindows_rules.install()\n",
        encoding="utf-8",
    )
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}

"""One writer at a time: a locked file says who is at work, as long as that process lives. Owns `filelock`."""

import contextlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from .config import UserError, relative


def lock_of(path: Path) -> Path:
    """Return the file that locks a file while it is being written."""
    return path.with_name(f".{path.name}.lock")


@contextlib.contextmanager
def writing(path: Path, advice: str, patience_s: float = 0) -> Iterator[None]:
    """Hold the only right to write a file; the lock, `.NAME.lock` beside it, falls with the process however
    it ends.

    Raises UserError, which names the holder and ends with `advice`, if another run holds it for longer than
    `patience_s`, and if the folder refuses.
    """
    from filelock import FileLock, Timeout

    place = lock_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place, timeout=patience_s, mode=0o600)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{relative(path)} is being written by {_holder(place)}; {advice}") from error
    except OSError as error:
        raise UserError(
            f"can't write {relative(path)}: {error.strerror or error}; free space or choose another place"
        ) from error
    try:
        _sign(place)
        yield
    finally:
        with contextlib.suppress(OSError):
            place.unlink()  # while it is ours; filelock does not take a file that was unlinked meanwhile
        lock.release()


def _sign(place: Path) -> None:
    """Write into a lock's file who holds it; only for people to read, so nothing depends on it."""
    holder = {
        "program": Path(sys.argv[0]).name,
        "process": os.getpid(),
        "machine": platform.node(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    with contextlib.suppress(OSError):  # a full disk; Windows, where nobody reads or writes a locked file
        place.write_text(json.dumps(holder) + "\n", encoding="utf-8")


def _holder(place: Path) -> str:
    """Return who holds a lock, in words."""
    try:
        holder = json.loads(place.read_text(encoding="utf-8"))
        since = datetime.fromisoformat(holder["since"]).strftime("%H:%M:%S on %Y-%m-%d")
        where = "" if holder["machine"] == platform.node() else f" on {holder['machine']}"
        return f"{holder['program']} (process {holder['process']}{where}, since {since})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"

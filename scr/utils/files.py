"""Files: written whole or not at all, by one run at a time, and known by their sha256. Owns `filelock`."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .config import UserError, relative


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to `path` when the block ends well, else deleted.

    A reader never sees half a file. Only a run that is killed outright leaves its temporary file. Raises
    UserError if the folder or the disk refuses.
    """
    partial = path.with_name(f".partial-{secrets.token_hex(8)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as written:  # Windows syncs only what is open for writing
            os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be no folder
            partial.unlink()


def write_json(path: Path, content: dict | list) -> None:
    """Write JSON, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8", newline="\n")


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder for large temporary files, which goes when the block ends.

    What a killed run left there goes too: nobody holds its lock. Raises UserError if it can't be made.
    """
    from filelock import FileLock

    try:
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(".scratch-*"):
            with contextlib.suppress(OSError):
                with FileLock(left / "lock", timeout=0):
                    pass  # released before the folder goes: Windows removes no open file
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=".scratch-", dir=parent))
        lock = FileLock(folder / "lock")
        lock.acquire()
    except OSError as error:
        raise _cannot_write(parent, error) from error
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path, advice: str, patience_s: float = 0) -> Iterator[None]:
    """Hold the only right to write a file, by a lock beside it that falls with the process.

    Raises UserError, which ends with `advice`, if another run holds it for longer than `patience_s`, and if
    the folder refuses.
    """
    from filelock import FileLock, Timeout

    place = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place, timeout=patience_s, mode=0o600)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{relative(path)} is being written by another run; {advice}") from error
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            place.unlink()  # while it is ours; filelock does not take a file that was unlinked meanwhile
        lock.release()


def _cannot_write(path: Path, error: OSError) -> UserError:
    refused = isinstance(error, PermissionError)  # Windows: while another program has the file open
    advice = "check its permissions, close what uses it" if refused else "free space"
    return UserError(
        f"can't write {relative(path)}: {error.strerror or error}; {advice} or choose another place"
    )


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_verified(path: Path, sha256: str, advice: str) -> bytes:
    """Return the bytes of a file that this project knows by its sha256.

    Raises UserError, which ends with `advice`, if the file can't be read or is another one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"can't read {relative(path)}: {error.strerror}; {advice}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{relative(path)} is damaged or another version; {advice}")
    return content

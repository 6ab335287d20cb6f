"""Paths, class names, errors, writing files whole, arguments. Standard library only."""

import argparse
import contextlib
import functools
import json
import os
import platform
import re
import shlex
import shutil
import signal
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
MODELS = ROOT / "models"
ASSETS = ROOT / "assets"
PERSONAL_DATA = DATA / "personal"
PERSONAL_MODELS = MODELS / "personal"

VERSION = "1.0.0"

SEED = 42

EMOTIONS = ("fear", "happy", "neutral", "sad")
"""The classes the network reads; the order is the class index, everywhere."""

_SYNONYMS = {
    "anger": ("angry",),
    "contempt": (),
    "disgust": ("disgusted",),
    "fear": ("afraid", "fearful", "scared"),
    "happy": ("happiness", "joy", "smile"),
    "neutral": ("calm", "neutrality"),
    "sad": ("sadness",),
    "surprise": ("surprised",),
}
ALL_EMOTIONS = tuple(_SYNONYMS)
"""Every class that data sets use, under the name used here; surplus ones are kept on disk, not trained on."""

_CANONICAL = {alias: name for name, aliases in _SYNONYMS.items() for alias in (name, *aliases)}


class UserError(Exception):
    """Something the user can mend: what, where, and the next command, on one line."""


def canonical_emotion(name: str) -> str | None:
    """Return this project's name for a class (`Happiness` -> `happy`), or None if it is not an emotion."""
    return _CANONICAL.get(name.strip().lower())


def relative(path: Path) -> str:
    """Return `path` as one would type it from the repository root, for messages."""
    path = Path(path).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


@contextlib.contextmanager
def atomic_path(path: Path, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to `path` when the block ends well, else deleted.

    A reader never sees half a file. What a killed run left in the folder is removed on the way. A private
    file can be read by its owner only. Raises UserError if the folder or the disk refuses.
    """
    partial = path.with_name(f".{os.getpid()}{_HOST}.{path.name}")
    if len(os.fsencode(partial.name)) > LONGEST_NAME:
        short = f"{zlib.crc32(os.fsencode(path.name)):08x}{path.suffix[-20:]}"
        partial = path.with_name(f".{os.getpid()}{_HOST}.{short}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        if private:
            os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o600))
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f"can't write {relative(path)}: {error.strerror or error}; free space or choose another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be no folder
            partial.unlink()


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder for large temporary files. It goes when the block ends; where the run is killed,
    with the next such folder or file. Raises UserError if it can't be made."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        folder = Path(tempfile.mkdtemp(prefix=f".{os.getpid()}{_HOST}.", dir=parent))
    except OSError as error:
        raise UserError(f"can't write to {relative(parent)}: {error.strerror}; free space there") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


LONGEST_NAME = 255
"""Bytes, on every usual file system."""
_HOST = f"-{zlib.crc32(platform.node().encode()):08x}"
"""Of a temporary file's name: a process on another machine that shares the folder is not taken for dead."""
_swept: set[Path] = set()


def _remove_leftovers(folder: Path) -> None:
    """Remove what runs on this machine that are no more have left in a folder, once for each folder."""
    if folder in _swept or os.name == "nt":  # Windows has no question without effect about a process
        return
    _swept.add(folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            made_by = re.match(rf"\.(\d+){_HOST}\.", entry.name)
            if made_by and not _runs(int(made_by[1])):
                with contextlib.suppress(OSError):
                    (shutil.rmtree if entry.is_dir(follow_symlinks=False) else os.unlink)(entry.path)


def _runs(process: int) -> bool:
    """Tell whether another process with this number exists."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it does, and is another user's
        return True
    return process != os.getpid()  # our own number, before our first file here: a killed run had it too


def write_json(path: Path, content: dict | list, private: bool = False) -> None:
    """Write JSON, atomically."""
    with atomic_path(path, private) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def native_log_silenced() -> Iterator[None]:
    """Hide what C++ libraries write to file descriptor 2: a dozen lines that say nothing."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


@contextlib.contextmanager
def interrupts_withheld() -> Iterator[None]:
    """Hold Ctrl-C back: a process that is started meanwhile does not hear it, this one does so afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def note(text: str) -> None:
    """Tell the user something on stderr, on a line of its own."""
    print(text, file=sys.stderr, flush=True)


@functools.cache
def note_once(text: str) -> None:
    """Tell the user something that several steps of a run come upon."""
    note(text)


class _Parser(argparse.ArgumentParser):
    """A parser that knows which option is meant by a user who names a file without any."""

    forgotten = ""

    def parse_args(self, args=None, namespace=None):
        found, others = self.parse_known_args(args, namespace)
        if self.forgotten and others and not others[0].startswith("-"):
            self.error(f"did you mean {self.forgotten} {shlex.quote(others[0])}?")
        if others:
            self.error(f"unrecognized arguments: {' '.join(others)}")
        return found


def make_parser(docstring: str, forgotten: str = "") -> argparse.ArgumentParser:
    """Return a parser described by a script's own docstring, with defaults in its help.

    forgotten: the option that an argument without one is for.
    """
    summary, _, rest = docstring.partition("\n\n")

    class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        def _get_help_string(self, action):
            if action.default in (None, False, []) or "default:" in (action.help or ""):
                return action.help
            if isinstance(action.default, (Path, list)):  # paths as one would type them
                values = action.default if isinstance(action.default, list) else [action.default]
                shown = " ".join(
                    relative(value) if isinstance(value, Path) else str(value) for value in values
                )
                return f"{action.help} (default: {shown})"
            return super()._get_help_string(action)

    parser = _Parser(description=f"{summary}\n\n{rest}".strip(), formatter_class=Formatter)
    parser.forgotten = forgotten
    return parser


SHARE_VARIABLE = "EMOTION_SHARE_USAGE_METRICS"
"""Set in the environment if the user lets MediaPipe report its use to Google; worker processes inherit it."""


def add_share_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--share-usage-metrics`, for every script that looks at a face."""
    parser.add_argument(
        "--share-usage-metrics",
        action="store_true",
        help="let MediaPipe report its use to Google; without this nothing leaves the machine",
    )


TRUST_VARIABLE = "EMOTION_TRUST_MODEL"
"""Set in the environment if the user trusts a model that no JSON lists; worker processes inherit it."""


def add_trust_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--trust`, for the scripts that run any `.tflite`."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run a .tflite that no emotion_mlp.json beside it lists, so that nothing tells whose it is",
    )


def at_least(least: int, most: int = 10**9):
    """Return an argparse type: an integer from `least` to `most`."""

    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is not at least {least}")
        if value > most:
            raise argparse.ArgumentTypeError(f"{text} is more than {most}")
        return value

    return integer


positive_int = at_least(1)
seed = at_least(0, 2**32 - 1)


def number(low: float, high: float):
    """Return an argparse type: a number from `low` to `high`, and none that is not finite."""

    def real(text: str) -> float:
        value = float(text)
        if not low <= value <= high:  # NaN neither
            raise argparse.ArgumentTypeError(f"{text} is not a number from {low:g} to {high:g}")
        return value

    return real

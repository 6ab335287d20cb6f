"""Paths, class names, errors, notes. Standard library only."""

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
IN_REPOSITORY = PACKAGE.name == "utils"
"""Whether this is `scr/utils`; installed, the package holds models and assets itself."""
PROGRAM = "python scr/main.py" if IN_REPOSITORY else "emotion-detection"
ROOT = PACKAGE.parents[1] if IN_REPOSITORY else Path.cwd()
"""Where a user's data and models lie: the repository, or the folder in which the package is used."""
SHIPPED = ROOT if IN_REPOSITORY else PACKAGE
DATA = ROOT / "data"
MODELS = SHIPPED / "models"
ASSETS = SHIPPED / "assets"
PERSONAL_DATA = DATA / "personal"
PERSONAL_MODELS = ROOT / "models" / "personal"

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
"""Classes of public data sets by the name used here; surplus ones are kept on disk, not trained on."""
_CANONICAL = {alias: name for name, aliases in _SYNONYMS.items() for alias in (name, *aliases)}


class EmotionDetectionError(Exception):
    """Something the user can mend: what, where, and the next command, on one line."""


UserError = EmotionDetectionError
"""Its name in here; programs of others catch it by the long one."""


def canonical_emotion(name: str) -> str | None:
    """Return this project's name for a class (`Happiness` -> `happy`), or None if it is not an emotion."""
    return _CANONICAL.get(name.strip().lower())


def relative(path: Path) -> str:
    """Return `path` as one can type it here: from the current directory if it lies in it, else absolute."""
    return _from(Path.cwd(), path)


def from_root(path: Path) -> str:
    """Return `path` as models keep it: from the repository's root if it lies in it, else absolute."""
    return Path(_from(ROOT, path)).as_posix()


def _from(folder: Path, path: Path) -> str:
    path = Path(path).resolve()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


_stderr_in_use = threading.RLock()


@contextlib.contextmanager
def native_log_silenced() -> Iterator[None]:
    """Hide what C++ libraries write to file descriptor 2 while they load: a dozen lines of nothing.

    That of other threads is lost meanwhile, so not for what runs beside them.
    """
    with _stderr_in_use:
        sys.stderr.flush()
        saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(null)


def note(text: str) -> None:
    """Tell the user something on stderr, on a line of its own."""
    print(text, file=sys.stderr, flush=True)


def ask(question: str) -> str | None:
    """Return the answer typed on the terminal, in small letters; None where nobody can be asked."""
    if not (sys.stdin and sys.stdin.isatty()):
        return None
    note(question)
    try:
        return input().strip().lower()
    except EOFError:
        return ""


@functools.cache
def note_once(text: str) -> None:
    """Tell the user something that several steps of a run come upon."""
    note(text)


TRUST_VARIABLE = "EMOTION_TRUST_MODEL"
"""Set in the environment if the user trusts a model that no JSON lists; worker processes inherit it."""

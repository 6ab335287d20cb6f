"""Class lists: which names can be classes, and which classes a run is about. Every list is checked here.

Classes belong to a set and to a model; `EMOTIONS` is the list where nobody says otherwise.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from ..config import EMOTIONS, UserError, canonical_emotion, note, note_once

FEWEST_CLASSES, MOST_CLASSES = 2, 9
"""A digit key for each class, and colours that a colour-blind eye tells apart."""
LONGEST_NAME = 24
JOINERS = "\u200c\u200d"
RESERVED = frozenset(
    "source frame timestamp_ms face x y width height emotion confidence".split()  # columns of results
    + ["uncertain", "no face"]  # answers that are no class
    + ["train", "val", "test"]  # folders that are a split
    + ["con", "prn", "aux", "nul", "all"]  # device names of Windows; what asks for everything
)


def name_problem(name: str) -> str:
    """Return why a name can't be a class (as a folder, a CSV header, a label on screen), or ""."""
    if name in RESERVED:
        return "is a word with a meaning of its own here"
    if len(name) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} characters"
    # Vowel signs of Hindi, Tamil, Thai or Arabic, and joiners between letters, are no letters to `re`.
    plain = "".join(one for one in name if one not in JOINERS and unicodedata.category(one)[0] != "M")
    if not re.fullmatch(r"[^\W_](?:[\w -]*\w)?", plain):
        return "has other characters than letters, digits, spaces, - and _"
    return ""


def class_name(name: str) -> str:
    """Return a class's name as written here: small letters, one word for synonyms of known emotions."""
    plain = " ".join(unicodedata.normalize("NFC", name).lower().split())
    return canonical_emotion(plain) or plain


def given_class(name: str) -> str:
    """Return `class_name` of a name that the user gave, and say so where that is another word."""
    found, plain = class_name(name), " ".join(name.lower().split())
    if canonical_emotion(plain) not in (None, plain):
        note_once(f"{plain} counts as {found} (a known emotion)")
    return found


def check_classes(names: Iterable[str], where: str = "--classes") -> tuple[str, ...]:
    """Return a class list in its order and our spelling; raises UserError naming `where` if it is none."""
    given = list(names)
    classes = [given_class(name) for name in given]
    for name, written in zip(classes, given):
        if problem := name_problem(name):
            raise UserError(f"{where}: {written!r} {problem}; choose another name for this class")
    if repeated := sorted({name for name in classes if classes.count(name) > 1}):
        spellings = ", ".join(written for name, written in zip(classes, given) if name == repeated[0])
        raise UserError(f"{where}: {spellings} are one class, {repeated[0]}; name each class once")
    if not FEWEST_CLASSES <= len(classes) <= MOST_CLASSES:
        raise UserError(
            f"{where}: {len(classes)} class{'es' * (len(classes) != 1)} ({list_names(classes)}); "
            f"a model tells {FEWEST_CLASSES} to {MOST_CLASSES} classes apart"
        )
    return tuple(classes)


def choose_classes(labels: Iterable[str], wanted: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """Return the classes that a run on a labelled set is about, and say in one line which they are.

    Those `wanted`; without them the four `EMOTIONS` of a set that has them, else all that the set holds.
    Raises UserError, which names the set by `where`, if one of them has no face there or the list is none.
    """
    held = sorted(set(labels))
    if wanted:
        classes = check_classes(wanted)
        if absent := [name for name in classes if name not in held]:
            raise UserError(
                f"no {' and no '.join(absent)} in {where}, which holds {list_names(held)}; add pictures of it"
                " (python scr/extract_landmarks.py --help), or leave it out of --classes"
            )
    else:
        classes = EMOTIONS if set(EMOTIONS) <= set(held) else check_classes(held, where)
    left = [name for name in held if name not in classes]
    others = f"; left out: {list_names(left)} (--classes names others)" if left else ""
    if others or classes != EMOTIONS:
        note(f"classes: {list_names(classes)}{others}")
    return classes


def list_names(names: Sequence[str], most: int = 12) -> str:
    """Return names as text; of many only the first ones."""
    names = list(names)
    return (", ".join(names[:most]) + f", and {len(names) - most} more" * (len(names) > most)) or "none"

"""What a folder holds: its pictures and videos in order, and what was left out of it, by reason."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

HEIF_SUFFIXES = {".heic", ".heif"}
"""Apple's telephones write them; the package pillow-heif reads them, and is not required."""
HELPER_FOLDERS = {"__macosx", "@eadir"}
"""Made by macOS archives and Synology stations beside the pictures; with names that are not hidden."""


def list_files(
    root: Path, wanted: Callable[[Path], bool], without: Collection[Path] = ()
) -> tuple[list[Path], Counter]:
    """Return the files under `root` that are `wanted` by name, and a count of those left out by reason.

    The order is that of people, whatever the file system's. Links to folders are followed, and each folder is
    read once. Hidden files and folders, what systems put beside pictures, and the paths `without` are left
    out.
    """
    found, left_out = [], Counter()
    mine = {os.path.realpath(path) for path in without}
    seen = set()

    def walk(folder: Path) -> None:
        if os.path.realpath(folder) in seen:
            left_out["links to folders that are read already"] += 1
            return
        seen.add(os.path.realpath(folder))
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: counting_key(entry.name))
        except OSError:
            left_out["folders that can't be read"] += 1
            return
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name.lower() in HELPER_FOLDERS:
                left_out["hidden"] += 1
            elif mine and os.path.realpath(path) in mine:
                left_out["output of this program"] += 1
            elif os.path.isdir(path):
                walk(path)
            elif reason := _why_not(path, wanted):
                left_out[reason] += 1
            else:
                found.append(path)

    walk(root)
    return found, left_out


def counting_key(name: str) -> tuple:
    """Return a key that sorts names as people count: `img2` before `img10`."""
    pieces = re.split(r"(\d+)", name.casefold())
    return [int(piece) if index % 2 else piece for index, piece in enumerate(pieces)], name


def list_reasons(left_out: Counter) -> str:
    """Return what was left out as one would say it: `3 .txt, 1 hidden`; the most frequent first."""
    return ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())


def _why_not(path: Path, wanted: Callable[[Path], bool]) -> str:
    """Return why a file is left out, or ""."""
    suffix = path.suffix.lower()
    if not wanted(path):
        if suffix in HEIF_SUFFIXES:
            return f"{suffix} (to read them: pip install pillow-heif)"
        return suffix if suffix[1:].isalnum() and len(suffix) <= 6 else "without a known suffix"
    return "" if os.path.isfile(path) else "no regular file"

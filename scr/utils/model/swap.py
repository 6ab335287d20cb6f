"""A bundle is replaced as a whole: whenever a run is killed, its folder holds the old model or the new one.

New files are gathered in a folder of their own inside the bundle's. Their JSON, written last, makes them
valid: from then on the old model is no more. They are moved into place then, the JSON last; where a run is
killed on the way, whoever uses the folder next does the rest (`settle`). Nothing else there is touched.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..config import UserError, relative
from ..data.checks import read_json
from ..files import lock_of, writing

NAME = "emotion_mlp"
CROP_NAME = "emotion_crop"
JSON = f"{NAME}.json"
SUFFIXES = (".keras", ".tflite", "_int8.tflite", ".onnx")
"""Of a network's files: trained, live, live with 8 bit integers, ONNX."""
OWN = frozenset({"scaler.pkl", *(stem + suffix for stem in (NAME, CROP_NAME) for suffix in SUFFIXES)})
"""Files that a bundle may have beside its JSON; those that a new one lacks go when it takes its place."""
NEXT = f".{NAME}.next"
PATIENCE_S = 300.0
"""Another run that is writing needs seconds, on a busy machine a minute."""


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for the files of a new bundle; they take the place of the old one together.

    They do so if the block has written the JSON into it, as the last file and at once (`files.write_json`).
    If not, the old bundle stays. Raises UserError if the disk refuses, or another run goes on writing.
    """
    with _held(folder, PATIENCE_S):
        _complete(folder)
        staging = folder / NEXT
        try:
            staging.mkdir()
            yield staging
        except OSError as error:
            raise UserError(
                f"can't write {relative(folder)}: {error.strerror or error}; "
                "free space or choose another place"
            ) from error
        finally:
            _complete(folder)


def settle(folder: Path) -> None:
    """Complete what a run that was killed left in a bundle's folder; all that read one call this first.

    Raises UserError if a new model waits there and can't be moved into place.
    """
    staging = folder / NEXT
    if not (staging.is_dir() or lock_of(folder / JSON).exists()):
        return
    complete = (staging / JSON).is_file()
    try:
        with _held(folder, PATIENCE_S if complete else 0):
            _complete(folder)
    except UserError:
        if complete:
            raise
        # Another run is still writing, or the folder can't be written to: the old model is whole.
        if (staging / JSON).is_file():  # until now
            settle(folder)


def _held(folder: Path, patience_s: float):
    return writing(folder / JSON, "wait for it, or choose another folder", patience_s)


def _complete(folder: Path) -> None:
    """Move a complete set of new files into place, and remove an incomplete one."""
    staging = folder / NEXT
    if not (staging / JSON).is_file():
        return shutil.rmtree(staging, ignore_errors=True)
    try:
        listed = read_json(staging / JSON).get("sha256", ())
        for name in OWN.difference(listed):
            (folder / name).unlink(missing_ok=True)
        for path in sorted(staging.iterdir(), key=lambda path: path.name == JSON):
            path.replace(folder / path.name)
        staging.rmdir()
    except (OSError, ValueError) as error:
        raise UserError(
            f"the new model in {relative(staging)} can't be moved into place: {error}; close what uses the "
            "model in that folder and run the command again"
        ) from error

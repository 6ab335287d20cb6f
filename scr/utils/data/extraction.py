"""Labelled pictures -> a set of faces, on all cores or on several machines. Owns `distributed`.

Stopped at any moment it goes on where it was. The machines of a cluster have this repository and the pictures
at the same place, and run workers that find the code:

    dask scheduler
    PYTHONPATH=scr dask worker --nthreads 1 --nworkers 8 tcp://scheduler:8786
"""

import contextlib
import hashlib
import logging
import re
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ..config import UserError, note
from ..faces.crops import crop_face
from ..faces.images import PictureError, import_cv2, load_picture
from ..faces.landmarker import FaceLandmarker
from ..faces.pool import Lost, work_through
from .face_set import insert, open_file, update
from .image_folder import LabelledImage

MIN_SIDE_PX = 24
"""Pictures with a shorter side are skipped: no expression can be read from them."""
COMMIT_S = 1.0
"""What is read is on the disk after so many seconds: what a power cut can cost."""
TASK_PICTURES = 64
"""Of a cluster's task: a second of work, and what is done again if its worker dies."""
PATIENCE_S = 20
"""For the scheduler to answer, and for the first worker to be there."""


def extract(
    images: Sequence[LabelledImage], root: Path, source: str, output: Path, jobs: int, scheduler: str = ""
) -> None:
    """Make `output` the set of these labelled pictures under `root`, by `jobs` processes or a Dask scheduler.

    Pictures that it holds already and that have not changed are not read again. Raises UserError if the file
    or the cluster can't be used.
    """
    with open_file(output, write=True) as file:
        file.execute("PRAGMA locking_mode = EXCLUSIVE")
        paths = _list(file, images, root, source)
        if done := len(images) - len(_waiting(file)):
            note(f"going on: {done} of {len(images)} pictures were done before")
        try:
            if scheduler:
                _take(file, _on_cluster(scheduler, paths, _waiting(file)), source)
            if here := _waiting(file):  # what no worker of the cluster survived, too
                found = work_through(open_extractor, [paths[number] for number in here], jobs)
                _take(file, zip(here, found), source)
        except KeyboardInterrupt:
            done = len(images) - len(_waiting(file))
            note(f"{done} of {len(images)} pictures are done; the same command goes on from there")
            raise


def _list(
    file: sqlite3.Connection, images: Sequence[LabelledImage], root: Path, source: str
) -> dict[int, Path]:
    """Make these the pictures of a set, new and changed ones to be read; return their paths by number."""
    known = {row[1:]: row[0] for row in file.execute("SELECT id, path, size, mtime_ns FROM picture")}
    last, paths = max(known.values(), default=0), {}
    with file:
        for image in images:
            status = image.path.stat()
            name = image.path.relative_to(root).as_posix().encode(errors="backslashreplace").decode()
            number = known.pop((name, status.st_size, status.st_mtime_ns), None)
            if number is None:
                number = last = last + 1
                stamp = {"path": name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
                insert(file, "picture", {"id": [number]} | {key: [value] for key, value in stamp.items()})
            paths[number] = image.path
            columns = {key: getattr(image, key) for key in ("label", "split", "subject", "session")}
            update(file, number, columns | {"source": source, "votes": bytes(image.votes)})
        for table in ("picture", "landmarks", "crop"):
            file.executemany(f"DELETE FROM {table} WHERE id = ?", [(number,) for number in known.values()])
    return paths


def _waiting(file: sqlite3.Connection) -> list[int]:
    return [row[0] for row in file.execute("SELECT id FROM picture WHERE reason IS NULL ORDER BY id")]


def _take(file: sqlite3.Connection, found: Iterable[tuple[int, dict | Lost]], source: str) -> None:
    """Write what is found on pictures, by their numbers, and show the progress."""
    from tqdm import tqdm

    count = file.execute("SELECT COUNT(*) FROM picture").fetchone()[0]
    written = time.monotonic()
    with file, tqdm(total=count, initial=count - len(_waiting(file)), unit="img", desc=source) as bar:
        for number, row in found:
            if isinstance(row, Lost):
                row = {"reason": "detector failed"}
            for table in ("landmarks", "crop"):
                if table in row:
                    insert(file, table, {"id": [number], "value": [row.pop(table)]})
            update(file, number, row)
            bar.update()
            if time.monotonic() - written > COMMIT_S:
                file.commit()
                written = time.monotonic()


@contextlib.contextmanager
def open_extractor():
    """Open a landmarker for a worker process; yields `extract_one`, which uses it."""
    import_cv2().setNumThreads(1)  # the other cores have processes of their own
    landmarker = FaceLandmarker()
    yield partial(extract_one, landmarker)


def extract_one(landmarker: FaceLandmarker, path: Path) -> dict:
    """Return what a set holds of a picture file, by column: its largest face, or why there is none."""
    try:
        picture = load_picture(path)
        content = path.read_bytes()
    except (PictureError, OSError) as error:
        return {"reason": getattr(error, "reason", "unreadable")}
    row = {"sha256": hashlib.sha256(content).hexdigest(), "encoding": encoding(path, content)}
    row |= {"width": picture.width, "height": picture.height}
    if min(picture.width, picture.height) < MIN_SIDE_PX:
        return row | {"reason": "too small"}
    try:
        faces = landmarker.detect_picture(picture.image)
    except (RuntimeError, MemoryError, import_cv2().error):
        return row | {"reason": "detector failed"}
    if not faces:
        return row | {"reason": "no face"}
    return row | {
        "reason": "",
        "landmarks": faces[0].landmarks.tobytes(),
        "blendshapes": faces[0].blendshapes.tobytes(),
        "crop": crop_face(picture.image, faces[0].landmarks).tobytes(),
    }


def encoding(path: Path, content: bytes) -> str:
    """Return how a picture is encoded: its suffix, and for a JPEG the sum of its quantisation tables.

    Pictures of one camera or one tool have it in common; one that was encoded again mostly has another.
    """
    tables = re.findall(rb"\xff\xdb\x00[\x43\x84\xc5].{65}", content, re.DOTALL)
    return f"{path.suffix.lower()} {zlib.crc32(b''.join(tables)):08x}"


def extract_task(pictures: dict[int, Path]) -> list[tuple[int, dict]]:
    """Return numbers of pictures and what `extract_one` finds there; runs on a worker of a cluster."""
    with open_extractor() as work:
        return [(number, work(path)) for number, path in pictures.items()]


def _on_cluster(scheduler: str, paths: dict[int, Path], numbers: Sequence[int]) -> Iterator[tuple[int, dict]]:
    """Yield what a cluster finds on pictures, as it is done; those that kill several workers are left out."""
    try:
        from distributed import Client, KilledWorker, as_completed
    except ModuleNotFoundError as error:
        raise UserError("--cluster needs Dask; run: pip install -r requirements-cluster.txt") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # a lost connection is told once, and by us
    starts = range(0, len(numbers), TASK_PICTURES)
    tasks = [{one: paths[one] for one in numbers[start : start + TASK_PICTURES]} for start in starts]
    try:
        with Client(scheduler, timeout=PATIENCE_S) as client:
            client.wait_for_workers(1, timeout=PATIENCE_S)
            for done in as_completed(client.map(extract_task, tasks, pure=False)):
                if not (done.status == "error" and isinstance(done.exception(), KilledWorker)):
                    yield from done.result()
    except Exception as error:  # Dask and tornado raise a dozen unrelated types
        cause = error
        while cause and not isinstance(cause, ModuleNotFoundError):
            cause = cause.__cause__
        reason = f"a worker has no {cause.name}" if cause else str(error) or type(error).__name__
        raise UserError(
            f"the cluster at {scheduler} can't be used: {reason}; see that scheduler and workers run, in the "
            "repository (PYTHONPATH=scr dask worker), and run this again: it goes on where it was"
        ) from error

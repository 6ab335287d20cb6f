"""Labelled pictures -> a landmark set, on all cores; stopped at any moment, it goes on where it was."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ..faces.crops import crop_face
from ..faces.headers import PictureError
from ..faces.images import import_cv2, load_picture, perceptual_hash
from ..faces.landmarker import FaceLandmarker, ensure_landmarker_file
from ..faces.pool import Lost, work_through
from .face_set import FaceSet, concatenate, from_rows, load_face_set, save_face_set
from .image_folder import LabelledImage

CHUNK = 64
"""Pictures in each part file: a second of work for one core, what a power cut can cost."""
MIN_SIDE_PX = 24
"""Pictures with a shorter side are skipped: no expression can be read from them."""


def extract(
    images: Sequence[LabelledImage], root: Path, source: str, jobs: int, parts_dir: Path | None = None
) -> FaceSet:
    """Return the landmark set of labelled pictures under `root`, worked on by `jobs` processes.

    With `parts_dir`, each chunk is written there when it is done, and those that are there are not done
    again."""
    from tqdm import tqdm

    ensure_landmarker_file()  # once, not in every worker
    parts = {start: _read_part(parts_dir, start) for start in range(0, len(images), CHUNK)}
    missing = [start for start, part in parts.items() if part is None]
    wanted = [image.path for start in missing for image in images[start : start + CHUNK]]
    with tqdm(total=len(images), initial=len(images) - len(wanted), unit="img", desc=source) as bar:
        rows = _extract_rows(wanted, jobs, parts_dir)
        for start in missing:
            chunk, done = images[start : start + CHUNK], []
            for _ in chunk:
                done.append(next(rows))
                bar.update()
            parts[start] = from_rows(chunk, done, root, source)
            if parts_dir:
                save_face_set(part_path(parts_dir, start), parts[start])
                parts[start] = _read_part(parts_dir, start)  # its crops stay on disk
    return concatenate(list(parts.values()))


def count_done(count: int, parts_dir: Path) -> int:
    """Return how many of `count` pictures are in the part files already."""
    return sum(
        min(CHUNK, count - start) for start in range(0, count, CHUNK) if part_path(parts_dir, start).exists()
    )


def part_path(parts_dir: Path, start: int) -> Path:
    """Return the part file of the chunk that begins with picture `start`."""
    return parts_dir / f"{start:07}.npz"


def _read_part(parts_dir: Path | None, start: int) -> FaceSet | None:
    if parts_dir is None or not part_path(parts_dir, start).exists():
        return None
    return load_face_set(part_path(parts_dir, start), allow_empty=True)


def _extract_rows(paths: Sequence[Path], jobs: int, parts_dir: Path | None) -> Iterator[dict]:
    """Yield a row for each picture, in order; those that workers died of are noted in `parts_dir`, to be left
    alone.
    """
    note = parts_dir / "deadly" if parts_dir else None
    deadly = set(note.read_bytes().split(b"\0")) if note and note.exists() else set()
    rows = work_through(open_extractor, [path for path in paths if bytes(path) not in deadly], jobs)
    for path in paths:
        if bytes(path) in deadly:
            yield {"skipped": "detector failed"}
        elif not isinstance(row := next(rows), Lost):
            yield row
        else:
            if note:
                with note.open("ab") as file:
                    file.write(bytes(path) + b"\0")
            yield {"skipped": "detector failed"}


@contextlib.contextmanager
def open_extractor():
    """Open a landmarker for a worker process; yields `extract_one`, which uses it."""
    import_cv2().setNumThreads(1)  # the other cores have processes of their own
    with FaceLandmarker() as landmarker:
        yield partial(extract_one, landmarker)


def extract_one(landmarker: FaceLandmarker, path: Path) -> dict:
    """Return the row of a picture file.

    A row has `sha256`, `width`, `height` and `phash`, and either `landmarks` (478, 3), `blendshapes` (52,)
    and `crop` of the largest face or `skipped`, the reason why there are none.
    """
    row = {"sha256": "", "width": 0, "height": 0, "phash": 0}
    try:
        picture = load_picture(path)
        with path.open("rb") as file:
            row["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    except (PictureError, OSError) as error:
        return row | {"skipped": getattr(error, "reason", "unreadable")}
    row |= {"width": picture.width, "height": picture.height}
    if min(picture.width, picture.height) < MIN_SIDE_PX:
        return row | {"skipped": "too small"}
    row["phash"] = perceptual_hash(picture.image)
    try:
        faces = landmarker.detect_picture(picture.image)
    except (RuntimeError, MemoryError, import_cv2().error):
        return row | {"skipped": "detector failed"}
    if not faces:
        return row | {"skipped": "no face"}
    face = faces[0]
    crop = crop_face(picture.image, face.landmarks)
    return row | {"landmarks": face.landmarks, "blendshapes": face.blendshapes, "crop": crop}

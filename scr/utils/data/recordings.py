"""Recordings of a person: landmarks only, one line for each sample, on disk before the counter moves.

`data/personal/<subject>/<session>.jsonl`; a line is the CRC-32 of the rest, a space, and a JSON object with
label, ISO time (UTC), and float32 landmarks and blendshapes in base64. A line that was cut off or damaged
fails its checksum; it is dropped and reported, all others are read. Samples also keep what a crop network's
last hidden layer made of the face, if the model had one: some hundred numbers, from which no picture can be
made. One run at a time writes a session. A subject's folder and all in it can be read by its owner only.
"""

import base64
import contextlib
import json
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ..config import EMOTIONS, PERSONAL_DATA, UserError, relative
from ..faces.features import ALL_POINTS, BLENDSHAPES, MESH_POINTS, face_box
from ..faces.images import sharpness
from ..files import atomic_path, write_json, writing
from .checks import check_faces, parse_json
from .classes import check_classes, class_name, name_problem

NEUTRAL_FILE = "neutral.npz"
"""In a subject's folder: the neutral baseline of live use, some frames of the face; not trained on."""

CLASSES_FILE = "classes.json"
"""In a subject's folder: the classes of the recordings, in order, where they are not the usual four."""

CONSENT_FILE = "consent.json"
"""In a subject's folder: that and when the person agreed to be recorded."""


@dataclass(frozen=True)
class Sample:
    """One recorded face: landmarks (478, 3) and blendshapes (52,) float32, its label, who, when (UTC)."""

    landmarks: np.ndarray
    blendshapes: np.ndarray
    label: str
    subject: str
    session: str
    time: datetime
    embedding: np.ndarray | None = None
    """(n,) float32: the last hidden layer of the crop network"""
    crop_network: str = ""
    """sha256 of the crop network that the embedding is of"""


def check_name(name: str) -> str:
    """Return `name` if it can be a folder and a file on every system; raises UserError otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise UserError(f"{name!r} can't be used as a name; use letters, digits, - and _ (at most 64)")
    return name


def quoted(text: str) -> str:
    """Return an argument as one types it on a command line, on any system."""
    return f'"{text}"' if " " in text else text


def record_command(subject: str, folder: Path = PERSONAL_DATA, *more: str) -> str:
    """Return the command that records a subject in a folder of recordings; more: further arguments."""
    place = () if folder == PERSONAL_DATA else ("--data", str(folder))
    return f"python scr/record_dataset.py --subject {' '.join(map(quoted, (subject, *place, *more)))}"


def open_folder(subject: str, folder: Path = PERSONAL_DATA) -> Path:
    """Return the folder of a subject, made if need be, for its owner's eyes only."""
    path = folder / check_name(subject)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        if path.stat().st_mode & 0o077:  # made by an earlier version
            path.chmod(0o700)
            for file in path.glob("*"):
                file.chmod(0o700 if file.is_dir() else 0o600)
    except OSError as error:
        raise UserError(f"can't write {relative(path)}: {error.strerror}; check its rights") from error
    return path


def session_path(subject: str, session: str, folder: Path = PERSONAL_DATA) -> Path:
    """Return where a session is kept, if it is."""
    return folder / check_name(subject) / f"{check_name(session)}.jsonl"


def writing_session(path: Path) -> contextlib.AbstractContextManager:
    """Hold the only right to change a session's file; raises UserError that names who else does."""
    return writing(path, "wait for its end, or record another session: --session NAME")


class SessionWriter:
    """Appends samples to one session's file; a context manager. A sample is on disk when `append` returns.

    Where none was written, nothing is left: no file, and no folder that was made for it.
    Raises UserError if another run is writing this session, and if the disk refuses.
    """

    def __init__(self, subject: str, session: str, folder: Path = PERSONAL_DATA):
        self.path = session_path(subject, session, folder)
        self._made_folder = not self.path.parent.exists()
        open_folder(subject, folder)
        self._again = record_command(subject, folder, "--session", session)
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(writing_session(self.path))
        try:
            self._file = open(self.path, "ab", buffering=0, opener=_open_private)
            if self.path.stat().st_size and self.path.read_bytes()[-1:] != b"\n":
                self._file.write(b"\n")  # ends the line that a power cut tore
        except OSError as error:
            self._lock.close()
            raise UserError(
                f"can't write {relative(self.path)}: {error.strerror}; free space or check its rights, "
                f"then run: {self._again}"
            ) from error

    def append(
        self,
        landmarks: np.ndarray,
        blendshapes: np.ndarray,
        label: str,
        embedding: np.ndarray | None = None,
        crop_network: str = "",
    ) -> None:
        """Write one sample, wait until the disk has it; if it refuses, leave whole lines, raise UserError."""
        row = {
            "label": label,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "landmarks": _encode(landmarks),
            "blendshapes": _encode(blendshapes),
        }
        if embedding is not None:
            row |= {"embedding": _encode(embedding), "crop_network": crop_network}
        body = json.dumps(row)
        size = os.fstat(self._file.fileno()).st_size
        line = f"{zlib.crc32(body.encode()):08x} {body}\n".encode()
        try:
            if self._file.write(line) != len(line):
                raise OSError("the disk is full")
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):  # a half line that stays fails its checksum
                self._file.truncate(size)
            raise UserError(
                f"can't write {relative(self.path)}: {error.strerror or error}; samples so far are safe: "
                f"free space and go on with: {self._again}"
            ) from error

    def __enter__(self) -> "SessionWriter":
        return self

    def __exit__(self, *_) -> None:
        with self._lock:
            self._file.close()
            if self.path.stat().st_size:
                return
            self.path.unlink()
        if self._made_folder and not any(self.path.parent.glob("*.jsonl")):
            for name in (CLASSES_FILE, CONSENT_FILE):
                (self.path.parent / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another run keeps something in it
                self.path.parent.rmdir()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _encode(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def _decode(text: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").reshape(shape)


def read_session(path: Path) -> tuple[list[Sample], int]:
    """Return the samples in a session's file and the number of damaged lines that were dropped."""
    samples, dropped = [], 0
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"can't read {relative(path)}: {error.strerror}; check its rights") from error
    for line in data.split(b"\n"):
        if not line:
            continue
        checksum, _, body = line.partition(b" ")
        try:
            if int(checksum, 16) != zlib.crc32(body):
                raise ValueError("checksum")
            samples.append(_read_sample(parse_json(body), path))
        except (ValueError, KeyError, TypeError, OverflowError):
            dropped += 1
    return samples, dropped


def _read_sample(row: dict, path: Path) -> Sample:
    """Return the sample in a line of a session's file; raises ValueError, and others, if it is none."""
    if row["label"] != class_name(row["label"]) or name_problem(row["label"]):
        raise ValueError(f"label {row['label']}")
    landmarks = _decode(row["landmarks"], (ALL_POINTS, 3))
    blendshapes = _decode(row["blendshapes"], (BLENDSHAPES,))
    check_faces(landmarks[None], blendshapes[None])
    time = datetime.fromisoformat(row["time"]).astimezone(UTC)  # a time without zone is a local one
    embedding = _decode(row["embedding"], (-1,)) if "embedding" in row else None
    if embedding is not None and not np.isfinite(embedding).all():
        raise ValueError("an embedding that is no number")
    crop_network = str(row.get("crop_network", ""))
    names = row["label"], path.parent.name, path.stem
    return Sample(landmarks, blendshapes, *names, time, embedding, crop_network)


def list_sessions(folder: Path = PERSONAL_DATA) -> list[Path]:
    """Return the session files of everyone, by subject and session."""
    return sorted(folder.glob("*/*.jsonl"))


def load_subject(subject: str, folder: Path = PERSONAL_DATA) -> tuple[list[Sample], int]:
    """Return all samples of a subject, session by session in order of time, and the number of damaged lines.

    Raises UserError if there are none.
    """
    paths = [path for path in list_sessions(folder) if path.parent.name == check_name(subject)]
    parts = [read_session(path) for path in paths]
    samples = sorted((sample for part, _ in parts for sample in part), key=lambda sample: sample.time)
    if not samples:
        known = ", ".join(sorted({path.parent.name for path in list_sessions(folder)})) or "nobody yet"
        raise UserError(
            f"no recordings of {subject} in {relative(folder)} (recorded: {known}); "
            f"run: {record_command(subject, folder)}"
        )
    return samples, sum(dropped for _, dropped in parts)


def count_labels(samples: Sequence[Sample], classes: Sequence[str]) -> dict[str, int]:
    """Return the number of samples of each class, in the order of `classes`."""
    return {name: sum(sample.label == name for sample in samples) for name in classes}


def load_classes(subject: str, folder: Path = PERSONAL_DATA) -> tuple[str, ...] | None:
    """Return the classes chosen for a subject's recordings; None if none were, which means `EMOTIONS`.

    Raises UserError if the file that keeps them is damaged.
    """
    path = folder / check_name(subject) / CLASSES_FILE
    if not path.is_file():
        return None
    try:
        return check_classes(parse_json(path.read_bytes())["classes"], relative(path))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{relative(path)} is damaged ({error}); name the classes again: "
            f"{record_command(subject, folder)} --classes NAME NAME"
        ) from error


def keep_classes(subject: str, classes: Sequence[str], folder: Path = PERSONAL_DATA) -> None:
    """Keep the classes of a subject's recordings beside them; the default needs no file."""
    path = open_folder(subject, folder) / CLASSES_FILE
    if tuple(classes) != EMOTIONS or path.is_file():
        write_json(path, {"classes": list(classes)}, private=True)


class SampleFilter:
    """Says what would spoil a set: no face, a face cut off, blur, or nearly the last sample again."""

    MIN_SHARPNESS = 25.0
    """Variance of the Laplacian of the face at 128 pixels width. Measured: sharp clips and portraits 105 and
    more, the same clips blurred by a Gaussian of 2% of the face's width 9 to 35."""
    MIN_CHANGE = 0.003
    """Least mean move of the mesh since the last sample of the class, in face widths. Measured: from frame to
    frame of a face that holds still .0004 to .001, of one that moves .004 to .006."""
    MIN_EXPRESSION = 0.1
    """Or the least change of one blendshape, which sees an eyelid that moves alone. Measured: from frame to
    frame of a face that holds still .02; where a smile grew slowly one had moved by .5 while the mesh had by
    less than MIN_CHANGE."""
    MAX_OUTSIDE = 0.05
    """How far the mesh may reach over the picture's edge, in face widths: tight crops cut the outline, not
    the features."""

    SAME = "same as last: move a bit"

    def __init__(self):
        self._last: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def problem(self, face, frame_bgr: np.ndarray | None, label: str) -> str:
        """Return why a frame's face (landmarks in image widths, or None) must not be recorded under a label,
        or ""."""
        if face is None:
            return "no face" if frame_bgr is not None else "unreadable picture"
        height, width = frame_bgr.shape[:2]
        left, top, box_width, box_height = face_box(face.landmarks) * width
        margin = self.MAX_OUTSIDE * box_width
        if min(left, top, width - left - box_width, height - top - box_height) < -margin:
            return "face cut off"
        rows, columns = (
            slice(max(0, int(top)), int(top + box_height)),
            slice(max(0, int(left)), int(left + box_width)),
        )
        if sharpness(frame_bgr[rows, columns]) < self.MIN_SHARPNESS:
            return "blurred"
        if label in self._last:
            shape, blendshapes = self._last[label]
            moved = np.abs(shape - _shape(face.landmarks)).mean() >= self.MIN_CHANGE
            if not moved and np.abs(blendshapes - face.blendshapes).max() < self.MIN_EXPRESSION:
                return self.SAME
        return ""

    def accept(self, face, label: str) -> None:
        """Remember the sample that was stored."""
        self._last[label] = _shape(face.landmarks), face.blendshapes


def _shape(landmarks: np.ndarray) -> np.ndarray:
    """Return the mesh (468, 2) relative to its middle, in face widths."""
    mesh = landmarks[:MESH_POINTS, :2]
    return (mesh - mesh.mean(axis=0)) / max(float(np.ptp(mesh[:, 0])), 1e-6)


def has_consent(folder: Path) -> bool:
    """Tell whether the subject of a folder has agreed to be recorded."""
    return (folder / CONSENT_FILE).is_file()


def store_consent(folder: Path) -> None:
    """Note that, and when, the subject of a folder agreed."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / CONSENT_FILE, {"agreed": when}, private=True)


def neutral_path(subject: str, folder: Path) -> Path:
    """Return where a subject's neutral face is kept, if it is."""
    return folder / check_name(subject) / NEUTRAL_FILE


def save_neutral(subject: str, landmarks: np.ndarray, blendshapes: np.ndarray, folder: Path) -> Path:
    """Keep a subject's neutral baseline, landmarks (n, 478, 3) and blendshapes (n, 52); return where."""
    path = open_folder(subject, folder) / NEUTRAL_FILE
    with atomic_path(path, private=True) as partial:
        np.savez(
            partial, landmarks=np.asarray(landmarks, np.float32), blendshapes=blendshapes.astype(np.float32)
        )
    return path


def load_neutral(subject: str, folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Return what `save_neutral` kept of a subject, None if nothing; raises UserError if it is damaged."""
    path = neutral_path(subject, folder)
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            landmarks, blendshapes = kept["landmarks"], kept["blendshapes"]
        check_faces(landmarks, blendshapes)
        if not len(landmarks):
            raise ValueError("no face in it")
    except (
        Exception
    ) as error:  # a damaged archive raises many types: zipfile's, zlib's, struct's, MemoryError
        raise UserError(
            f"{relative(path)} is damaged ({error}); take the neutral face again: "
            f"python scr/main.py --subject {subject} --calibrate"
        ) from error
    return landmarks, blendshapes

"""Recordings of a person: landmarks only, one SQLite database for each subject.

`data/personal/<subject>/recordings.sqlite` holds the samples, the classes where they are not the usual four,
and when the person agreed to be recorded. A sample keeps landmarks, blendshapes and the embedding (a crop
network's last hidden layer): some thousand numbers, from which no picture can be made. It is on disk when
`append` returns. The folder, and all in it, can be read by its owner only.

SQLite's own lock, which falls with its process, says who may do what: one run at a time records or deletes,
and none does while others read, as training does.
"""

import base64
import contextlib
import json
import re
import shutil
import sqlite3
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ..config import EMOTIONS, PERSONAL_DATA, UserError, note, relative
from ..faces.features import ALL_POINTS, BLENDSHAPES
from .classes import check_classes, class_name, name_problem

DATABASE = "recordings.sqlite"
TABLES = (
    "samples (session TEXT, label TEXT, time TEXT, landmarks BLOB, blendshapes BLOB, embedding BLOB,"
    " crop_network TEXT)",
    "facts (name TEXT PRIMARY KEY, value TEXT)",  # classes, a line each; agreed, when the person did
)
"""Times are ISO texts in UTC; arrays are little-endian float32."""
OLD_SESSIONS, OLD_CLASSES, OLD_CONSENT = "*.jsonl", "classes.json", "consent.json"
"""What earlier versions kept in a subject's folder; it is taken over when the folder is next opened."""
PATIENCE_S = 2.0
"""How long to wait for another run: one that lists what is recorded takes a moment."""


@dataclass(frozen=True)
class Sample:
    """One recorded face: landmarks (478, 3) and blendshapes (52,) float32, its label, when (UTC)."""

    landmarks: np.ndarray
    blendshapes: np.ndarray
    label: str
    session: str
    time: datetime
    embedding: np.ndarray | None = None
    """(n,) float32: the last hidden layer of the crop network"""
    crop_network: str = ""
    """sha256 of the crop network that the embedding is of"""


class DamagedError(UserError):
    """SQLite can't read the recordings."""


def check_name(name: str) -> str:
    """Return `name` if it can be a folder on every system; raises UserError otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise UserError(f"{name!r} can't be used as a name; use letters, digits, - and _ (at most 64)")
    return name


def check_new_subject(subject: str, folder: Path, models: Collection[str]) -> None:
    """Raise UserError if a person who is not recorded yet can't be called so; models: names of models."""
    known = {path.name for path in folder.glob("*/")}
    if subject in known:
        return
    if twins := [name for name in known if name.lower() == subject.lower()]:
        problem = f"{twins[0]} is recorded, and not every system tells capitals from small letters"
    elif re.fullmatch(r"con|prn|aux|nul|(com|lpt)\d", subject.lower()):
        problem = "it is a device's on Windows"
    elif subject in models:
        problem = f"--model {subject} means another model"
    else:
        return
    raise UserError(f"{subject} can't be a new person's name: {problem}; choose another --subject")


def quoted(text: str) -> str:
    """Return an argument as one types it on a command line, on any system."""
    return f'"{text}"' if " " in text else text


def record_command(subject: str, folder: Path = PERSONAL_DATA, *more: str) -> str:
    """Return the command that records a subject in a folder of recordings; more: further arguments."""
    place = () if folder == PERSONAL_DATA else ("--data", str(folder))
    return f"python scr/record_dataset.py --subject {' '.join(map(quoted, (subject, *place, *more)))}"


def private_folder(path: Path) -> Path:
    """Return a folder, made if need be, which its owner alone can open, with all that is in it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (path, *path.rglob("*")):
            each.chmod(0o700 if each.is_dir() else 0o600)
    except OSError as error:
        raise UserError(f"can't write {relative(path)}: {error.strerror}; check its rights") from error
    return path


def list_subjects(folder: Path = PERSONAL_DATA) -> list[str]:
    """Return the names of everyone who is recorded."""
    return sorted(path.name for path in folder.glob("*/") if _is_recorded(path))


def _is_recorded(folder: Path) -> bool:
    path = folder / DATABASE
    return any(folder.glob(OLD_SESSIONS)) or (path.is_file() and path.stat().st_size > 0)


@contextlib.contextmanager
def open_recordings(
    subject: str, folder: Path = PERSONAL_DATA, to_read: bool = False
) -> Iterator["Recordings"]:
    """Yield the recordings of a subject, which no other run changes meanwhile.

    to_read: others may read them too. Else the folder is made if need be, and in the end, where nothing is
    recorded, it goes. Raises UserError if another run is at them, if there are none to read, and if the disk
    refuses.
    """
    path = folder / check_name(subject) / DATABASE
    if not to_read:
        private_folder(path.parent)
    elif not _is_recorded(path.parent):
        known = ", ".join(list_subjects(folder)) or "nobody yet"
        raise UserError(
            f"no recordings of {subject} in {relative(folder)} (recorded: {known}); "
            f"run: {record_command(subject, folder)}"
        )
    elif any(path.parent.glob(OLD_SESSIONS)):
        with open_recordings(subject, folder):
            pass  # takes them over
    nothing_left = False
    try:
        with _connect(path, to_read) as database:
            recordings = Recordings(subject, database)
            if not to_read:
                _take_over(recordings, path.parent)
            try:
                yield recordings
            finally:
                nothing_left = not to_read and not recordings.sessions
    finally:
        if nothing_left:
            with contextlib.suppress(OSError):  # something else is in the folder
                path.unlink()
                path.parent.rmdir()


@contextlib.contextmanager
def _connect(path: Path, to_read: bool) -> Iterator[sqlite3.Connection]:
    """Yield a database that others can't use, or, opened to read, only read; SQLite's errors become ours."""
    where = relative(path)
    try:
        if not to_read:
            path.touch(mode=0o600)
        with contextlib.closing(sqlite3.connect(path, PATIENCE_S, isolation_level=None)) as database:
            if to_read:
                database.execute("BEGIN")
                database.execute("SELECT count(*) FROM samples")  # takes the lock that readers share
            else:
                database.execute("PRAGMA locking_mode = EXCLUSIVE")
                database.execute("PRAGMA synchronous = EXTRA")  # a power cut takes nothing back
                database.execute("PRAGMA secure_delete = ON")
                database.execute("BEGIN EXCLUSIVE")
                for table in TABLES:
                    database.execute(f"CREATE TABLE IF NOT EXISTS {table}")
                database.execute("COMMIT")
            yield database
    except (sqlite3.Error, UnicodeDecodeError) as error:  # a damaged name can't even be told
        kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if kind == sqlite3.SQLITE_BUSY:
            raise UserError(f"another run uses or changes {where}; wait for its end") from error
        if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            forget = f"python scr/record_dataset.py --forget {path.parent.name}"
            raise DamagedError(f"{where} is damaged ({error}); restore a copy, or run: {forget}") from error
        advice = "samples so far are safe: free space or check its rights, and run the command again"
        raise UserError(f"can't write {where}: {error}; {advice}") from error


class Recordings:
    """The samples, classes and consent of one person, in an open database."""

    def __init__(self, subject: str, database: sqlite3.Connection):
        self.subject, self.database = subject, database

    @property
    def sessions(self) -> list[str]:
        """The names of the sessions."""
        return [name for (name,) in self.database.execute("SELECT DISTINCT session FROM samples ORDER BY 1")]

    def next_session(self) -> str:
        """Return the first number that is not yet a session."""
        return next(name for name in map(str, range(1, 10**6)) if name not in self.sessions)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes chosen for this person, in order; None if none were, which means `EMOTIONS`."""
        kept = self._fact("classes")
        return check_classes(kept.split("\n"), "the classes kept with the recordings") if kept else None

    def keep_classes(self, classes: Sequence[str]) -> None:
        """Keep the classes of this person's recordings; the default needs no keeping."""
        if tuple(classes) != (self.classes or EMOTIONS):
            self._keep("classes", "\n".join(classes))

    @property
    def has_consent(self) -> bool:
        """Whether the person has agreed to be recorded."""
        return bool(self._fact("agreed"))

    def store_consent(self, when: datetime | None = None) -> None:
        """Note that the person agreed, and when (now)."""
        self._keep("agreed", _as_text(when or datetime.now(UTC)))

    def _fact(self, name: str) -> str:
        query = "SELECT CAST(value AS TEXT) FROM facts WHERE name = ?"
        return next((value or "" for (value,) in self.database.execute(query, (name,))), "")

    def _keep(self, name: str, value: str) -> None:
        self.database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def count(self, session: str | None = None) -> Counter[str]:
        """Return the number of samples of each label, of one session or of all."""
        query = "SELECT label, count(*) FROM samples WHERE session = ?1 OR ?1 IS NULL GROUP BY label"
        return Counter(dict(self.database.execute(query, (session,))))

    def holds(self, landmarks: np.ndarray) -> bool:
        """Tell whether these very landmarks are recorded already."""
        query = "SELECT 1 FROM samples WHERE landmarks = ? LIMIT 1"
        return self.database.execute(query, (_as_blob(landmarks),)).fetchone() is not None

    def append(
        self,
        session: str,
        landmarks: np.ndarray,
        blendshapes: np.ndarray,
        label: str,
        embedding: np.ndarray | None = None,
        crop_network: str = "",
        time: datetime | None = None,
    ) -> None:
        """Store a sample (of now); when this returns it is on disk, unless a transaction is open."""
        arrays = [_as_blob(values) for values in (landmarks, blendshapes, embedding)]
        row = session, label, _as_text(time or datetime.now(UTC)), *arrays, crop_network
        self.database.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def samples(self) -> list[Sample]:
        """Return all samples in order of time; damaged ones are left out, and told.

        Raises UserError if none is whole.
        """
        samples, sizes, damaged = [], {}, 0
        for row in self.database.execute("SELECT * FROM samples ORDER BY time, rowid"):
            try:
                sample = _read_sample(row)
                size = np.size(sample.embedding)
                if size != sizes.setdefault(sample.crop_network, size):
                    raise ValueError("an embedding of another length")
                samples.append(sample)
            except (ValueError, TypeError):
                damaged += 1
        if damaged:
            note(f"{damaged} damaged samples of {self.subject} are left out; {len(samples)} are whole")
        if not samples:
            raise UserError(f"{self.subject} has no recorded sample that is whole; record again")
        return samples

    def delete_session(self, session: str) -> None:
        """Delete a session; raises UserError if there is none of that name."""
        if session not in self.sessions:
            raise UserError(f"{self.subject} has no session {session}; see --list")
        self.database.execute("DELETE FROM samples WHERE session = ?", (session,))


def _as_text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds")  # so that texts sort as times do


def _as_blob(values: np.ndarray | None) -> bytes | None:
    return None if values is None else np.asarray(values, "<f4").tobytes()


def _read_sample(row: tuple) -> Sample:
    """Return the sample in a row of the table; raises ValueError or TypeError if it is none."""
    session, label, time, landmarks, blendshapes, embedding, crop_network = row
    points = np.frombuffer(landmarks, "<f4").reshape(ALL_POINTS, 3)
    shapes = np.frombuffer(blendshapes, "<f4").reshape(BLENDSHAPES)
    hidden = None if embedding is None else np.frombuffer(embedding, "<f4")
    if not all(np.isfinite(values).all() for values in (points, shapes, hidden) if values is not None):
        raise ValueError("no numbers")
    if label != class_name(label) or name_problem(label):
        raise ValueError("no label")
    return Sample(points, shapes, label, session, datetime.fromisoformat(time), hidden, crop_network)


def delete_folder(path: Path) -> None:
    """Delete a subject's folder, samples overwritten; raises UserError while another run is at them."""
    if (path / DATABASE).is_file():
        with contextlib.suppress(DamagedError), _connect(path / DATABASE, to_read=False) as database:
            database.execute("PRAGMA journal_mode = OFF")  # no copy of a face, no space on a full disk
            database.execute("DELETE FROM samples")
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise UserError(f"can't delete {relative(path)}: {error.strerror}; check its rights") from error


def _take_over(recordings: Recordings, folder: Path) -> None:
    """Move what earlier versions kept in a folder into its database; a file goes after that is on disk."""
    sessions = sorted(folder.glob(OLD_SESSIONS))
    others = [path for path in (folder / OLD_CLASSES, folder / OLD_CONSENT) if path.is_file()]
    if not sessions + others:
        return
    # Of a run that was killed before it deleted the files.
    known = set(recordings.database.execute("SELECT session, time, landmarks FROM samples"))
    try:
        samples = [sample for path in sessions for sample in _read_old_session(path)]
        recordings.database.execute("BEGIN")
        with recordings.database:
            for sample in filter(None, samples):
                if (sample.session, _as_text(sample.time), _as_blob(sample.landmarks)) not in known:
                    recordings.append(**vars(sample))
            for path in others:
                _take_over_facts(recordings, path)
        for path in sessions + others:
            path.unlink()
    except OSError as error:
        raise UserError(f"can't take over {relative(folder)}: {error.strerror}; check its rights") from error
    damaged = sum(sample is None for sample in samples)
    lost = f"; {damaged} damaged samples could not be read" if damaged else ""
    note(f"recordings of an earlier version are taken over into {relative(folder / DATABASE)}{lost}")


def _take_over_facts(recordings: Recordings, path: Path) -> None:
    """Take over the classes or the consent in a file."""
    try:
        content = json.loads(path.read_bytes())
        if path.name == OLD_CLASSES:
            recordings.keep_classes(check_classes(content["classes"], relative(path)))
        else:
            recordings.store_consent(datetime.fromisoformat(content["agreed"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UserError) as error:
        note(f"{relative(path)} is damaged ({error}) and left out; name the classes, or agree, once more")


def _read_old_session(path: Path) -> Iterator[Sample | None]:
    """Yield the samples in a file, None for a damaged one.

    A line is the CRC-32 of the rest, a space, and a JSON object with arrays in base64.
    """
    for line in filter(None, path.read_bytes().split(b"\n")):
        checksum, _, body = line.partition(b" ")
        try:
            if int(checksum, 16) != zlib.crc32(body):
                raise ValueError("checksum")
            row = json.loads(body)
            arrays = (
                base64.b64decode(row[name], validate=True) if name in row else None
                for name in ("landmarks", "blendshapes", "embedding")
            )
            names = path.stem, row["label"], row["time"]
            yield _read_sample((*names, *arrays, row.get("crop_network", "")))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            yield None

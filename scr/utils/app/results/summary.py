"""What a run saw: a few lines at its end, and `--summary`, a table with a row for each file and person."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...video.frames import Frame, Source
from ..pipeline import FaceResult, PictureResult
from ..smoothing import UNCERTAIN
from .table import PLAIN, Table, TableFormat

LINES = 10
"""Files and faces that get a line of their own."""
LONGEST_GAP_MS = 1000
"""A face counts for no longer than this after it was seen: a camera may have been away."""


@dataclass
class _Seen:
    """What a face showed: each emotion's time, each class's probability times ms, changes of the emotion."""

    times_ms: Counter[str] = field(default_factory=Counter)
    weighted: Counter[str] = field(default_factory=Counter)
    changes: int = 0
    last: FaceResult | None = None

    def add(self, face: FaceResult, lasted_ms: int) -> None:
        self.times_ms[face.emotion] += lasted_ms
        self.weighted.update({name: lasted_ms * value for name, value in face.probabilities.items()})
        self.changes += self.last is not None and self.last.emotion != face.emotion
        self.last = face


class SummaryTable(Table):
    """A table with a row for each file and person.

    It has of each emotion, `uncertain` included, the share of the time that the person was seen, and of each
    class the mean probability over that time. Seconds and changes are empty for pictures.
    """

    def __init__(
        self, path: Path, classes: Sequence[str], names: Sequence[str] = (), style: TableFormat = PLAIN
    ):
        self._emotions = (*classes, UNCERTAIN)
        shares, means = ([f"{what}_{name}" for name in self._emotions] for what in ("share", "mean"))
        columns = ("source", "face", "seconds", *shares, *means[:-1], "changes_per_minute")
        super().__init__(path, columns, names, style, decimals=3)

    def write(self, source: str, faces: dict[int, _Seen], still: bool = False) -> None:
        """Add the rows of a file and the faces on it, by number; one row without a face if there is none."""
        if not faces:
            self.write_row(source)
        for face, seen in faces.items():
            total_ms = seen.times_ms.total()
            times = seen.times_ms if total_ms else {seen.last.emotion: 1}
            shares = [times.get(name, 0) / (total_ms or 1) for name in self._emotions]
            means = seen.weighted if total_ms else seen.last.probabilities
            means = [means[name] / (total_ms or 1) for name in self._emotions[:-1]]
            seconds = None if still else total_ms / 1000
            changes = seen.changes * 60 / seconds if seconds else None
            self.write_row(source, face, seconds, *shares, *means, changes)


class Summary:
    """Counts pictures, frames and faces, and says what was seen.

    watched: the user sets the pace; table: takes a row for each file and person, those of videos by `end`.
    """

    def __init__(self, source: Source, watched: bool = False, table: SummaryTable | None = None):
        self.source, self.watched, self._table = source, watched, table
        self.pictures = self.frames = self.unreadable = self.faces = self.with_face = 0
        """pictures and frames read, files that could not be, faces, pictures and frames with a face"""
        self._lines: list[str] = []
        """of pictures, the first few"""
        self._counts: Counter[str] = Counter()
        """what is on the pictures"""
        self._videos: dict[str, dict[int, _Seen]] = {}
        """by video and face: what it showed"""
        self._before: tuple[Frame | None, list[FaceResult], int] = (None, [], 0)
        """the frame before, its faces, and how long it lasted"""

    def add_picture(self, result: PictureResult) -> None:
        """Count a picture, or a file that can't be read."""
        self.pictures += not result.problem
        self.unreadable += bool(result.problem)
        self._count_faces(result.faces)
        nothing = "not readable" if result.problem else "no face"
        self._counts.update([face.emotion for face in result.faces] or [nothing])
        if len(self._lines) < LINES:
            self._lines.append(f"{self._name(result.name)}: {_list_faces(result.faces) or nothing}")
        if self._table:
            faces = {face.face: _Seen(last=face) for face in result.faces}
            self._table.write(result.name, faces, still=True)

    def add_frame(self, frame: Frame, faces: list[FaceResult]) -> None:
        """Count a video's frame, and what each face showed since the frame before."""
        self.frames += 1
        self._count_faces(faces)
        before, shown, lasted_ms = self._before
        if before and frame.index:
            lasted_ms = min(frame.timestamp_ms - before.timestamp_ms, LONGEST_GAP_MS)
        self._add_time(before, shown, lasted_ms)
        self._before = frame, faces, lasted_ms

    def _count_faces(self, faces: list[FaceResult]) -> None:
        self.faces += len(faces)
        self.with_face += bool(faces)

    def _add_time(self, frame: Frame | None, faces: list[FaceResult], lasted_ms: int) -> None:
        seen = self._videos.setdefault(frame.source, {}) if frame else {}
        for face in faces:
            seen.setdefault(face.face, _Seen()).add(face, lasted_ms)

    def end(self) -> None:
        """Count the last frame, and write the videos' rows."""
        self._add_time(*self._before)
        self._before = (None, [], 0)
        for source, faces in self._videos.items() if self._table else ():
            self._table.write(source, faces)

    @property
    def read_nothing(self) -> bool:
        """Whether no file of all that were tried can be read."""
        return self.unreadable > 0 == self.pictures + self.frames

    def _name(self, source: str) -> str:
        if self.source.kind == "folder":
            return Path(source).relative_to(self.source.name).as_posix()
        if self.source.live:
            return f"{self.source.kind} {source}"
        return source if "://" in source else Path(source).name

    def lines(self, seconds: float) -> list[str]:
        """Return what a run of some seconds saw, after its `end`: a line on it all, then on each face."""
        if not self.pictures + self.frames + self.unreadable:
            return []
        return [self._first_line(seconds), *self._picture_lines(), *self._video_lines()]

    def _first_line(self, seconds: float) -> str:
        count, tried = self.pictures + self.frames, self.pictures + self.unreadable
        expected = sum(file.is_picture for file in self.source.files) if self.source.kind == "folder" else 0
        stopped = f"{tried} of {_number(expected, 'picture')} (stopped)" if tried < expected else ""
        what = [stopped or self.pictures and _number(self.pictures, "picture")]
        what.append(self.frames and _number(self.frames, "frame"))
        line = f"{' and '.join(filter(None, what)) or 'nothing read'} in {seconds:.1f} s"
        rate = count / max(seconds, 1e-6)
        if count > 1 and not self.watched:
            line += f" ({rate:.{0 if rate >= 10 else 1}f} a second)"
        where = f" on {self.with_face} of them" if count > 1 else ""
        return f"{line}, {_number(self.faces, 'face')}{where}"

    def _picture_lines(self) -> list[str]:
        tried = self.pictures + self.unreadable
        more = [f"... and {_number(tried - LINES, 'more picture')}"] if tried > LINES else []
        counts = [f"{count} {what}" for what, count in self._counts.most_common()]
        together = [f"on the pictures: {', '.join(counts)}"] if tried > 1 else []
        return self._lines + more + together

    def _video_lines(self) -> list[str]:
        """Return a line for each face of each video, the longest seen first, with the shares of its time."""
        seen = [(source, *one) for source, faces in self._videos.items() for one in faces.items()]
        ranked = sorted(seen, key=lambda one: -one[2].times_ms.total())
        lines = []
        for source, face, one in ranked[:LINES]:
            several = len(self._videos[source]) > 1
            which = f"{self._name(source)}, face {face}" if several else self._name(source)
            lines.append(f"{which}: {self._list_shares(one.times_ms)}")
        more = len(ranked) - LINES
        return lines + ([f"... and {_number(more, 'more face')}"] if more > 0 else [])

    def _list_shares(self, times_ms: Counter[str]) -> str:
        total_ms = times_ms.total()
        if not total_ms:
            return f"{next(iter(times_ms))} on one frame"
        shares = [(name, time / total_ms) for name, time in times_ms.most_common()]
        seen = [f"{name} {share:.0%}" for name, share in shares if share >= 0.005]
        seen[0] += " of the time"
        # A clip that goes round was watched for longer than it is.
        return ", ".join(seen) + ("" if self.source.loops else f" ({total_ms / 1000:.1f} s)")


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _list_faces(faces: list[FaceResult]) -> str:
    """Return what a picture's faces show, and of several their numbers: those in picture and table."""
    seen = [f"{face.emotion} ({face.confidence:.0%})" for face in faces[:LINES]]
    if len(faces) > 1:
        seen = [f"face {face.face} {what}" for face, what in zip(faces, seen)]
    return ", ".join(seen + ([f"{len(faces) - LINES} more"] if len(faces) > LINES else []))

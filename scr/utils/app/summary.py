"""What a run saw, in a few lines at its end: a picture's emotion, the shares of time in a video, counts."""

from collections import Counter
from pathlib import Path

from ..config import note, relative

LINES = 10
"""Files and faces that get a line of their own."""
LONGEST_GAP_MS = 1000
"""A face counts for no longer than this after it was seen: a camera may have been away."""


class Summary:
    """Counts frames and faces, and prints what was seen, how fast, and where it was written.

    `watched`: in a window, where the user sets the pace.
    """

    def __init__(self, source, watched: bool = False):
        self.source, self.watched = source, watched
        self.frames = self.stills = self.unreadable = self.faces = self.frames_with_face = 0
        self.lines: list[str] = []
        """of still pictures, the first few"""
        self.counts: Counter[str] = Counter()
        """still pictures' faces by emotion"""
        self.faceless = self.unreadable_stills = 0
        self.times_ms: dict[tuple[str, int], Counter[str]] = {}
        """by video and face: how long it showed each emotion"""
        self._before = ("", 0, 0, ())

    def count(self, frame, readings: list) -> None:
        """Count a frame and its readings."""
        self.frames += 1
        self.unreadable += bool(frame.problem)
        self.faces += len(readings)
        self.frames_with_face += bool(readings)
        if frame.still:
            self._count_still(frame, readings)
        elif not frame.problem:
            self._count_time(frame, readings)

    @property
    def read_nothing(self) -> bool:
        """Whether no file of all that were tried can be read."""
        return 0 < self.frames == self.unreadable

    def _count_still(self, frame, readings: list) -> None:
        self.stills += 1
        self.unreadable_stills += bool(frame.problem)
        self.faceless += not (readings or frame.problem)
        self.counts.update(reading.emotion for reading in readings)
        if len(self.lines) < LINES:
            what = _list_faces(readings) or ("not readable" if frame.problem else "no face")
            self.lines.append(f"{self._name(frame.source)}: {what}")

    def _count_time(self, frame, readings: list) -> None:
        """Count what each face showed since the frame before; a video's last frame lasts as long as that."""
        source, before_ms, step_ms, shown = self._before
        if source == frame.source:
            step_ms = min(frame.timestamp_ms - before_ms, LONGEST_GAP_MS)
        self._add_time(source, shown, step_ms)
        now = [(reading.face, reading.emotion) for reading in readings]
        self._before = (frame.source, frame.timestamp_ms, step_ms, now)

    def _add_time(self, source: str, shown, step_ms: int) -> None:
        for face, emotion in shown:
            self.times_ms.setdefault((source, face), Counter())[emotion] += step_ms

    def _name(self, source: str) -> str:
        if self.source.kind == "folder":
            return Path(source).relative_to(self.source.name).as_posix()
        if self.source.live:
            return f"{self.source.kind} {source}"
        return source if "://" in source else Path(source).name

    def print(self, seconds: float, failure: str, paths: list) -> None:
        """Print the summary of a run of some seconds; `failure` says why its source ended, if not well."""
        if self.frames:
            print(self._first_line(seconds))
        if failure:
            note(failure)
        for path in paths:
            if path.exists():
                print(f"written: {relative(path)}")
        for line in [*self._still_lines(), *self._video_lines()]:
            print(line)

    def _first_line(self, seconds: float) -> str:
        """Return how many pictures and frames were read, how fast, and how many faces are on them."""
        all_stills = len(self.source.pictures) if self.source.kind == "folder" else self.stills
        what = [_number(self.stills, "picture")] if self.stills else []
        if self.stills < all_stills:
            what = [f"{self.stills} of {_number(all_stills, 'picture')} (stopped)"]
        if moments := self.frames - self.stills - (self.unreadable - self.unreadable_stills):
            what.append(_number(moments, "frame"))
        line = f"{' and '.join(what) or 'nothing read'} in {seconds:.1f} s"
        if self.frames == 1:
            return f"{line}, {_number(self.faces, 'face')}"
        if not self.watched:
            rate = self.frames / max(seconds, 1e-6)
            line += f" ({rate:.{0 if rate >= 10 else 1}f} a second)"
        return f"{line}, {_number(self.faces, 'face')} on {self.frames_with_face} of them"

    def _still_lines(self) -> list[str]:
        more = self.stills - len(self.lines)
        lines = self.lines + ([f"... and {_number(more, 'more picture')}"] if more else [])
        if self.stills > 1:
            counts = [f"{count} {emotion}" for emotion, count in self.counts.most_common()]
            line = f"faces on the pictures: {', '.join(counts) or 'none'}"
            if self.faceless:
                line += f"; {_number(self.faceless, 'picture')} without a face"
            if self.unreadable_stills:
                line += f"; {self.unreadable_stills} not readable"
            lines.append(line)
        return lines

    def _video_lines(self) -> list[str]:
        """Return a line for each face of each video, the longest seen first, with the shares of its time."""
        source, _, step_ms, shown = self._before
        self._add_time(source, shown, step_ms)
        self._before = ("", 0, 0, ())
        ranked = sorted(self.times_ms.items(), key=lambda item: -item[1].total())
        faces = Counter(source for source, _ in self.times_ms)
        lines = []
        for (source, face), times in ranked[:LINES]:
            total = max(times.total(), 1)
            shares = [(emotion, f"{time / total:.0%}") for emotion, time in times.most_common()]
            (emotion, share), *others = shares
            seen = [f"{emotion} {share} of the time", *(" ".join(one) for one in others if one[1] != "0%")]
            which = f", face {face}" if faces[source] > 1 else ""
            # A clip that goes round was watched for longer than it is.
            duration = "" if self.source.loops else f" ({total / 1000:.1f} s)"
            lines.append(f"{self._name(source)}{which}: {', '.join(seen)}{duration}")
        if more := len(ranked) - len(lines):
            lines.append(f"... and {_number(more, 'more face')}")
        return lines


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _list_faces(readings: list) -> str:
    """Return what a picture's faces show, and of several their numbers: those in picture and table."""
    seen = [f"{reading.emotion} {reading.confidence:.0%}" for reading in readings[:LINES]]
    if len(readings) > 1:
        seen = [f"{reading.face} {what}" for reading, what in zip(readings, seen)]
        seen[0] = f"face {seen[0]}"
    if seen:
        seen[0] += " sure"
    return ", ".join(seen + ([f"{len(readings) - LINES} more"] if len(readings) > LINES else []))

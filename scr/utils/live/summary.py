"""What a run saw, in a few lines at its end: a picture's emotion, the shares of time in a video, counts."""

from collections import Counter
from pathlib import Path

from utils.config import note, relative

LINES = 10
"""Files and faces that get a line of their own."""
LONGEST_GAP_MS = 1000
"""A face counts for no longer than this after it was seen: a camera may have been away."""


class Summary:
    """Counts frames and faces, and prints what was seen, how fast, and where it was written."""

    def __init__(self, source):
        self.source = source
        self.frames = self.stills = self.faces = self.frames_with_face = 0
        self.lines: list[str] = []
        """of still pictures, the first few"""
        self.counts: Counter[str] = Counter()
        """still pictures' faces by emotion, and pictures without one"""
        self.times_ms: dict[tuple[str, int], Counter[str]] = {}
        """by video and face: how long it showed each emotion"""
        self._before = ("", 0, 0, ())

    def count(self, frame, readings: list) -> None:
        """Count a frame and its readings."""
        self.frames += 1
        self.faces += len(readings)
        self.frames_with_face += bool(readings)
        if frame.still:
            self._count_still(frame, readings)
        elif not frame.problem:
            self._count_time(frame, readings)

    def _count_still(self, frame, readings: list) -> None:
        self.stills += 1
        emotions = [reading.emotion for reading in readings]
        self.counts.update(emotions or ["not readable" if frame.problem else "no face"])
        if len(self.lines) < LINES:
            seen = [f"{reading.emotion} {reading.confidence:.0%}" for reading in readings[:LINES]]
            more = [f"{len(readings) - LINES} more"] if len(readings) > LINES else []
            what = ", ".join(seen + more) or ("not readable" if frame.problem else "no face")
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
        return source if self.source.live or "://" in source else Path(source).name

    def print(self, seconds: float, failure: str, paths: list) -> None:
        """Print the summary of a run of some seconds; `failure` says why its source ended, if not well."""
        kinds = (["pictures"] if self.stills else []) + (["frames"] if self.frames > self.stills else [])
        print(
            f"{self.frames} {' and '.join(kinds) or 'frames'} in {seconds:.1f} s "
            f"({self.frames / max(seconds, 1e-6):.0f} a second), "
            f"{self.faces} faces on {self.frames_with_face} of them"
        )
        if failure:
            note(failure)
        for path in paths:
            if path.exists():
                print(f"written: {relative(path)}")
        for line in [*self._still_lines(), *self._video_lines()]:
            print(line)

    def _still_lines(self) -> list[str]:
        more = self.stills - len(self.lines)
        lines = self.lines + ([f"... and {more} more pictures"] if more else [])
        if self.stills > 1:
            lines += [f"{count:>7}  {emotion}" for emotion, count in self.counts.most_common()]
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
            shares = ", ".join(f"{emotion} {time / total:.0%}" for emotion, time in times.most_common())
            which = f", face {face}" if faces[source] > 1 else ""
            lines.append(f"{self._name(source)}{which}: {shares} ({total / 1000:.1f} s)")
        if len(ranked) > LINES:
            lines.append(f"... and {len(ranked) - LINES} more faces")
        return lines

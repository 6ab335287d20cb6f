"""`--plot`: emotions over time in videos; of pictures a bar for each class."""

import importlib.util
import itertools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...config import UserError
from ...evaluation.plots import new_figure, save_figure
from ...video.frames import Frame
from ..pipeline import FaceResult, PictureResult
from ..smoothing import UNCERTAIN
from ..windows.canvas import INK, PAPER, UNSURE, class_colours

FACES = 6
"""Faces that get a plot of their own, those seen longest first."""
COLUMNS = 600
"""Moments that a plot shows: of a longer video every second or third and so on."""
GAP_MS = 1000
"""A face unseen for longer leaves a gap."""
NO_FACE = "no face (pictures)"


def check_plot(path: Path) -> None:
    """Raise UserError unless a plot can be written under this name."""
    if path.suffix.lower() != ".png":
        raise UserError(f"{path} is not a name for a plot; end it in .png")
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("--plot needs matplotlib; run: pip install matplotlib, or leave --plot out")


@dataclass
class _Track:
    """What is plotted of one face of a video."""

    name: str
    times_ms: list[int] = field(default_factory=list)
    probabilities: list[np.ndarray] = field(default_factory=list)
    emotions: list[str] = field(default_factory=list)


class Plot:
    """Collects face results and draws them at the end; `folder`: that the files are named in."""

    def __init__(self, path: Path, classes: tuple[str, ...], folder: str = ""):
        self.path, self.classes, self.folder = path, classes, folder
        self.colours = class_colours(classes)
        self.tracks: dict[tuple[str, int], _Track] = {}
        self.counts: Counter[str] = Counter()

    def add_frame(self, frame: Frame, faces: list[FaceResult]) -> None:
        """Take a video's frame and its faces."""
        for face in faces:
            name = f"{self._name(frame.source)}, face {face.face}"
            track = self.tracks.setdefault((frame.source, face.face), _Track(name))
            track.times_ms.append(frame.timestamp_ms)
            track.probabilities.append(np.array([*face.probabilities.values()], np.float16))
            track.emotions.append(face.emotion)

    def add_picture(self, result: PictureResult) -> None:
        """Take a picture and its faces."""
        self.counts.update([face.emotion for face in result.faces] or [NO_FACE])

    def _name(self, source: str) -> str:
        """Return a file's name, with the sub-folders of the folder that was read."""
        path = Path(source)
        return (path.relative_to(self.folder) if self.folder else Path(path.name)).as_posix()

    def write(self) -> None:
        """Draw what was collected and write the file; raises UserError if the disk refuses."""
        tracks = sorted(self.tracks.values(), key=lambda track: -len(track.times_ms))[:FACES]
        heights = [2.3] * len(tracks)
        if self.counts or not tracks:
            heights = [0.9 + 0.32 * (len(self.classes) + 1), *heights]
        figure = new_figure(10, sum(heights) + 0.3, facecolor=_hex(PAPER))
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # inches
        parts = iter(np.atleast_1d(figure.subfigures(len(heights), 1, height_ratios=heights)))
        if self.counts or not tracks:
            self._draw_counts(next(parts))
        for track in tracks:
            self._draw_track(next(parts), track)
        if (more := len(self.tracks) - len(tracks)) > 0:
            text = f"{more} more faces, seen for less time, are left out"
            figure.supxlabel(text, color=_hex(UNSURE), fontsize=9)
        save_figure(figure, self.path)

    def _colour(self, emotion: str) -> str:
        return _hex(self.colours.get(emotion, UNSURE))

    def _draw_counts(self, part) -> None:
        axis = _style(part.subplots())
        names = [*self.classes, *(name for name in self.counts if name not in self.classes)]
        counts = [self.counts[name] for name in names]
        bars = axis.barh(names, counts, color=[self._colour(name) for name in names], height=0.65)
        axis.bar_label(bars, padding=4, color=_hex(INK), fontsize=9)
        axis.invert_yaxis()
        axis.margins(x=0.08)
        axis.set_xticks([])
        title = "faces of each emotion" + (", pictures without a face" if self.counts[NO_FACE] else "")
        axis.set_title(title, loc="left", color=_hex(INK), fontsize=10)

    def _draw_track(self, part, track: _Track) -> None:
        axis, strip = map(_style, part.subplots(2, 1, sharex=True, height_ratios=[5, 1]))
        times_s, probabilities, labels = _thin_out(track)
        step_s = _step(times_s)
        names = [*self.classes, *([UNCERTAIN] if UNCERTAIN in labels else [])]
        colours = {name: self._colour(name) for name in names}
        for span in _spans(times_s):
            edges = np.append(times_s[span], times_s[span][-1] + step_s)  # the last lasts as long as others
            rows = np.vstack([probabilities[span], probabilities[span][-1:]]).T
            axis.stackplot(edges, rows, colors=[colours[name] for name in self.classes], linewidth=0)
            for name in dict.fromkeys(labels[span]):
                here = np.append(labels[span] == name, False)
                style = {"facecolor": colours[name], "linewidth": 0}
                if name == UNCERTAIN:
                    style |= {"hatch": "////", "edgecolor": _hex(PAPER)}
                strip.fill_between(edges, 0, 1, where=here | np.roll(here, 1), step="post", **style)
        axis.set_ylim(0, 1)
        axis.set_xlim(times_s[0], times_s[-1] + step_s)
        axis.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
        axis.set_title(track.name, loc="left", color=_hex(INK), fontsize=10)
        strip.set_yticks([0.5], ["label shown"])
        strip.set_xlabel("seconds", color=_hex(INK), fontsize=9)
        handles = [axis.fill_between([], [], facecolor=colours[name], label=name) for name in names]
        place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.05), "frameon": False}
        axis.legend(handles=handles, labelcolor=_hex(INK), fontsize=9, **place)


def _thin_out(track: _Track) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times (n,) in s, probabilities (n, classes) and labels (n,) of n moments, COLUMNS at most."""
    every = slice(None, None, -(-len(track.times_ms) // COLUMNS))
    times_s = np.array(track.times_ms[every]) / 1000
    return times_s, np.array(track.probabilities[every], np.float32), np.array(track.emotions[every])


def _step(times_s: np.ndarray) -> float:
    return float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.1


def _spans(times_s: np.ndarray) -> list[slice]:
    """Return the stretches in which the face was there."""
    most = max(GAP_MS / 1000, 2 * _step(times_s))
    cuts = [0, *(np.flatnonzero(np.diff(times_s) > most) + 1).tolist(), len(times_s)]
    return [slice(begin, end) for begin, end in itertools.pairwise(cuts)]


def _hex(bgr: tuple[int, int, int]) -> str:
    return "#{2:02x}{1:02x}{0:02x}".format(*bgr)


def _style(axis):
    axis.set_facecolor(_hex(PAPER))
    axis.tick_params(colors=_hex(INK), labelsize=9, length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return axis

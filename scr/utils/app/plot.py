"""`--plot`: emotions over time in videos; of pictures a bar per class, the surest and the least sure.

Written as a PNG, or as one HTML file that needs no network.
"""

import heapq
import html
import importlib.util
import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import UserError
from ..evaluation.plots import figure_to_svg, new_figure, save_figure
from ..faces.images import import_cv2
from ..files import atomic_path
from .smoothing import UNCERTAIN
from .windows.canvas import INK, PAPER, UNSURE, class_colours

SUFFIXES = (".png", ".html")
FACES = 6
"""Faces that get a plot of their own, those seen longest first."""
COLUMNS = 600
"""Moments that a plot shows; more are averaged, label by majority."""
GAP_MS = 1000
"""A face unseen for longer leaves a gap."""
THUMBNAILS = 4
"""Pictures of each class on the sheet: so many of the surest, and of the least sure."""
THUMBNAIL_PX = 96
CAPTION = 22
"""Characters of a picture's path that fit above it; what is too long is cut in the middle."""
NO_FACE = "no face (pictures)"


def check_plot(path: Path) -> None:
    """Raise UserError unless a plot can be written under this name."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} is not a name for a plot; end it in {' or '.join(SUFFIXES)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("--plot needs matplotlib; run: pip install matplotlib, or leave --plot out")


@dataclass
class _Track:
    """What is plotted of one face of a video."""

    name: str
    times_ms: list[int]
    probabilities: list[np.ndarray]
    emotions: list[str]


class Plot:
    """Collects readings and draws them; `add` each frame, then `write`. `folder`: that files are named in."""

    def __init__(self, path: Path, classes: tuple[str, ...], folder: str = ""):
        check_plot(path)
        self.path, self.classes, self.folder = path, classes, folder
        self.tracks: dict[tuple[str, int], _Track] = {}
        self.counts: Counter[str] = Counter()
        self.sheet: dict[tuple[str, bool], list] = {}
        """by class and whether the surest: heaps of (rank, number, thumbnail, caption)"""
        self._number = itertools.count()

    def add(self, frame, readings: list) -> None:
        """Take a frame and its readings."""
        if frame.image is None:
            return
        if not frame.still:
            for reading in readings:
                self._add_moment(frame, reading)
            return
        self.counts.update([reading.emotion for reading in readings] or [NO_FACE])
        for reading in readings:
            self._add_thumbnail(frame, reading)

    def _add_moment(self, frame, reading) -> None:
        key = (frame.source, reading.face)
        if key not in self.tracks:
            self.tracks[key] = _Track(f"{self._name(frame.source)}, face {reading.face}", [], [], [])
        track = self.tracks[key]
        track.times_ms.append(frame.timestamp_ms)
        track.probabilities.append(reading.probabilities.astype(np.float16))
        track.emotions.append(reading.emotion)

    def _name(self, source: str) -> str:
        """Return a file's name, with the sub-folders of the folder that was read."""
        path = Path(source)
        return (path.relative_to(self.folder) if self.folder else Path(path.name)).as_posix()

    def _add_thumbnail(self, frame, reading) -> None:
        """Keep a face's picture while it is among the surest or the least sure of its class."""
        number = -next(self._number)  # of equals, the first one stays
        for surest in (True, False):
            heap = self.sheet.setdefault((reading.emotion, surest), [])
            rank = reading.confidence if surest else -reading.confidence
            if len(heap) == THUMBNAILS and rank <= heap[0][0]:
                continue
            name = self._name(frame.source)
            name = name if len(name) <= CAPTION else f"{name[:8]}...{name[11 - CAPTION :]}"
            caption = f"{name}\n{reading.confidence:.0%}"
            item = (rank, number, _cut_out(frame, reading.box), caption)
            (heapq.heappush if len(heap) < THUMBNAILS else heapq.heappushpop)(heap, item)

    def write(self) -> None:
        """Draw what was collected and write the file; raises UserError if the disk refuses."""
        figure = self._draw()
        if self.path.suffix.lower() == ".png":
            return save_figure(figure, self.path)
        with atomic_path(self.path) as partial:
            partial.write_text(_page(self.path.stem, figure_to_svg(figure)), encoding="utf-8")

    def _draw(self):
        tracks = sorted(self.tracks.values(), key=lambda track: -len(track.times_ms))[:FACES]
        classes = [name for name in self.classes if (name, True) in self.sheet]
        heights = [2.3] * len(tracks)
        if self.counts or not tracks:
            heights = [0.9 + 0.32 * (len(self.classes) + 1), *([1.6] * len(classes)), *heights]
        figure = new_figure(10, sum(heights) + 0.3, facecolor=_hex(PAPER))
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # inches
        parts = iter(np.atleast_1d(figure.subfigures(len(heights), 1, height_ratios=heights)))
        if self.counts or not tracks:
            self._draw_counts(next(parts))
            for name in classes:
                self._draw_sheet(next(parts), name)
        more = len(self.tracks) - len(tracks)
        for track in tracks:
            self._draw_track(next(parts), track)
        if more > 0:
            figure.supxlabel(
                f"{more} more faces, seen for less time, are left out", color=_hex(UNSURE), fontsize=9
            )
        return figure

    def _colour(self, emotion: str) -> str:
        return _hex(class_colours(self.classes).get(emotion, UNSURE))

    def _draw_counts(self, part) -> None:
        part.set_facecolor(_hex(PAPER))
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

    def _draw_sheet(self, part, name: str) -> None:
        part.set_facecolor(_hex(PAPER))
        axes = part.subplots(1, 2 * THUMBNAILS)
        surest = sorted(self.sheet[name, True], reverse=True)
        shown = {number for _, number, *_ in surest}
        unsure = [item for item in sorted(self.sheet[name, False], reverse=True) if item[1] not in shown]
        for axis in axes:
            axis.axis("off")
        for side, items in ((0, surest), (THUMBNAILS, unsure)):
            for axis, (_, _, picture, caption) in zip(axes[side:], items):
                axis.imshow(picture[:, :, ::-1])
                axis.set_title(caption, color=_hex(INK), fontsize=7)
        title = f"{name}: the surest" + (f"{'the least sure':>95}" if unsure else "")
        part.suptitle(title, x=0.01, ha="left", color=self._colour(name), fontsize=10)

    def _draw_track(self, part, track: _Track) -> None:
        part.set_facecolor(_hex(PAPER))
        axis, strip = part.subplots(2, 1, sharex=True, height_ratios=[5, 1])
        times_s, probabilities, labels = _resample(track)
        names = [*self.classes, *([UNCERTAIN] if UNCERTAIN in labels else [])]
        for span in _spans(times_s):
            # The last moment lasts as long as the others.
            edges = np.append(times_s[span], times_s[span][-1] + _step(times_s))
            axis.stackplot(
                edges,
                np.vstack([probabilities[span], probabilities[span][-1:]]).T,
                colors=[self._colour(name) for name in self.classes],
                linewidth=0,
            )
            for name in dict.fromkeys(labels[span]):
                here = np.append(labels[span] == name, False)
                hatch = {"hatch": "////", "edgecolor": _hex(PAPER)} if name == UNCERTAIN else {}
                strip.fill_between(
                    edges,
                    0,
                    1,
                    where=here | np.roll(here, 1),
                    step="post",
                    color=None,
                    facecolor=self._colour(name),
                    linewidth=0,
                    **hatch,
                )
        _style(axis).set_ylim(0, 1)
        axis.set_xlim(times_s[0], times_s[-1] + _step(times_s))
        axis.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
        axis.set_title(track.name, loc="left", color=_hex(INK), fontsize=10)
        _style(strip).set_yticks([0.5], ["label shown"])
        strip.set_xlabel("seconds", color=_hex(INK), fontsize=9)
        handles = [axis.fill_between([], [], facecolor=self._colour(name), label=name) for name in names]
        axis.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.05),
            frameon=False,
            labelcolor=_hex(INK),
            fontsize=9,
        )


def _resample(track: _Track) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times (n,) in s, mean probabilities (n, classes) and majority labels (n,), n <= COLUMNS."""
    times = np.array(track.times_ms) / 1000
    probabilities, labels = np.array(track.probabilities, np.float32), np.array(track.emotions)
    if len(times) > COLUMNS:
        bins = np.unique(
            ((times - times[0]) / (times[-1] - times[0]) * (COLUMNS - 1)).astype(int), return_inverse=True
        )[1]
        groups = np.split(np.arange(len(times)), np.flatnonzero(np.diff(bins)) + 1)
        times = np.array([times[group[0]] for group in groups])
        probabilities = np.array([probabilities[group].mean(axis=0) for group in groups])
        labels = np.array([Counter(labels[group].tolist()).most_common(1)[0][0] for group in groups])
    return times, probabilities, labels


def _step(times_s: np.ndarray) -> float:
    return float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.1


def _spans(times_s: np.ndarray) -> list[slice]:
    """Return the stretches in which the face was there."""
    most = max(GAP_MS / 1000, 2 * _step(times_s))
    cuts = [0, *(np.flatnonzero(np.diff(times_s) > most) + 1).tolist(), len(times_s)]
    return [slice(begin, end) for begin, end in itertools.pairwise(cuts)]


def _cut_out(frame, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return a square picture (px, px, 3) uint8 BGR of a face with a margin."""
    cv2 = import_cv2()
    height, width = frame.image.shape[:2]
    scale = width / frame.shape[1]  # boxes are in pixels of the full picture
    x, y, wide, high = (value * scale for value in box)
    half = 0.65 * max(wide, high, 2.0)
    left, right = max(0, int(x + wide / 2 - half)), min(width, int(x + wide / 2 + half) + 1)
    top, bottom = max(0, int(y + high / 2 - half)), min(height, int(y + high / 2 + half) + 1)
    part = frame.image[top:bottom, left:right]
    zoom = THUMBNAIL_PX / max(part.shape[:2])
    part = cv2.resize(
        part,
        (max(1, round(part.shape[1] * zoom)), max(1, round(part.shape[0] * zoom))),
        interpolation=cv2.INTER_AREA,
    )
    square = np.full((THUMBNAIL_PX, THUMBNAIL_PX, 3), PAPER, np.uint8)
    down, across = (THUMBNAIL_PX - part.shape[0]) // 2, (THUMBNAIL_PX - part.shape[1]) // 2
    square[down : down + part.shape[0], across : across + part.shape[1]] = part
    return square


def _hex(bgr: tuple[int, int, int]) -> str:
    return "#{2:02x}{1:02x}{0:02x}".format(*bgr)


def _style(axis):
    axis.set_facecolor(_hex(PAPER))
    axis.tick_params(colors=_hex(INK), labelsize=9, length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return axis


def _page(title: str, svg: str) -> str:
    """Return an HTML page that fetches nothing."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{html.escape(title)}</title>\n<style>body {{ margin: 0; background: {_hex(PAPER)}; }} "
        "svg { display: block; margin: auto; width: 100%; max-width: 1100px; height: auto; "
        "font-family: sans-serif; }</style></head>\n"
        f"<body>\n{svg}</body></html>\n"
    )

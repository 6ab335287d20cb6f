"""Frames -> recorded samples: what is taken from a source, and why a frame is not."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from ...config import ask, note
from ...data.recordings import Recordings
from ...faces.features import MESH_POINTS, face_box
from ...faces.images import sharpness
from ...faces.landmarker import Face
from ...video.frames import Frame, Source
from ..pipeline import FaceReader
from ..windows.window import QUIT_KEYS, Window
from .session_plan import COUNTDOWN_S, SessionPlan

SURE = 0.9
"""Probability from which the model counts as sure that a face shows another class than its label."""
CONSENT = (
    "Stored on this computer: 478 points of your face, some hundred numbers made of it, and the label. No "
    "picture, and none can be made from them. What for: to train a model of your own. Nothing is sent "
    "anywhere. Delete it all at any time: record_dataset.py --forget {subject}"
)
"""What one agrees to before the first recording."""
QUESTION = "this looks {seen}: keep it as {label}?"


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

    SAME = "nearly the same as the last"

    def __init__(self):
        self._last: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def problem(self, face: Face | None, frame_bgr: np.ndarray, label: str) -> str:
        """Return why a frame's face must not be recorded under a label, or ""."""
        if face is None:
            return "no face"
        height, width = frame_bgr.shape[:2]
        left, top, box_width, box_height = face_box(face.landmarks) * width
        margin = self.MAX_OUTSIDE * box_width
        if min(left, top, width - left - box_width, height - top - box_height) < -margin:
            return "face cut off"
        rows = slice(max(0, int(top)), int(top + box_height))
        columns = slice(max(0, int(left)), int(left + box_width))
        if sharpness(frame_bgr[rows, columns]) < self.MIN_SHARPNESS:
            return "blurred"
        if label in self._last:
            shape, blendshapes = self._last[label]
            moved = np.abs(shape - _shape(face.landmarks)).mean() >= self.MIN_CHANGE
            if not moved and np.abs(blendshapes - face.blendshapes).max() < self.MIN_EXPRESSION:
                return self.SAME
        return ""

    def accept(self, face: Face, label: str) -> None:
        """Remember the sample that was stored."""
        self._last[label] = _shape(face.landmarks), face.blendshapes


def _shape(landmarks: np.ndarray) -> np.ndarray:
    """Return the mesh (468, 2) relative to its middle, in face widths."""
    mesh = landmarks[:MESH_POINTS, :2]
    return (mesh - mesh.mean(axis=0)) / max(float(np.ptp(mesh[:, 0])), 1e-6)


class Recorder:
    """One recording, of as many sources as are given.

    Where the model is sure that a face shows another of its classes than its label, the user is asked, once
    for each such pair; nothing is left out in silence.
    """

    def __init__(self, recordings: Recordings, session: str, plan: SessionPlan, reader: FaceReader):
        self.recordings, self.session, self.plan, self.reader = recordings, session, plan, reader
        self.filter = SampleFilter()
        self.refused: dict[str, list[str]] = defaultdict(list)
        """the names of the pictures that were not taken, "" for a frame of a video, by reason"""
        self.problem = ""
        """why the newest frame would spoil the set, or \"\""""
        self.answers: dict[tuple[str, str], bool] = {}
        """whether to keep samples of a label that look like another class, by (label, class)"""
        self.kept_unasked: Counter[tuple[str, str]] = Counter()
        """samples that were kept since nobody could be asked, by (label, class)"""
        self.open_question: tuple[str, str] | None = None
        """(label, class) of the question in the window"""

    def find(self, frame: Frame) -> Face | None:
        """Return the largest face of a frame, or None; sets `problem`."""
        face = next(iter(self.reader.find(frame)), None)
        self.problem = self.filter.problem(face, frame.image, self.plan.label)
        return face

    def store(self, frame: Frame, face: Face | None, may_keep: Callable[[str, str], bool | None]) -> bool:
        """Write a sample or count why not; return whether it was written.

        may_keep: is asked with (label, class) about a face that looks otherwise than its label; its answer
        None puts the sample off, uncounted.
        """
        label = self.plan.label
        if not self.problem and self.recordings.holds(face.landmarks):
            self.problem = "already recorded"
            # Accepted all the same, so that a run that was cut short goes on as it would have.
            self.filter.accept(face, label)
        if not self.problem:
            prediction = self.reader.predict([face], frame.image)
            if seen := self._seen_instead(prediction.probabilities[0]):
                keep = self.answers.get((label, seen))
                keep = may_keep(label, seen) if keep is None else keep
                if keep is None:
                    return False
                self.problem = "" if keep else f"looks {seen}"
        if self.problem:
            self.refused[self.problem].append(frame.source if frame.still else "")
            return False
        embedding = None if prediction.embedding is None else prediction.embedding[0]
        crop_network = self.reader.classifier.crop_sha256
        self.recordings.append(self.session, face.landmarks, face.blendshapes, label, embedding, crop_network)
        self.filter.accept(face, label)
        self.plan.count()
        return True

    def _seen_instead(self, probabilities: np.ndarray) -> str:
        """Return the class that the model surely sees in place of the label at hand, or ""."""
        classes, best = self.reader.classifier.classes, int(probabilities.argmax())
        doubts = self.plan.label in classes and classes[best] != self.plan.label
        return classes[best] if doubts and probabilities[best] >= SURE else ""

    def run_labelled(self, source: Source) -> None:
        """Record all that a source shows under the label at hand; from a camera, as much as is wanted."""
        for frame in told_frames(source):
            if frame is None:
                continue
            self.store(frame, self.find(frame), partial(self._ask_on_terminal, frame))
            if source.live and self.plan.label not in self.plan.missing:
                break

    def _ask_on_terminal(self, frame: Frame, label: str, seen: str) -> bool:
        """Ask; where nobody can answer the sample is kept, and counted for the report."""
        question = QUESTION.format(label=label, seen=seen)
        answer = ask(f"{frame.source}: {question} [Y/n, for all like it]")
        if answer is None:
            self.kept_unasked[label, seen] += 1
            return True
        self.answers[label, seen] = not answer.startswith("n")
        return self.answers[label, seen]

    def run_live(self, open_source: Callable[[], Source], view) -> None:
        """Show a source in a window, obey the keys, record when told to; a clip plays again and again."""
        with Window(f"Recording: {self.recordings.subject}, session {self.session}") as window:
            while True:
                with open_source() as source:
                    goes_on = self._show(source, window, view)
                if not goes_on or source.kind != "video":
                    break
                self.plan.stop()

    def _show(self, source: Source, window: Window, view) -> bool:
        """Show a source to its end; return whether the user would go on."""
        begun_s = 0.0
        for frame in told_frames(source):
            now = time.monotonic()
            if frame is None:
                key = window.read_key()
            elif frame.still:
                if not self._show_still(frame, window, view):
                    return False
                continue
            else:
                if frame.index == 0:
                    begun_s = now - frame.timestamp_ms / 1000
                face = self.find(frame)
                if self.plan.recording(now) and self.store(frame, face, self.ask_in_window):
                    self.plan.move_on()
                window.show(self._draw(view, frame, face, now))
                ahead_s = 0.0 if source.live else begun_s + frame.timestamp_ms / 1000 - time.monotonic()
                key = window.read_key(max(0.001, ahead_s))
            if not self.press(key, time.monotonic(), view, source.live):
                return False
        return True

    def _show_still(self, frame: Frame, window: Window, view) -> bool:
        """Show a picture until it is recorded, or passed over by another key; return whether to go on."""
        face = self.find(frame)
        while True:
            window.show(self._draw(view, frame, face, time.monotonic()))
            key, now = window.read_key(3600), time.monotonic()
            if not self.press(key, now, view, live=False):
                return False
            if self.plan.recording(now):
                self.store(frame, face, self.ask_in_window)
                self.plan.stop()
                if not self.open_question:
                    return True
            elif key not in ("", "m", "y", "n") and not key.isdecimal():
                return True
            self.problem = self.filter.problem(face, frame.image, self.plan.label)

    def _draw(self, view, frame: Frame, face: Face | None, now: float) -> np.ndarray:
        if not self.recordings.has_consent:
            return view.draw_consent(frame.image)
        question = ""
        if self.open_question:
            question = QUESTION.format(label=self.open_question[0], seen=self.open_question[1])
        return view.draw(frame.image, face, self.plan, self.problem, now, question)

    def ask_in_window(self, label: str, seen: str) -> None:
        """Open a question; a key answers it."""
        self.open_question = (label, seen)
        self.plan.stop()

    def press(self, key: str, now: float, view, live: bool = True) -> bool:
        """Obey a key pressed at a time in seconds; return whether to go on.

        A clip needs no countdown: it can't pose.
        """
        countdown_s = COUNTDOWN_S if live else 0.0
        if key in QUIT_KEYS:
            return False
        if not self.recordings.has_consent:
            if key == "y":
                self.recordings.store_consent()
        elif self.open_question:
            if key in ("y", "n"):
                self.answers[self.open_question] = key == "y"
                self.open_question = None
                self.plan.start_or_stop(now, countdown_s)
        elif key.isdecimal() and 1 <= int(key) <= len(self.plan.classes):
            self.plan.choose(self.plan.classes[int(key) - 1])
        elif key == "space":
            self.plan.start_or_stop(now, countdown_s)
        elif key == "m":
            view.mirror = not view.mirror
        return True


def told_frames(source: Source) -> Iterator[Frame | None]:
    """Yield the frames of a source; tell the user its news, and at its end why it failed."""
    for frame in source:
        source.tell_news()
        yield frame
    source.tell_news()
    if source.failure:
        note(source.failure)

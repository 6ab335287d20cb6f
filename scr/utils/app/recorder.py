"""Frames -> recorded samples: what is taken from a source, and why a frame is not."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np

from ..config import note
from ..data.recordings import Recordings
from ..faces.crops import crop_faces
from ..faces.features import MESH_POINTS, face_box
from ..faces.images import sharpness
from ..faces.landmarker import FaceLandmarker
from ..model.classifier import EmotionClassifier
from .label_check import Doubts, question
from .session_plan import COUNTDOWN_S, SessionPlan
from .windows.window import QUIT_KEYS, Window


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


class Recorder:
    """One recording, from as many sources as are given; a context manager, which closes its landmarkers.

    doubts: who is asked for a second opinion, if anybody. classifier: the model whose crop network, if any,
    gives the embedding that is kept of a face.
    """

    def __init__(
        self,
        recordings: Recordings,
        session: str,
        plan: SessionPlan,
        doubts: Doubts | None = None,
        classifier: EmotionClassifier | None = None,
    ):
        self.recordings, self.session, self.plan, self.doubts = recordings, session, plan, doubts
        self.filter = SampleFilter()
        self._classifier = classifier if classifier and classifier.needs_crops else None
        self._image = None
        """the newest frame's"""
        self.refused: Counter[str] = Counter()
        """how many frames were not taken, by reason"""
        self.refused_pictures: dict[str, str] = {}
        """why a still picture was not taken, by its name"""
        self.agreed = True
        """whether the person in the window agreed to be recorded"""
        self.problem = ""
        """why the newest frame would spoil the set, or \"\""""
        self.asked: tuple[str, str] | None = None
        """label and emotion of the question that is open in the window"""
        self._landmarkers: dict[bool, FaceLandmarker] = {}
        """by whether they are for still pictures"""
        self._at = ""
        """the video at hand"""
        self._picture = ""
        """the still picture at hand"""

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_) -> None:
        for landmarker in self._landmarkers.values():
            landmarker.close()
        self._landmarkers.clear()

    def take(self, frame):
        """Return the main face of a frame, or None; set `problem`."""
        self._image = frame.image
        self._picture = frame.source if frame.still else ""
        faces = []
        if frame.image is not None:
            if not frame.still and frame.source != self._at:  # another video, whose time begins anew
                if False in self._landmarkers:
                    self._landmarkers.pop(False).close()
                self._at = frame.source
            if frame.still not in self._landmarkers:
                self._landmarkers[frame.still] = FaceLandmarker(video=not frame.still)
            landmarker = self._landmarkers[frame.still]
            faces = (
                landmarker.detect_picture(frame.image)
                if frame.still
                else landmarker.detect(frame.image, frame.timestamp_ms)
            )
        face = faces[0] if faces else None
        self.problem = self.filter.problem(face, frame.image, self.plan.label)
        return face

    def store(self, face, keep: Callable[[str, str], bool | None] = lambda label, seen: True) -> bool:
        """Write a sample or count why not; return whether it was written.

        keep: asked about a face that looks otherwise than its label; its answer None puts the sample off,
        uncounted.
        """
        label = self.plan.label
        if not self.problem and self.recordings.holds(face.landmarks):
            self.problem = "already recorded"
            # Accepted all the same, so that a run that was cut short goes on as it would have.
            self.filter.accept(face, label)
        if not self.problem and self.doubts and (seen := self.doubts.looks(face, label, self._image)):
            answer = self.doubts.answers.get((label, seen))
            answer = keep(label, seen) if answer is None else answer
            if answer is None:
                return False
            if not answer:
                self.problem = f"looks {seen}"
        if self.problem:
            self.refused[self.problem] += 1
            if self._picture:
                self.refused_pictures[self._picture] = self.problem
            return False
        self.recordings.append(self.session, face.landmarks, face.blendshapes, label, *self._embed(face))
        self.filter.accept(face, label)
        self.plan.count()
        return True

    def _embed(self, face) -> tuple:
        """Return the embedding of a face on the newest frame and its crop network's sha256, or nothing."""
        if self._classifier is None or self._image is None:
            return ()
        embedding = self._classifier.predict_crops(crop_faces(self._image, [face.landmarks])).embedding[0]
        return embedding, self._classifier.crop_sha256

    def run_labelled(self, source) -> None:
        """Record all that a source shows under the label at hand; from a camera, as much as is wanted."""
        for frame in source:
            if frame is None:
                continue
            self.store(self.take(frame), partial(self._ask, frame))
            if source.live and self.plan.label not in self.plan.missing:
                break

    def _ask(self, frame, label: str, seen: str) -> bool:
        """Ask on the terminal; where nobody can answer the sample is kept, and counted for the report."""
        if not sys.stdin.isatty():
            self.doubts.kept[label, seen] += 1
            return True
        where = frame.source if frame.still else f"{frame.source}, {frame.timestamp_ms / 1000:.1f} s"
        note(f"{where}: {question(label, seen)} [Y/n, for all like it]")
        self.doubts.answers[label, seen] = not input().strip().lower().startswith("n")
        return self.doubts.answers[label, seen]

    def run_live(self, open_source: Callable, view) -> None:
        """Show a source in a window, obey the keys, record when told to; a clip plays again and again."""
        with Window("Record your expressions") as window:
            while True:
                with open_source() as source:
                    goes_on = self._show(source, window, view)
                if source.failure:
                    note(source.failure)
                if not goes_on or source.kind != "video":
                    break
                self.plan.stop()
                self._at = ""

    def _show(self, source, window: Window, view) -> bool:
        """Show a source to its end; return whether the user would go on."""
        self.agreed = source.kind in ("picture", "folder") or self.recordings.has_consent
        begun = ("", 0.0)
        for frame in source:
            now = time.monotonic()
            if frame is None:
                if not self.press(window.read_key(), now, view, source.live):
                    return False
                continue
            if frame.image is None:
                continue
            if begun[0] != frame.source:
                begun = (frame.source, now - frame.timestamp_ms / 1000)
            face = self.take(frame)
            if self.agreed and self.plan.recording(now) and self.store(face, self._ask_in_window):
                self.plan.move_on()
            open_question = question(*self.asked) if self.asked else ""
            window.show(
                view.draw(frame.image, face, self.plan, self.problem, now, open_question)
                if self.agreed
                else view.draw_consent(frame.image)
            )
            ahead = 0 if source.live else begun[1] + frame.timestamp_ms / 1000 - time.monotonic()
            key = window.read_key(3600 if frame.still else max(0.001, ahead))
            if not self.agreed and key == "y":
                self.recordings.store_consent()
                self.agreed = True
            elif frame.still and key == "space":
                if not self._store_still(frame, face, window, view):
                    return False
            elif not self.press(key, time.monotonic(), view, source.live):
                return False
        return True

    def _store_still(self, frame, face, window: Window, view) -> bool:
        """Record a still picture, after a question about it if there is one; return whether to go on."""
        self.store(face, self._ask_in_window)
        while self.asked:
            window.show(view.draw(frame.image, face, self.plan, "", time.monotonic(), question(*self.asked)))
            key = window.read_key(3600)
            if key in QUIT_KEYS:
                return False
            if self._answer(key):
                self.store(face)
        return True

    def _ask_in_window(self, label: str, seen: str) -> None:
        self.asked = (label, seen)
        self.plan.stop()

    def _answer(self, key: str) -> bool:
        """Take the answer to the open question; return whether the key was one."""
        if key not in ("y", "n"):
            return False
        self.doubts.answers[self.asked] = key == "y"
        self.asked = None
        return True

    def press(self, key: str, now: float, view, live: bool = True) -> bool:
        """Obey a key pressed at a time in seconds; return whether to go on.

        A clip needs no countdown: it can't pose.
        """
        if key in QUIT_KEYS:
            return False
        countdown_s = COUNTDOWN_S if live else 0.0
        if self.asked:
            if self._answer(key):
                self.plan.start_or_stop(now, countdown_s)
        elif key.isdecimal() and 1 <= int(key) <= len(self.plan.classes):
            self.plan.choose(self.plan.classes[int(key) - 1])
        elif key == "space":
            self.plan.start_or_stop(now, countdown_s)
        elif key == "m":
            view.mirror = not view.mirror
        return True

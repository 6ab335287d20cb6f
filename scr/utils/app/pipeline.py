"""Frames -> readings, the live demo's way: landmarks, features, network; in videos also smoothing.

Stands on the modules of each step; `main.py` is its script.
"""

import numpy as np

from ..config import MODELS, PERSONAL_DATA, UserError, note, relative
from ..data import recordings
from ..faces.crops import crop_faces
from ..faces.images import import_cv2
from ..faces.landmarker import Face, FaceLandmarker
from ..model.classifier import EmotionClassifier, Prediction
from .neutral import NeutralTaker, find_movement
from .smoothing import FaceTracker, read_picture

LOOK_EVERY_MS = 130
"""How long an answer of the crop network holds for a person alone: four frames of thirty a second."""


class FaceReader:
    """Frames -> readings: landmarks, features, network, and in videos smoothing. A context manager.

    subject: whose neutral face is used, and kept when it is taken; kept only if `keeps`.
    """

    def __init__(
        self,
        model: str,
        still: bool,
        max_faces: int | None,
        smoothing_ms: float,
        subject: str | None = None,
        keeps: bool = True,
    ):
        self._model, self._keeps = model, keeps
        self.still, self.max_faces, self.subject = still, max_faces, subject
        self.classifier = EmotionClassifier(model)
        self._needs_crops = getattr(self.classifier, "needs_crops", False)
        self._new_tracker = lambda: FaceTracker(
            self.classifier.classes, self.classifier.threshold, smoothing_ms
        )
        self.tracker = self._new_tracker()
        self.offset: np.ndarray | None = None
        """neutral_offset of the face, once its neutral is known"""
        self._looked: Prediction | None = None
        self._looked_at: tuple[list[int | None], int] = ([], 0)
        """the crop network's newest answer, and whom it is about, and when"""
        self.taker = None
        """of a neutral face, while it is being taken"""
        self._landmarkers: dict[bool, FaceLandmarker] = {}
        """by whether they are for still pictures; a folder may need both"""
        if not still:  # pictures are mostly read by processes of their own
            self._landmarker(still)
        self.doubt = ""
        """what is wrong with the neutral face just taken, for the display"""
        self._found_on = self._read_from = ""
        """names of the videos at hand"""

    def _landmarker(self, still: bool) -> FaceLandmarker:
        if still not in self._landmarkers:
            most = self.max_faces if still else self.max_faces or 1
            self._landmarkers[still] = FaceLandmarker(video=not still, max_faces=most)
        return self._landmarkers[still]

    def find(self, frame) -> list[Face]:
        """Return the faces of a video's frame; none if a network fails on it.

        Frames must come in order. `find` may run in another thread than `read`, ahead of it.
        """
        if self._found_on not in ("", frame.source):  # another video, whose time begins anew
            self._landmarkers.pop(False).close()
        self._found_on = frame.source
        try:
            return self._landmarker(still=False).detect(frame.image, frame.timestamp_ms)
        except RuntimeError as error:
            note(f"{frame.source}, frame {frame.index}: {error}")
            return []

    def read(self, frame, faces: list[Face]) -> list:
        """Return the readings of a video's frame and the `faces` that `find` found on it."""
        if self._read_from not in ("", frame.source):
            self.tracker, self._looked = self._new_tracker(), None
        self._read_from = frame.source
        if (
            self.taker
            and faces
            and self.taker.add(faces[0].landmarks, faces[0].blendshapes, frame.timestamp_ms)
        ):
            self._use_taken_neutral()
        return self.tracker.update(
            [face.person for face in faces],
            [face.landmarks for face in faces],
            self.predict(faces, frame.image, self._look_now_and_then(faces, frame)),
            frame.timestamp_ms,
            frame.shape,
        )

    def read_still(self, frame) -> list:
        """Return the readings of a still picture; none if a network fails on it."""
        try:
            faces = self._landmarker(still=True).detect_picture(frame.image)
            probabilities = self.predict(faces, frame.image)
        except (RuntimeError, MemoryError, import_cv2().error) as error:
            note(f"{frame.source}: {error}")
            return []
        landmarks = [face.landmarks for face in faces]
        return read_picture(self.classifier.classes, landmarks, probabilities, frame.shape)

    def neutral_problem(self) -> str:
        """Return why no neutral baseline can be taken, or ""."""
        if self.still:
            return (
                "a neutral baseline is taken from, and used for, cameras and videos only;"
                " leave --calibrate and --subject out"
            )
        if (self.max_faces or 1) > 1:
            return "a neutral baseline is for one face; leave --max-faces out"
        if not self.classifier.knows_neutral:
            return "this model knows no neutral face; leave --model out, or train it again"
        return ""

    @property
    def neutral_state(self) -> str:
        """What to say of the neutral face: that it is being taken, that it is in use, or ""."""
        if self.taker:
            return "neutral face: hold still"
        return "neutral baseline: on" if self.offset is not None else ""

    def begin_neutral(self, calibrate: bool) -> None:
        """Take the neutral face, or use the one kept of the subject, if the command line says so.

        Raises UserError where no neutral face can be used.
        """
        if not calibrate and self.subject is None:
            return
        if problem := self.neutral_problem():
            raise UserError(problem)
        if calibrate:
            self.take_neutral()
        else:
            self.load_neutral()

    def take_neutral(self) -> None:
        """Start to take the neutral face from the coming frames; it is used when a second of it is there."""
        self.offset, self.taker = None, NeutralTaker()

    def load_neutral(self) -> None:
        """Use the neutral face that is kept of the subject, if there is one."""
        if kept := recordings.load_neutral(self.subject, PERSONAL_DATA):
            self.offset = self.classifier.neutral_offset(*kept)
            note(f"faces are read against the neutral face of {self.subject}{self._little_gain}")
        else:
            note(f"no neutral face of {self.subject} is kept yet: press n, or run again with --calibrate")

    @property
    def _little_gain(self) -> str:
        """What to add where a neutral baseline is used with a crop network, which it does not reach."""
        return "; --model landmarks gains by that, this model hardly" if self._needs_crops else ""

    def drop_neutral(self) -> None:
        """Read faces against the mean neutral face again."""
        self.offset = self.taker = None

    def _use_taken_neutral(self) -> None:
        taken, self.taker = self.taker.taken(), None
        self.offset = self.classifier.neutral_offset(*taken)
        note(f"the neutral face is taken: from here on faces are read against it{self._little_gain}")
        if movement := find_movement(taken[1]):
            self.doubt = f"{movement}: press n twice"
            kept = ", and is not kept" if self.subject and self._keeps else ""
            note(
                f"that face was not at rest, though ({movement}): it is used in this run{kept}; "
                "take it again with your face relaxed"
            )
        if self.subject and not self._keeps:
            note(f"it is not kept as {self.subject}'s: the bundled clip shows another face")
        elif self.subject and not movement:
            self._keep_neutral(taken)

    def _keep_neutral(self, taken: tuple[np.ndarray, np.ndarray]) -> None:
        """Keep a neutral face as the subject's and say where, or why that fails."""
        before = (
            " in place of the one before"
            if recordings.neutral_path(self.subject, PERSONAL_DATA).is_file()
            else ""
        )
        try:
            kept = relative(recordings.save_neutral(self.subject, *taken, PERSONAL_DATA))
        except UserError as error:
            note(f"{error}; it is in use, but not kept")
            return
        model = "" if self._model == str(MODELS) else f" --model {self._model}"
        note(
            f"kept in {kept}{before}; next time: python scr/main.py --subject {self.subject}{model}; "
            f"delete it with: python scr/record_dataset.py --forget-neutral {self.subject}"
        )

    def _look_now_and_then(self, faces: list[Face], frame) -> Prediction | None:
        """Return what the crop network makes of the faces on a video's frame.

        A person alone is looked at once in `LOOK_EVERY_MS`, and read by that answer until then: answers are
        smoothed over more than that, and the crop network costs the most after detection.
        """
        people = [face.person for face in faces]
        if not self._needs_crops or not faces:
            self._looked = None
            return None
        whom, when = self._looked_at
        recent = 0 <= frame.timestamp_ms - when < LOOK_EVERY_MS
        if self._looked is None or not recent or len(people) > 1 or people != whom:
            crops = crop_faces(frame.image, [face.landmarks for face in faces])
            self._looked, self._looked_at = self.classifier.predict_crops(crops), (people, frame.timestamp_ms)
        return self._looked

    def predict(self, faces: list[Face], image: np.ndarray, looked: Prediction | None = None) -> np.ndarray:
        """Return the probabilities (n, classes) of an image's faces; looked: the crop network's output."""
        landmarks = [face.landmarks for face in faces]
        seen = {}
        if looked is not None:
            seen["crop_output"] = looked
        elif self._needs_crops:
            seen["crops"] = crop_faces(image, landmarks)
        return self.classifier.predict(
            np.array(landmarks, np.float32).reshape(-1, 478, 3),
            np.array([face.blendshapes for face in faces], np.float32).reshape(-1, 52),
            offset=self.offset,
            **seen,
        ).probabilities

    def __enter__(self) -> "FaceReader":
        return self

    def __exit__(self, *_) -> None:
        for landmarker in self._landmarkers.values():
            landmarker.close()

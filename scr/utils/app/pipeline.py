"""Frames -> what their faces show: landmarks, networks, smoothing. `main.py` is its script.

Two ways lead through here: `read_video` goes frame by frame, `read_pictures` through files of their own,
which other processes may read.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..config import UserError, note
from ..faces.crops import COVERED_CONTRAST, crop_faces, mouth_contrast
from ..faces.features import BLENDSHAPE_NAMES, face_box
from ..faces.images import import_cv2
from ..faces.landmarker import Face, FaceLandmarker
from ..faces.pool import Lost, work_through
from ..faces.pose import POSE, head_pose
from ..model.classifier import EmotionClassifier, Prediction
from ..video.frames import Frame, InputFile, look_ahead
from ..video.sources import read_picture_file
from .smoothing import TIME_CONSTANT_MS, FaceSmoothers

CROP_EVERY_MS = 130
"""How long an output of the crop network holds for a person alone: four frames of thirty a second."""
COVERED_WEIGHT = 0.1
"""Of the prediction for a face with a covered mouth, against even probabilities: it stays `uncertain`."""
FRAMES_AHEAD = 2
"""Frames on which faces are found while the caller is at one."""
FEWEST_PICTURES = 16
"""For fewer, this process reads them: starting others takes longer."""
AHEAD_WITH_IMAGES, AHEAD = 2, 64
"""Pictures for each process that may wait for the caller; an image takes up to 48 MB."""


@dataclass(frozen=True, eq=False)
class FaceResult:
    """What is known of one face on one frame.

    face: its number, on a picture from the largest, in a video the same for the same person. box: x, y, width
    and height in pixels within the frame. emotion: the likeliest class, or `uncertain` if none reaches the
    model's threshold; confidence: the probability of the emotion, or of the likeliest class if `uncertain`.
    probabilities: of each class, by its name. blendshapes: MediaPipe's 52, by their names, 0 to 1, of this
    frame alone. landmarks: (478, 3) float32 in image widths.
    """

    face: int
    box: tuple[int, int, int, int]
    emotion: str
    confidence: float
    probabilities: dict[str, float]
    blendshapes: dict[str, float] = field(repr=False)
    landmarks: np.ndarray = field(repr=False)

    @property
    def pose(self) -> dict[str, float]:
        """The head's yaw, pitch and roll in degrees, as `head_pose` gives them."""
        return dict(zip(POSE, head_pose(self.landmarks[None])[0].tolist()))

    def to_dict(self, *columns: str) -> dict[str, int | float | str]:
        """Return the fields of a row of main.py's table; columns: `pose` and `blendshapes`, to add them."""
        row = {"face": self.face, **dict(zip(("x", "y", "width", "height"), self.box))}
        row |= {"emotion": self.emotion, "confidence": self.confidence, **self.probabilities}
        for name in columns:
            row |= getattr(self, name)
        return row


class FaceReader:
    """Reads the faces of frames with a model.

    max_faces: the largest; None: all of a picture, one of a video. smoothing_ms: time constant in videos.
    classes: those to tell apart, as `EmotionClassifier` takes them. Raises UserError as that does.
    """

    def __init__(
        self,
        model: str,
        max_faces: int | None = None,
        smoothing_ms: float = TIME_CONSTANT_MS,
        classes: Sequence[str] | None = None,
    ):
        self.model, self.max_faces = model, max_faces
        self.classifier = EmotionClassifier(model, classes)
        self._smoothing_ms = smoothing_ms
        self._landmarkers: dict[bool, FaceLandmarker] = {}
        """by whether they are for still pictures"""
        self._begin()

    def _begin(self) -> None:
        """Forget the video before; a picture is a video of one frame."""
        classifier = self.classifier
        self._smoothers = FaceSmoothers(classifier.classes, classifier.threshold, self._smoothing_ms)
        self._crop_output: Prediction | None = None
        self._covered: list[bool] = []
        """whether the mouths on these crops are covered"""
        self._cropped: tuple[list, int] = ([], 0)
        """whom the crop network saw last, and when"""

    def find(self, frame: Frame) -> list[Face]:
        """Return the faces of a frame, the largest first; none, with a note, if the detector fails on it.

        The frames of a video come in order. May run in another thread than `read`, ahead of it.
        """
        try:
            landmarker = self._landmarker_for(frame)
            if frame.still:
                return landmarker.detect_picture(frame.image)
            return landmarker.detect(frame.image, frame.timestamp_ms)
        except (RuntimeError, MemoryError, import_cv2().error) as error:
            note(f"{frame.source}{'' if frame.still else f', frame {frame.index}'}: {error}")
            return []

    def _landmarker_for(self, frame: Frame) -> FaceLandmarker:
        if frame.index == 0 and not frame.still and False in self._landmarkers:
            del self._landmarkers[False]  # another video, whose time begins anew
        if frame.still not in self._landmarkers:
            most = self.max_faces if frame.still else self.max_faces or 1
            self._landmarkers[frame.still] = FaceLandmarker(video=not frame.still, max_faces=most)
        return self._landmarkers[frame.still]

    def read(self, frame: Frame, faces: list[Face]) -> list[FaceResult]:
        """Return what the faces found on a frame show, by their numbers; smoothed in time in a video."""
        if frame.index == 0:
            self._begin()
        probabilities = self.predict(faces, frame.image, self._crop_output_of(faces, frame)).probabilities
        results = []
        for number, (face, row) in enumerate(zip(faces, probabilities)):
            if self._covered and self._covered[number]:
                row = COVERED_WEIGHT * row + (1 - COVERED_WEIGHT) / len(row)
            person = number if face.person is None else face.person
            smoother = self._smoothers.of_person(person, frame.timestamp_ms)
            label = smoother.update(row, frame.timestamp_ms)
            box = box_px(face_box(face.landmarks).tolist(), frame.shape)
            by_class = dict(zip(self.classifier.classes, smoother.probabilities.tolist()))
            shapes = dict(zip(BLENDSHAPE_NAMES, face.blendshapes.tolist()))
            results.append(FaceResult(person, box, *label, by_class, shapes, face.landmarks))
        return sorted(results, key=lambda result: result.face)

    def _crop_output_of(self, faces: list[Face], frame: Frame) -> Prediction | None:
        """Return the crop network's output of a frame's faces, if the model has one.

        A person alone is cropped once in `CROP_EVERY_MS` and read by that output until then: labels are
        smoothed over more than that, and the crop network costs the most after detection.
        """
        people = [face.person for face in faces]
        if not self.classifier.needs_crops or not faces:
            self._crop_output = None
            return None
        whom, when = self._cropped
        recent = frame.timestamp_ms - when < CROP_EVERY_MS
        if self._crop_output is None or not recent or len(people) > 1 or people != whom:
            crops = crop_faces(frame.image, [face.landmarks for face in faces])
            self._crop_output = self.classifier.predict_crops(crops)
            self._covered = [mouth_contrast(crop) < COVERED_CONTRAST for crop in crops]
            self._cropped = people, frame.timestamp_ms
        return self._crop_output

    def predict(
        self, faces: list[Face], image: np.ndarray, crop_output: Prediction | None = None
    ) -> Prediction:
        """Return the model's prediction for an image's faces; crop_output: its crop network's, if at hand."""
        landmarks = [face.landmarks for face in faces]
        crops = None
        if self.classifier.needs_crops and crop_output is None:
            crops = crop_faces(image, landmarks)
        return self.classifier.predict(
            np.array(landmarks, np.float32).reshape(-1, 478, 3),
            np.array([face.blendshapes for face in faces], np.float32).reshape(-1, 52),
            crops,
            crop_output,
        )


def box_px(box: Sequence[float], frame_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the part of a box (x, y, width, height in image widths) within the frame, in whole pixels."""
    height, width = frame_shape[:2]
    left, right = (min(max(round(x * width), 0), width) for x in (box[0], box[0] + box[2]))
    top, bottom = (min(max(round(y * width), 0), height) for y in (box[1], box[1] + box[3]))
    return left, top, right - left, bottom - top


def read_video(
    reader: FaceReader, frames: Iterable[Frame | None]
) -> Iterator[tuple[Frame | None, list[FaceResult]]]:
    """Yield each frame with its faces, found while the caller deals with the frame before.

    None, without faces, is passed on from a source that has nothing new yet.
    """
    found = look_ahead(frames, lambda frame: (frame, reader.find(frame) if frame else []), FRAMES_AHEAD)
    with contextlib.closing(found):
        for pair in found:
            frame, faces = pair or (None, [])
            yield frame, reader.read(frame, faces) if frame else []


@dataclass(frozen=True)
class PictureResult:
    """What was read from a picture file: its faces, or the `problem` why it can't be read.

    image: the picture (height, width, 3) uint8 BGR, if it was asked for.
    """

    name: str
    faces: list[FaceResult] = field(default_factory=list)
    problem: str = ""
    image: np.ndarray | None = None


def read_pictures(
    reader: FaceReader, files: Sequence[InputFile], jobs: int, images: bool = False
) -> Iterator[PictureResult]:
    """Yield what is on each picture file, in order; many are read by `jobs` processes of their own.

    There, a picture that kills its process costs itself.
    """
    if len(files) < FEWEST_PICTURES:
        yield from (_read_file(reader, images, file) for file in files)
        return
    settings = {"max_faces": reader.max_faces, "classes": reader.classifier.classes}
    open_worker = partial(_open_worker, reader.model, settings, images)
    ahead = AHEAD_WITH_IMAGES if images else AHEAD
    for file, result in zip(files, work_through(open_worker, files, jobs, ahead=ahead)):
        if isinstance(result, Lost):
            result = PictureResult(file.name, problem=f"{file.name}: the detector failed on it")
        yield result


@contextlib.contextmanager
def _open_worker(model: str, settings: dict, images: bool):
    import_cv2().setNumThreads(1)  # the other cores have processes of their own
    reader = FaceReader(model, **settings)
    yield partial(_read_file, reader, images)


def _read_file(reader: FaceReader, images: bool, file: InputFile) -> PictureResult:
    try:
        frame = read_picture_file(file.name, file.path)
    except UserError as error:
        return PictureResult(file.name, problem=str(error))
    faces = reader.read(frame, reader.find(frame))
    return PictureResult(file.name, faces, image=frame.image if images else None)

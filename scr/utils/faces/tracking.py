"""Who is who from frame to frame of a video: the largest faces are followed, each person with a number.

A face is read where its points were on the frame before. It stays the same person while its appearance stays
the same; where it does not (a cut, somebody stepping in front), it is lost, and is taken up again only by a
face of the same appearance, near where it was going.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from .detection import FaceDetector, RotatedBox
from .images import import_cv2
from .mesh import PRESENCE, REGION_SCALE, FaceMesh, Mesh, overlap

APPEARANCE_PX = 16
"""Side of the small picture of a face that tells people apart."""
MOST_CHANGE = 0.3
"""Change of appearance (one less the correlation) from which it is another face.

Measured: the same face half a second later .19 at most (2 clips, 540 frames); two people .36 at least."""
CUT_CHANGE = 0.4
"""Change of the whole frame from which it is a cut (demo clip, frames .7 s apart: .33 at most)."""
REPLACED_CHANGE = 0.5
"""Change of a single face that means another one in any scene; a quick turn of the head gave .38."""
LEAST_CONTRAST = 0.02
"""Standard deviation, of a range of 1, under which a picture is too flat (a dark frame) to tell anything."""
LEARNING_RATE = 0.1
"""Share of a frame in the remembered appearance by which a person is known again."""
MOST_STEP = 0.4
"""How far from where it was going a face may be on the next frame, in sides of its region."""
SEARCH_MS, SEARCH_LOST_MS, SEARCH_FULL_MS = 500, 150, 1000
"""How often new faces are looked for: in general; while nobody is seen or somebody has just been lost; while
as many as wanted are followed, so that only a larger one counts."""
FORGET_MS = 2000
"""A person unseen for longer gets a new number when they come back."""
MOST_SPEED = 3.0
"""Sides of its region that a lost face may come back from where it was going in each second, beside one."""
COAST_MS = 700
"""A lost face is thought to go on as it went for so long: the time that two people take to cross."""
LARGER = 1.25
"""How much larger a new face must be to take the place of a followed one: two alike must not take turns."""
MIN_CUTOFF_HZ, BETA, SPEED_CUTOFF_HZ = 0.05, 80.0, 1.0
"""Parameters of `PointFilter`, those of MediaPipe's face landmarker (face_landmarks_detector_graph.cc)."""
_THIRDS = np.full(3, 1 / 3, np.float32)


class PointFilter:
    """One-Euro filter (Casiez, Roussel, Vogel 2012): points at rest are smoothed, quick ones follow at once.

    As in MediaPipe's landmarks_smoothing_calculator, speeds are measured in sizes of the face.
    """

    def __init__(self, points: np.ndarray, timestamp_ms: int):
        self._raw = self._smooth = points
        self._speed = np.zeros_like(points)
        self._timestamp_ms = timestamp_ms

    def update(self, points: np.ndarray, size: float, timestamp_ms: int) -> np.ndarray:
        """Return points (n, 3) in pixels, smoothed; size: that of the face, in pixels."""
        elapsed_s = (timestamp_ms - self._timestamp_ms) / 1000
        if elapsed_s > 0:
            speed = (points - self._raw) / (size * elapsed_s)
            self._speed = self._speed + _share(SPEED_CUTOFF_HZ, elapsed_s) * (speed - self._speed)
            share = _share(MIN_CUTOFF_HZ + BETA * np.abs(self._speed), elapsed_s)
            self._smooth = self._smooth + share * (points - self._smooth)
            self._raw, self._timestamp_ms = points, timestamp_ms
        return self._smooth


def _share(cutoff_hz, elapsed_s: float):
    """Return the new value's share in a low-pass filter of that cutoff."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff_hz * elapsed_s))


def appearance_of(frame_bgr: np.ndarray, region: RotatedBox) -> np.ndarray:
    """Return a face's region, not turned, as a small picture (16, 16, 3) float32 in [0, 1]."""
    cv2 = import_cv2()
    half = region.side / 3  # the face itself: two thirds of its region
    top, bottom = max(0, int(region.y - half)), max(0, int(region.y + half))
    left, right = max(0, int(region.x - half)), max(0, int(region.x + half))
    part = frame_bgr[top:bottom, left:right]
    if 0 in part.shape:
        return np.zeros((APPEARANCE_PX, APPEARANCE_PX, 3), np.float32)
    step = max(1, min(part.shape[:2]) // (4 * APPEARANCE_PX))
    part, size = np.ascontiguousarray(part[::step, ::step]), (APPEARANCE_PX, APPEARANCE_PX)
    return cv2.resize(part, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def change(one: np.ndarray, other: np.ndarray) -> float:
    """Return how much two appearances differ: 1 less their correlation in brightness, 0 if either is flat.

    Light that comes on or goes off leaves it as it is.
    """
    one, other = _deviation(one), _deviation(other)
    spread = math.sqrt((one @ one) * (other @ other))
    return 1 - float(one @ other) / spread if spread > len(one) * LEAST_CONTRAST**2 else 0.0


def _deviation(appearance: np.ndarray) -> np.ndarray:
    brightness = (appearance @ _THIRDS).ravel()  # ten times as quick as a mean over the channels
    return brightness - brightness.mean()


@dataclass(eq=False)
class Person:
    """Somebody in a video: number, last reading, appearance then, when that was; `memory` is the remembered
    appearance, `speed` the region's in pixels a millisecond.
    """

    number: int
    reading: Mesh
    appearance: np.ndarray
    seen_ms: int

    def __post_init__(self):
        self.memory, self.speed = self.appearance, np.zeros(2)
        self._filter = PointFilter(self.reading.points, self.seen_ms)

    @property
    def region(self) -> RotatedBox:
        return self.reading.region

    def expected(self, timestamp_ms: int) -> RotatedBox:
        """Return where the face is thought to be at a time."""
        elapsed_ms = min(timestamp_ms - self.seen_ms, COAST_MS)
        x, y = self.speed * elapsed_ms + (self.region.x, self.region.y)
        return replace(self.region, x=float(x), y=float(y))

    def see(self, reading: Mesh, appearance: np.ndarray, timestamp_ms: int) -> None:
        """Take in a sighting."""
        elapsed_ms = max(1, timestamp_ms - self.seen_ms)
        keep = 0.7 if elapsed_ms < SEARCH_MS else 0.0
        move = np.array([reading.region.x - self.region.x, reading.region.y - self.region.y])
        self.speed = keep * self.speed + (1 - keep) * move / elapsed_ms
        if change(self.memory, appearance) < MOST_CHANGE:  # who is half hidden is not remembered so
            self.memory = (1 - LEARNING_RATE) * self.memory + LEARNING_RATE * appearance
        if elapsed_ms >= SEARCH_MS:
            self._filter = PointFilter(reading.points, timestamp_ms)
        points = self._filter.update(reading.points, reading.region.side / REGION_SCALE, timestamp_ms)
        self.reading = replace(reading, points=points)
        self.appearance, self.seen_ms = appearance, timestamp_ms


class Tracker:
    """Follows the `max_faces` largest faces through a video: frames in, people with their readings out."""

    def __init__(self, detector: FaceDetector, mesh: FaceMesh, max_faces: int):
        self._detector, self._mesh, self._max_faces = detector, mesh, max_faces
        self._seen: list[Person] = []
        self._lost: list[Person] = []
        self._count = 0
        self._searched_ms: int | None = None
        self._frame_before: np.ndarray | None = None

    def track(self, frame_bgr: np.ndarray, timestamp_ms: int) -> list[Person]:
        """Return who is on a frame; timestamps must not go back."""
        known, self._seen = self._seen, []
        self._read_known(frame_bgr, timestamp_ms, known)
        just_lost = [person for person in known if person not in self._seen]
        lost = [person for person in self._lost if timestamp_ms - person.seen_ms <= FORGET_MS]
        self._lost = lost + just_lost
        wait_ms = SEARCH_LOST_MS if self._lost or not self._seen else SEARCH_MS
        if len(self._seen) == self._max_faces:
            wait_ms = SEARCH_FULL_MS
        if just_lost or self._searched_ms is None or timestamp_ms - self._searched_ms >= wait_ms:
            self._search(frame_bgr, timestamp_ms)
            self._searched_ms = timestamp_ms
        self._frame_before = frame_bgr
        return self._seen

    def _read_known(self, frame_bgr: np.ndarray, timestamp_ms: int, known: list[Person]) -> None:
        """Read those who were on the frame before where they are expected."""
        sightings = []
        for person in known:
            expected = person.expected(timestamp_ms)
            reading = self._mesh.read(frame_bgr, expected)
            appearance = appearance_of(frame_bgr, reading.region)
            if (
                reading.presence >= PRESENCE
                and _distance(reading.region, expected) < MOST_STEP
                and not self._replaced(person, appearance, frame_bgr)
            ):
                sightings.append((change(person.memory, appearance), person, reading, appearance))
        for _, person, reading, appearance in sorted(sightings, key=lambda sighting: sighting[0]):
            # Where two are read as one, it is the one who is more like it; the other is behind.
            if not self._is_seen(reading.region):
                person.see(reading, appearance, timestamp_ms)
                self._seen.append(person)

    def _replaced(self, person: Person, appearance: np.ndarray, frame_bgr: np.ndarray) -> bool:
        """Tell whether the face in a person's place is another one.

        A head that turns quickly changes as much as two people differ, but the scene around it does not.
        """
        changed = change(person.appearance, appearance)
        if self._max_faces > 1 or not MOST_CHANGE <= changed < REPLACED_CHANGE:
            return changed >= MOST_CHANGE
        return change(_scene_of(self._frame_before), _scene_of(frame_bgr)) >= CUT_CHANGE

    def _is_seen(self, region: RotatedBox) -> bool:
        return any(overlap(region, person.region) for person in self._seen)

    def _search(self, frame_bgr: np.ndarray, timestamp_ms: int) -> None:
        """Look for faces on the whole frame, and follow those who come back, are new or larger."""
        for detection in self._detector.detect(frame_bgr):
            here = RotatedBox(detection.x, detection.y, REGION_SCALE * detection.size)
            smallest = None
            if len(self._seen) >= self._max_faces:
                smallest = min(self._seen, key=lambda person: person.region.side)
                if here.side < LARGER * smallest.region.side:
                    break  # the largest come first
            if self._is_seen(here):
                continue
            reading = self._mesh.find(frame_bgr, detection)
            if reading is None or self._is_seen(reading.region):
                continue
            if smallest:
                self._seen.remove(smallest)
                self._lost.append(smallest)
            self._take_up(reading, appearance_of(frame_bgr, reading.region), timestamp_ms)

    def _take_up(self, reading: Mesh, appearance: np.ndarray, timestamp_ms: int) -> None:
        person = self._recognise(reading.region, appearance, timestamp_ms)
        if person:
            self._lost.remove(person)
            person.see(reading, appearance, timestamp_ms)
        else:
            person = Person(self._count, reading, appearance, timestamp_ms)
            self._count += 1
        self._seen.append(person)

    def _recognise(self, region: RotatedBox, appearance: np.ndarray, timestamp_ms: int) -> Person | None:
        """Return who of the lost has come back in a region, or None: the one of them most like it.

        A face half hidden by another one that is seen looks like nobody: there, the place alone tells.
        """
        candidates = []
        for person in self._lost:
            expected = person.expected(timestamp_ms)
            off = _distance(region, expected)
            changed = change(person.memory, appearance)
            alike = changed < MOST_CHANGE and off <= 1 + MOST_SPEED * (timestamp_ms - person.seen_ms) / 1000
            hidden = off < MOST_STEP and any(_distance(region, other.region) < 1 for other in self._seen)
            if (alike or hidden) and 0.5 < region.side / expected.side < 2:
                candidates.append((changed, person))
        return min(candidates, key=lambda candidate: candidate[0])[1] if candidates else None


def _distance(region: RotatedBox, other: RotatedBox) -> float:
    """Return how far two regions' middles are apart, in sides of the second."""
    return math.hypot(region.x - other.x, region.y - other.y) / other.side


def _scene_of(frame_bgr: np.ndarray) -> np.ndarray:
    """Return the appearance of a whole frame."""
    height, width = frame_bgr.shape[:2]
    return appearance_of(frame_bgr, RotatedBox(width / 2, height / 2, REGION_SCALE * max(height, width)))

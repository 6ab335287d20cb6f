"""Who is who from frame to frame of a video: several faces are tracked, each person with a number.

A face is read where its points were on the frame before. It stays the same person while it looks the same;
where it does not (a cut, somebody stepping in front), its track is lost, and is taken up again only by a face
that looks like it, near where it was going.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from .detection import FaceDetector, RotatedBox
from .images import import_cv2
from .mesh import PRESENCE, FaceMesh, Mesh, overlap

LOOK_PX = 16
"""Side of the small picture of a face that tells people apart."""
MOST_CHANGE = 0.3
"""Change of look (one less the correlation) from which it is another face.

Measured: the same face half a second later .19 at most (2 clips, 540 frames); two people .36 at least."""
CUT_CHANGE = 0.4
"""Change of the whole frame's look from which it is a cut (demo clip, frames .7 s apart: .33 at most)."""
REPLACED_CHANGE = 0.5
"""Change of a single face's look that means another face in any scene; a quick turn of the head gave .38."""
LEAST_CONTRAST = 0.02
"""Standard deviation, of a range of 1, under which a look is too flat (a dark frame) to tell anything."""
LEARNING_RATE = 0.1
"""Share of a frame in what a person is remembered to look like, by which they are known again."""
MOST_STEP = 0.4
"""How far from where it was going a face may be on the next frame, in sides of its region."""
SEARCH_MS, SEARCH_LOST_MS = 500, 150
"""How often new faces are looked for, and how often while somebody has just been lost."""
FORGET_MS = 2000
"""A person unseen for longer gets a new number when they come back."""
MOST_SPEED = 3.0
"""How far from where it was going a lost face may come back: one side of its region, and so many more for
each second."""
COAST_MS = 700
"""A lost face is thought to go on as it went for so long: the time that two people take to cross."""
_THIRDS = np.full(3, 1 / 3, np.float32)


def look_of(frame_bgr: np.ndarray, region: RotatedBox) -> np.ndarray:
    """Return the look of a face: its region, not turned, as a small picture (16, 16, 3) float32 in [0, 1]."""
    cv2 = import_cv2()
    half = region.side / 3  # the face itself: two thirds of its region
    top, bottom = max(0, int(region.y - half)), max(0, int(region.y + half))
    left, right = max(0, int(region.x - half)), max(0, int(region.x + half))
    part = frame_bgr[top:bottom, left:right]
    if 0 in part.shape:
        return np.zeros((LOOK_PX, LOOK_PX, 3), np.float32)
    step = max(1, min(part.shape[:2]) // (4 * LOOK_PX))
    small = cv2.resize(
        np.ascontiguousarray(part[::step, ::step]), (LOOK_PX, LOOK_PX), interpolation=cv2.INTER_AREA
    )
    return small.astype(np.float32) / 255


def change(one: np.ndarray, other: np.ndarray) -> float:
    """Return how much two looks differ: 1 less their correlation in brightness, 0 if either is flat.

    Light that comes on or goes off leaves it as it is.
    """
    one, other = _deviation(one), _deviation(other)
    spread = math.sqrt((one @ one) * (other @ other))
    return 1 - float(one @ other) / spread if spread > len(one) * LEAST_CONTRAST**2 else 0.0


def _deviation(look: np.ndarray) -> np.ndarray:
    """Return how much brighter than the mean each pixel of a look is, flat."""
    brightness = (look @ _THIRDS).ravel()  # ten times as quick as a mean over the channels
    return brightness - brightness.mean()


@dataclass
class Person:
    """Somebody in a video: their number, last region, look (the last and the remembered one), when last seen,
    and the region's speed in pixels a millisecond.
    """

    number: int
    region: RotatedBox
    look: np.ndarray
    memory: np.ndarray
    seen_ms: int
    speed: tuple[float, float] = (0.0, 0.0)

    def expected(self, timestamp_ms: int) -> RotatedBox:
        """Return where the face is thought to be at a time."""
        elapsed_ms = min(timestamp_ms - self.seen_ms, COAST_MS)
        return replace(
            self.region,
            x=self.region.x + self.speed[0] * elapsed_ms,
            y=self.region.y + self.speed[1] * elapsed_ms,
        )

    def see(self, region: RotatedBox, look: np.ndarray, timestamp_ms: int) -> None:
        """Take in a sighting."""
        elapsed_ms = max(1, timestamp_ms - self.seen_ms)
        keep = 0.7 if elapsed_ms < SEARCH_MS else 0.0
        self.speed = (
            keep * self.speed[0] + (1 - keep) * (region.x - self.region.x) / elapsed_ms,
            keep * self.speed[1] + (1 - keep) * (region.y - self.region.y) / elapsed_ms,
        )
        if change(self.memory, look) < MOST_CHANGE:  # who is half hidden is not remembered so
            self.memory = (1 - LEARNING_RATE) * self.memory + LEARNING_RATE * look
        self.region, self.look, self.seen_ms = region, look, timestamp_ms


class Follower:
    """Tracks up to `max_faces` faces through a video: frames in, readings with people's numbers out."""

    def __init__(self, detector: FaceDetector, mesh: FaceMesh, max_faces: int):
        self._detector, self._mesh, self._max_faces = detector, mesh, max_faces
        self._people: list[Person] = []
        self._count = 0
        self._before_ms = self._searched_ms = None

    def follow(self, frame_bgr: np.ndarray, timestamp_ms: int) -> list[tuple[int, Mesh]]:
        """Return the number and the reading of each face on a frame; timestamps must not go back."""
        self._people = [person for person in self._people if timestamp_ms - person.seen_ms <= FORGET_MS]
        seen = self._read_known(frame_bgr, timestamp_ms)
        lost = [person for person in self._people if person.number not in seen]
        just_lost = any(person.seen_ms == self._before_ms for person in lost)
        wait_ms = SEARCH_LOST_MS if lost else SEARCH_MS
        if just_lost or self._searched_ms is None or timestamp_ms - self._searched_ms >= wait_ms:
            self._search(frame_bgr, timestamp_ms, seen, lost)
            self._searched_ms = timestamp_ms
        self._before_ms = timestamp_ms
        return list(seen.items())

    def _read_known(self, frame_bgr: np.ndarray, timestamp_ms: int) -> dict[int, Mesh]:
        """Return the readings of those who were on the frame before and still are, by number."""
        sightings = []
        for person in self._people:
            if person.seen_ms != self._before_ms:
                continue
            expected = person.expected(timestamp_ms)
            reading = self._mesh.read(frame_bgr, expected)
            off = np.hypot(reading.region.x - expected.x, reading.region.y - expected.y) / expected.side
            look = look_of(frame_bgr, reading.region)
            if reading.presence >= PRESENCE and off < MOST_STEP and change(person.look, look) < MOST_CHANGE:
                sightings.append((change(person.memory, look), person, reading, look))
        seen: dict[int, Mesh] = {}
        for _, person, reading, look in sorted(sightings, key=lambda sighting: sighting[0]):
            # Where two are read as one, it is the one who looks more like it; the other is behind.
            if not any(overlap(reading.region, other.region) for other in seen.values()):
                person.see(reading.region, look, timestamp_ms)
                seen[person.number] = reading
        return seen

    def _search(self, frame_bgr, timestamp_ms: int, seen: dict[int, Mesh], lost: list[Person]) -> None:
        """Look for faces on the whole frame, and add those who come back or are new to `seen`."""
        for detection in self._detector.detect(frame_bgr):
            if len(seen) >= self._max_faces:
                break
            here = RotatedBox(detection.x, detection.y, 1.5 * detection.size)
            if any(overlap(here, other.region) for other in seen.values()):
                continue
            reading = self._mesh.find(frame_bgr, detection)
            if reading is None or any(overlap(reading.region, other.region) for other in seen.values()):
                continue
            look = look_of(frame_bgr, reading.region)
            person = self._recognise(reading.region, look, timestamp_ms, lost, seen)
            if person is None:
                person = Person(self._count, reading.region, look, look, timestamp_ms)
                self._count += 1
                self._people.append(person)
            else:
                lost.remove(person)
                person.see(reading.region, look, timestamp_ms)
            seen[person.number] = reading

    def _recognise(self, region: RotatedBox, look, timestamp_ms: int, lost, seen) -> Person | None:
        """Return who of the lost has come back in a region, or None: the one of them most like it.

        A face half hidden by another one that is seen looks like nobody: there, the place alone tells.
        """
        candidates = []
        for person in lost:
            expected = person.expected(timestamp_ms)
            off = np.hypot(region.x - expected.x, region.y - expected.y) / expected.side
            changed = change(person.memory, look)
            alike = changed < MOST_CHANGE and off <= 1 + MOST_SPEED * (timestamp_ms - person.seen_ms) / 1000
            hidden = off < MOST_STEP and any(
                np.hypot(region.x - other.region.x, region.y - other.region.y) < other.region.side
                for other in seen.values()
            )
            if (alike or hidden) and 0.5 < region.side / expected.side < 2:
                candidates.append((changed, person))
        return min(candidates, key=lambda candidate: candidate[0])[1] if candidates else None


class Recogniser:
    """Tells when the one face of a video has become another person's, as after a cut."""

    def __init__(self):
        self._before: tuple[np.ndarray, np.ndarray] | None = None
        """the frame before that had a face, and the face's look"""
        self._number = 0

    def number(self, frame_bgr: np.ndarray, region: RotatedBox) -> int:
        """Return the number of the person whose face is in a region, counted from 0.

        A head that turns quickly changes its look as much as two people differ, but not the scene around it.
        """
        look = look_of(frame_bgr, region)
        if self._before is not None:
            frame_before, look_before = self._before
            changed = change(look_before, look)
            self._number += changed >= REPLACED_CHANGE or (
                changed >= MOST_CHANGE and change(_scene_of(frame_before), _scene_of(frame_bgr)) >= CUT_CHANGE
            )
        self._before = frame_bgr, look
        return self._number


def _scene_of(frame_bgr: np.ndarray) -> np.ndarray:
    """Return the look of a whole frame."""
    height, width = frame_bgr.shape[:2]
    return look_of(frame_bgr, RotatedBox(width / 2, height / 2, 1.5 * max(height, width)))

"""The package's interface: the same as main.py's rows, for pictures, videos and threads."""

import itertools
import json
import math
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from conftest import DATA, SMILE, frames_of, run

from utils import EmotionDetectionError, Reader, read_faces, read_video
from utils.app import api
from utils.video.frames import Source
from utils.video.video_writer import VideoRecorder

GROUP, PORTRAIT = DATA / "group.jpg", DATA / "astronaut.jpg"


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


def table_of(source, tmp_path, *options) -> list[dict]:
    """Return the rows that main.py writes of a source."""
    table = tmp_path / "rows.jsonl"
    done = run("main.py", "--source", source, "--no-display", "--output", table, *options)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]


def assert_same(row: dict, expected: dict) -> None:
    """Fail unless two rows are the same to five decimals, in the same order."""
    assert list(row) == list(expected)
    for name, value in expected.items():
        assert row[name] == (pytest.approx(value, abs=2e-5) if isinstance(value, float) else value)


def test_pictures_are_read_as_by_main(reader, tmp_path):
    rows = table_of(GROUP, tmp_path, "--columns", "all")
    faces = read_faces(GROUP)
    assert len(faces) == len(rows) == 5
    for face, row in zip(faces, rows):
        place = {name: row[name] for name in ("source", "frame", "timestamp_ms")}
        assert_same(place | face.to_dict("pose", "blendshapes"), row)
        assert face.confidence == max(face.probabilities.values()) and math.isclose(
            sum(face.probabilities.values()), 1, abs_tol=1e-5
        )
        assert json.loads(json.dumps(face.to_dict())) == face.to_dict()
        assert face.landmarks.shape == (478, 3) and "landmarks" not in repr(face)
    pixels = cv2.imread(str(GROUP))
    many = reader.read_faces([pixels, str(DATA / "landscape.jpg"), GROUP])
    assert [len(one) for one in many] == [5, 0, 5]
    assert [face.to_dict() for face in many[0]] == [face.to_dict() for face in faces]


def test_videos_are_read_as_by_main(tmp_path):
    rows = table_of(SMILE, tmp_path)
    frames = list(read_video(SMILE))
    assert len(frames) == len(rows) == 72
    for frame, row in zip(frames, rows):
        about = frame.to_dict()
        (face,) = about.pop("faces")
        assert_same(about | face, row)
        assert frame.image.shape == (360, 640, 3)


def test_frames_of_the_caller_are_read_as_their_file(reader):
    from_file = list(itertools.islice(reader.read_video(SMILE), 20))
    given = ((frame.image, frame.timestamp_ms) for frame in from_file)
    for frame, other in zip(from_file, reader.read_video(given), strict=True):
        assert frame.to_dict() == other.to_dict() | {"source": str(SMILE)}
    times = [frame.timestamp_ms for frame in reader.read_video(frame.image for frame in from_file[:3])]
    assert times == sorted(times)


def test_several_threads_use_a_reader_beside_a_video(reader):
    pictures = [GROUP, PORTRAIT] * 4
    alone = [[face.to_dict() for face in faces] for faces in reader.read_faces(pictures)]
    video = [frame.to_dict() for frame in itertools.islice(reader.read_video(SMILE), 8)]
    with ThreadPoolExecutor(4) as threads:
        together = threads.map(reader.read_faces, pictures)
        disturbed = []
        for frame in itertools.islice(reader.read_video(SMILE), 8):
            assert len(reader.read_faces(PORTRAIT)) == 1
            disturbed.append(frame.to_dict())
        assert [[face.to_dict() for face in faces] for faces in together] == alone
    assert disturbed == video


def test_a_reader_takes_any_model_classes_and_number_of_faces():
    reader = Reader("crop", max_faces=2)
    assert [face.face for face in reader.read_faces(GROUP)] == [0, 1]
    assert tuple(reader.read_faces(PORTRAIT)[0].probabilities) == reader.classes
    (face,) = read_faces(PORTRAIT, classes=["happy", "sad"])
    assert list(face.probabilities) == ["happy", "sad"]


class LostCamera(Source):
    live, failure = True, ""

    def __iter__(self):
        yield None
        self.failure = "camera 0 gave no frame for 30 s; plug it in and start again"


def test_all_errors_are_of_one_class(reader, tmp_path, monkeypatch):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    for read, words in (
        (lambda: read_faces(tmp_path / "broken.jpg"), "broken.jpg: not a picture"),
        (lambda: read_faces(PORTRAIT, "nobody"), "no model named nobody"),
        (lambda: read_faces(np.zeros((10, 10), np.uint8)), r"expected pixels .* got \(10, 10\)"),
        (lambda: list(read_video(tmp_path / "none.mp4")), "no file or folder"),
        (lambda: list(reader.read_video([np.zeros((9, 9, 3))])), "float64"),
    ):
        with pytest.raises(EmotionDetectionError, match=words) as raised:
            read()
        assert "\n" not in str(raised.value)
    monkeypatch.setattr(api, "open_source", lambda _: LostCamera("0", "camera"))
    with pytest.raises(EmotionDetectionError, match="plug it in"):
        list(read_video(0))


def test_a_video_cut_short_gives_its_frames_and_a_note(reader, tmp_path, capsys):
    with VideoRecorder(tmp_path / "whole.avi", 10) as video:
        for image in frames_of(SMILE)[:20]:
            video.write(image, 0)
    content = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    assert 5 <= len(list(reader.read_video(tmp_path / "cut.avi"))) < 15
    assert "cut.avi ends early" in capsys.readouterr().err

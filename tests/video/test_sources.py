"""Sources that fail in every way cameras and files do; no camera and no network needed."""

import sys
import threading
import time

import av
import cv2
import numpy as np
import pytest

from utils.config import UserError
from utils.video import camera, sources
from utils.video.camera import Camera, CameraSettings, open_camera
from utils.video.live_source import LiveSource, Patience
from utils.video.sources import DEMO_CLIP, VideoSource, open_source
from utils.video.video_writer import VideoRecorder, write_picture

QUICK = Patience(stalled=0.4, frozen=0.6, gone=1.0, retry=0.02)


class FakeDevice:
    """A cv2.VideoCapture that plays a script of reads: an image, None (returns False), an exception, or a
    float: seconds to block."""

    def __init__(self, reads, then=None, period=0.005):
        self.reads, self.then, self.period = list(reads), then, period
        self.released = False
        self.count = 0

    def getBackendName(self):
        return "FAKE"

    def set(self, *_):
        return False

    def isOpened(self):
        return True

    def read(self):
        time.sleep(self.period)
        step = (
            self.reads.pop(0) if self.reads else (self.then(self.count) if callable(self.then) else self.then)
        )
        self.count += 1
        if isinstance(step, float):
            time.sleep(step)
            return False, None
        if isinstance(step, Exception):
            raise step
        return step is not None, step

    def release(self):
        self.released = True


def plugged(*reads, **device) -> Camera:
    return Camera(FakeDevice(*reads, **device))


def picture(value: int, size=(60, 80)) -> np.ndarray:
    return np.full((*size, 3), value % 256, np.uint8)


def moving(count: int) -> np.ndarray:
    return picture(count)


def collect(source, seconds=3.0, until=lambda frames: False):
    """Return the frames and messages that a source gives within some seconds."""
    frames, messages, start = [], [], time.monotonic()
    for frame in source:
        if frame is not None:
            frames.append(frame)
        while source.news:
            messages.append(source.news.popleft())
        if until(frames) or time.monotonic() - start > seconds:
            break
    return frames, messages


def test_only_the_newest_frame_is_given_and_time_goes_up():
    device = FakeDevice([], then=moving)
    with LiveSource("0", Camera(device), lambda: None, "camera", QUICK) as source:
        frames = []
        for frame in source:
            if frame is not None:
                frames.append(frame)
                time.sleep(0.05)  # a slow network
                assert time.monotonic() - frame.captured < 0.2
            if len(frames) == 6:
                break
        assert device.count > 20  # frames in between were left out, not queued
    stamps = [frame.timestamp_ms for frame in frames]
    assert stamps == sorted(set(stamps)) and [frame.index for frame in frames] == list(range(6))
    assert device.released


@pytest.mark.parametrize(
    "fault",
    [None, cv2.error("device gone"), np.zeros((0, 0, 3), np.uint8), 0.4],
    ids=["returns False", "raises", "empty", "blocks"],
)
def test_a_camera_that_fails_comes_back(fault):
    cameras = [plugged([], then=moving)]
    broken = plugged([picture(1)] * 3, then=fault)
    source = LiveSource("0", broken, lambda: cameras.pop() if cameras else None, "camera", QUICK)
    with source:
        frames, messages = collect(source, until=lambda frames: len(frames) > 20)
        assert len(frames) > 20 and source.failure == "" and source.message == ""
    assert messages[0] in ("camera 0 is lost, trying again", "camera 0 gives no frame, trying again")
    assert messages[-1] == "camera 0 is back"


def test_a_camera_that_blocks_for_good_is_left_behind():
    cameras = [plugged([], then=moving)]
    broken = plugged([picture(1)] * 3, then=60.0)
    source = LiveSource("0", broken, lambda: cameras.pop() if cameras else None, "camera", QUICK)
    with source:
        frames, messages = collect(source, until=lambda frames: len(frames) > 20)
    assert len(frames) > 20 and "gives no frame" in messages[0]


def test_a_camera_that_stays_away_ends_the_source_with_a_reason():
    start = time.monotonic()
    source = LiveSource("0", plugged([picture(1)]), lambda: None, "camera", QUICK)
    frames, messages = collect(source)
    assert len(frames) == 1 and messages and "plug it in" in source.failure
    assert time.monotonic() - start < 2.5


def test_a_frozen_camera_is_opened_again_and_a_still_picture_is_believed():
    opened = []

    def reopen():
        opened.append(1)
        return plugged([], then=picture(70))

    with LiveSource("0", plugged([], then=picture(70)), reopen, "camera", QUICK) as source:
        frames, messages = collect(source, seconds=1.2)
    # On a busy machine a frame may also come late, which is another fault.
    assert opened and any("repeats its last frame" in message for message in messages)
    assert source.failure == "" and frames[-1].timestamp_ms > 900


def test_a_frame_of_another_size_passes_through():
    camera = plugged([picture(1)] * 3 + [picture(2, (120, 160))] * 500, period=0.02)
    with LiveSource("0", camera, lambda: None, "camera", QUICK) as source:
        frames, _ = collect(source, seconds=0.5)
    assert {frame.image.shape for frame in frames} == {(60, 80, 3), (120, 160, 3)}


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.full((60, 80), 50, np.uint8), [50, 50, 50]),
        (np.full((60, 80, 1), 50, np.uint8), [50, 50, 50]),
        (np.dstack([np.full((60, 80), 145, np.uint8), np.full((60, 80), 128, np.uint8)]), [150, 150, 150]),
        (np.tile(np.uint16([0, 1000]), (60, 40)), [0, 0, 0]),
        (np.full((60, 80, 4), 50, np.uint8), [50, 50, 50]),
    ],
    ids=["grey", "one channel", "YUYV", "16 bits", "four channels"],
)
def test_frames_of_other_kinds_are_converted(image, expected):
    frame = next(plugged([image]))
    assert frame.shape == (60, 80, 3) and frame.dtype == np.uint8
    assert np.abs(frame[0, 0].astype(int) - expected).max() <= 2
    assert image.dtype == np.uint8 or frame.max() == 255


@pytest.mark.parametrize(
    "image",
    [np.zeros((1, 921600), np.uint8), np.zeros((1, 640, 3), np.uint8), np.zeros((60, 80, 3), np.float32)],
    ids=["raw", "one row", "float"],
)
def test_a_camera_whose_frames_are_no_pictures_is_said_to_be_one(image, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(cv2, "VideoCapture", lambda camera, code: FakeDevice([], then=image))
    with pytest.raises(UserError, match=r"no camera 0 \(it gives frames of .* --camera-backend"):
        open_source("0")


def test_a_picture_that_stays_black_is_told_once_and_its_frames_go_on():
    with LiveSource("0", plugged([], then=picture(3)), lambda: None, "camera", QUICK) as source:
        frames, messages = collect(source, seconds=1.6)
    assert len(messages) == 1 and "is black; open its shutter" in messages[0]
    assert source.failure == "" and frames[-1].timestamp_ms > 1200


def test_video_gives_every_frame_in_order_with_its_own_time():
    with open_source(str(DEMO_CLIP)) as source:
        assert (source.kind, source.live, round(source.fps)) == ("video", False, 24)
        frames = [(frame.index, frame.timestamp_ms) for frame in source if frame is not None]
    assert [index for index, _ in frames] == list(range(472))
    assert np.diff([stamp for _, stamp in frames]).min() > 0
    assert frames[-1][1] == pytest.approx(471 / 23.976 * 1000, abs=50)


def test_leaving_a_video_early_ends_its_thread():
    before = threading.active_count()
    with open_source(str(DEMO_CLIP)) as source:
        next(frame for frame in source if frame is not None)
    assert threading.active_count() == before


def test_a_video_cut_off_in_the_middle_gives_what_it_has_and_says_so(tmp_path):
    whole = tmp_path / "whole.avi"
    with VideoRecorder(whole, 25) as video:
        for index in range(60):
            noise = np.random.default_rng(index).integers(0, 255, (120, 160, 3), np.uint8)
            video.write(noise, index * 40)
    data = whole.read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(data[: len(data) // 2])
    with open_source(str(cut)) as source:
        count = sum(frame is not None for frame in source)
    assert 20 <= count < 40 and "ends early" in source.failure


@pytest.mark.parametrize("data", [b"", b"not a video" * 500, None], ids=["empty", "garbage", "head only"])
def test_a_damaged_video_is_refused_in_one_line(tmp_path, data):
    path = tmp_path / "bad.mp4"
    path.write_bytes(DEMO_CLIP.read_bytes()[:3000] if data is None else data)
    with pytest.raises(UserError, match="bad.mp4"):
        with open_source(str(path)) as source:
            list(source)


def test_no_camera_plays_the_clip_or_says_so(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    with open_source("9", demo=DEMO_CLIP) as source:
        assert list(source.news) == ["no camera 9 (there is no /dev/video9): playing assets/demo.mp4"]
        assert source.kind == "video"
    with pytest.raises(UserError, match="no camera 9"):
        open_source("9")


def test_camera_back_ends_are_tried_in_the_platform_s_order(monkeypatch):
    tried = []

    class Busy(FakeDevice):
        def __init__(self, camera, code):
            super().__init__([])
            tried.append(code)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(cv2, "VideoCapture", Busy)
    capture, problem = open_camera(0)
    assert capture is None and "another program" in problem
    assert tried == [cv2.CAP_DSHOW, cv2.CAP_MSMF, cv2.CAP_ANY]
    tried.clear()
    open_camera(0, CameraSettings(backend="msmf"))
    assert tried == [cv2.CAP_MSMF]


def test_a_camera_that_never_answers_does_not_hang_the_start(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(cv2, "VideoCapture", lambda camera, code: threading.Event().wait())
    monkeypatch.setattr(camera, "OPEN_TIMEOUT_S", 0.2)
    assert open_camera(0)[1].startswith("no answer")


def jpeg(value: int, size) -> bytes:
    return cv2.imencode(".jpg", picture(value, size))[1].tobytes()


def test_frames_far_larger_than_the_first_are_left_out(tmp_path):
    path = tmp_path / "grows.mjpg"
    path.write_bytes(jpeg(50, (240, 320)) * 5 + jpeg(50, (8000, 8000)) * 3 + jpeg(50, (240, 320)) * 2)
    with open_source(str(path)) as source:
        shapes = [frame.image.shape for frame in source if frame is not None]
    assert shapes == [(240, 320, 3)] * 7


@pytest.mark.usefixtures("system")
def test_numbered_pictures_are_a_video(tmp_path):
    for number in range(8, 20):
        write_picture(tmp_path / f"img{number:03}.png", picture(number))
    with VideoSource("x", tmp_path / "img%03d.png") as source:
        frames = [frame for frame in source if frame is not None]
    assert [frame.image[0, 0, 0] for frame in frames] == list(range(8, 20))
    assert [frame.timestamp_ms for frame in frames[:3]] == [0, 40, 80]


def test_streams_that_do_not_open_are_named():
    with pytest.raises(UserError, match="rtsp://127.0.0.1:1/x"):
        open_source("rtsp://127.0.0.1:1/x")


@pytest.mark.usefixtures("system")
def test_recorder_fits_other_sizes_and_keeps_real_time(tmp_path):
    path = tmp_path / "new" / "clip.mp4"
    with VideoRecorder(path) as video:
        video.write(np.full((120, 160, 3), 200, np.uint8), 0)
        video.write(np.full((240, 240, 3), 200, np.uint8), 500)  # half a second later
    with open_source(str(path)) as source:
        frames = [frame for frame in source if frame is not None]
    assert [frame.timestamp_ms for frame in frames] == [0, 500]
    last = frames[-1].image
    assert last.shape == (120, 160, 3) and last[60, 80].mean() > 150 and last[60, 5].mean() < 50


@pytest.mark.usefixtures("system")
def test_recorder_leaves_nothing_behind_when_it_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), VideoRecorder(tmp_path / "clip.mp4", 20) as video:
        video.write(np.zeros((120, 160, 3), np.uint8), 0)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_names_that_no_writer_knows(tmp_path):
    with pytest.raises(UserError, match="clip.wmv"):
        VideoRecorder(tmp_path / "clip.wmv", 20)
    with pytest.raises(UserError, match="a.xyz"):
        write_picture(tmp_path / "a.xyz", np.zeros((4, 4, 3), np.uint8))


def test_video_source_survives_useless_properties(tmp_path):
    path = tmp_path / "bare.h264"  # an elementary stream: no time stamps, no rate, no count
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "0"})
        stream.width, stream.height = 160, 120
        for index in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index * 50, (120, 160)))))
        container.mux(stream.encode(None))
    with VideoSource("x", path) as source:
        stamps = [frame.timestamp_ms for frame in source if frame is not None]
    assert len(stamps) == 4 and stamps[0] == 0 and min(np.diff(stamps)) > 0


def test_what_reads_an_apple_picture_is_named(tmp_path, monkeypatch):
    (tmp_path / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    monkeypatch.setattr(sources, "is_image", lambda path: False)  # as without that package
    with pytest.raises(UserError, match="pip install pillow-heif"):
        open_source(str(tmp_path / "photo.HEIC"))

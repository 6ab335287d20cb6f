"""Videos of every kind: same labels as the plain clip, each frame at its time; what is saved plays."""

import contextlib
import csv
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import DEMO, ROOT, SMILE, frames_of, user_error
from PIL import Image

from utils.app import command
from utils.config import UserError
from utils.video.sources import FolderSource, VideoSource, open_source
from utils.video.video_reader import import_av
from utils.video.video_writer import VideoRecorder

av = import_av()
FRAME_MS = 1000 / 30


@pytest.fixture(scope="session")
def smile() -> list[np.ndarray]:
    return frames_of(SMILE)


def write_clip(
    path, frames, times_s=None, codec="libx264", size=None, pixel=None, turn=0, options=None, **container
):
    """Write frames (BGR) with av; `pixel`: the pixels' aspect ratio, `turn`: by how many degrees."""
    times_s = [index / 30 for index in range(len(frames))] if times_s is None else times_s
    with av.open(str(path), "w", **container) as file:
        stream = file.add_stream(codec, rate=30, options={"preset": "10"} if "av1" in codec else {"bf": "0"})
        stream.width, stream.height = size or frames[0].shape[1::-1]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if pixel:
            stream.codec_context.sample_aspect_ratio = pixel
        if turn:
            stream.set_display_rotation(turn)
        for image, second in zip(frames, times_s):
            image = image if size is None else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = round(second * 1000), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def remux(source, path, shift_s=0.0, **container):
    """Copy the streams of a file into another kind of file, later by some seconds."""
    with av.open(str(source)) as old, av.open(str(path), "w", **container) as new:
        streams = {stream: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux(list(streams)):
            if packet.dts is not None:
                shift = round(shift_s / packet.time_base)
                packet.pts, packet.dts, packet.stream = (
                    packet.pts + shift,
                    packet.dts + shift,
                    streams[packet.stream],
                )
                new.mux(packet)
    return path


def read_rows(path) -> list[dict]:
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def demo(*arguments) -> None:
    command.main(
        command.build_parser().parse_args([str(argument) for argument in (*arguments, "--no-display")])
    )


def labels_of(path, folder, *more) -> tuple[list[str], list[dict]]:
    demo("--source", path, "--output", folder / "rows.csv", *more)
    rows = read_rows(folder / "rows.csv")
    return [row["emotion"] for row in rows], rows


@pytest.fixture(scope="session")
def plain(tmp_path_factory) -> list[str]:
    """The labels of the plain clip."""
    return labels_of(SMILE, tmp_path_factory.mktemp("plain"))[0]


def stamps(path) -> list[int]:
    with VideoSource("saved", path) as source:
        return [frame.timestamp_ms for frame in source if frame is not None]


def streams_of(path) -> dict[str, str]:
    with av.open(f"file:{path}") as file:
        return {stream.type: stream.codec_context.name for stream in file.streams}


VARIABLE_S = [index / 30 if index < 36 else 1.2 + (index - 36) / 10 for index in range(72)]
KINDS = {
    "pixels of 4:3": lambda path, frames: write_clip(
        path / "hdv.mp4", frames, size=(480, 360), pixel=Fraction(4, 3)
    ),
    "pixels of 2:3": lambda path, frames: write_clip(
        path / "tall.mkv", frames, size=(960, 360), pixel=Fraction(2, 3)
    ),
    "turned": lambda path, frames: write_clip(
        path / "phone.mp4", [np.ascontiguousarray(np.rot90(frame, -1)) for frame in frames], turn=90
    ),
    "upside down": lambda path, frames: write_clip(
        path / "phone.mov", [np.ascontiguousarray(frame[::-1, ::-1]) for frame in frames], turn=180
    ),
    "av1": lambda path, frames: write_clip(path / "av1.mp4", frames, codec="libsvtav1"),
    "transport stream at ten hours": lambda path, frames: remux(SMILE, path / "tv.ts", 36_000.0),
    "a colon in its name": lambda path, frames: shutil.copy(SMILE, path / "http:10:30 take 1.mp4"),
    "a name that is no UTF-8": lambda path, frames: shutil.copy(
        SMILE, os.path.join(path, os.fsdecode(b"\xff\xe9.mp4"))
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_those_of_the_plain_clip_and_boxes_upright(kind, smile, plain, tmp_path):
    labels, rows = labels_of(KINDS[kind](tmp_path, smile), tmp_path)
    assert len(labels) == len(plain) == 72
    assert sum(one == other for one, other in zip(labels, plain)) >= 68, labels
    assert [int(row["timestamp_ms"]) for row in rows] == pytest.approx(
        [index * FRAME_MS for index in range(72)], abs=2
    )
    widths = [int(row["width"]) / int(row["height"]) for row in rows]
    assert 0.6 < min(widths) and max(widths) < 1.0


def test_frames_are_square_pixels_and_turned(smile, tmp_path):
    for path, shape in (
        (KINDS["pixels of 4:3"](tmp_path, smile[:3]), (360, 640, 3)),
        (KINDS["pixels of 2:3"](tmp_path, smile[:3]), (360, 640, 3)),
        (KINDS["turned"](tmp_path, smile[:3]), (360, 640, 3)),
        (KINDS["upside down"](tmp_path, smile[:3]), (360, 640, 3)),
    ):
        with open_source(str(path)) as source:
            image = next(frame for frame in source if frame is not None).image
        assert image.shape == shape and np.abs(image.astype(int) - smile[0]).mean() < 8


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v", ".mkv", ".webm"])
def test_saved_video_has_the_time_stamps_of_the_table(smile, tmp_path, suffix):
    clip = write_clip(tmp_path / "variable.mp4", smile, VARIABLE_S)
    demo("--source", clip, "--output", tmp_path / "rows.csv", "--save", tmp_path / f"saved{suffix}")
    rows = [int(row["timestamp_ms"]) for row in read_rows(tmp_path / "rows.csv")]
    assert rows == pytest.approx([second * 1000 for second in VARIABLE_S], abs=2)
    assert stamps(tmp_path / f"saved{suffix}") == pytest.approx(rows, abs=2)


def test_avi_counts_frames_and_still_keeps_time(smile, tmp_path):
    with VideoRecorder(tmp_path / "saved.avi", 30) as video:
        for image, second in zip(smile, VARIABLE_S):
            video.write(image, round(second * 1000))
    assert stamps(tmp_path / "saved.avi") == pytest.approx(
        [second * 1000 for second in VARIABLE_S], abs=FRAME_MS
    )


def test_a_browser_s_recording_without_rate_and_duration_keeps_its_time(smile, tmp_path):
    times = [index / 10.13 for index in range(72)]
    clip = write_clip(
        tmp_path / "recorder.webm", smile, times, codec="libvpx", container_options={"live": "1"}
    )
    with av.open(str(clip)) as file:
        assert not file.duration and not file.streams.video[0].frames
    labels, rows = labels_of(clip, tmp_path, "--save", tmp_path / "saved.mp4")
    assert [int(row["timestamp_ms"]) for row in rows] == pytest.approx(
        [second * 1000 for second in times], abs=2
    )
    assert stamps(tmp_path / "saved.mp4")[-1] == pytest.approx(times[-1] * 1000, abs=2)
    with av.open(str(tmp_path / "saved.mp4")) as file:
        assert 7.0 < file.duration / 1e6 < 7.3


@pytest.mark.parametrize(
    "suffix, codec", [(".mp4", "aac"), (".mkv", "aac"), (".webm", "opus"), (".avi", "mp3float")]
)
def test_saved_video_plays_anywhere_and_has_the_sound(tmp_path, suffix, codec):
    saved = tmp_path / f"saved{suffix}"
    demo("--source", SMILE, "--save", saved)
    assert streams_of(saved)["audio"] == codec
    with av.open(str(saved)) as file, av.open(str(SMILE)) as source:
        stream = file.streams.video[0]
        if suffix == ".mp4":
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            data = saved.read_bytes()
            assert 0 < data.find(b"moov") < data.find(b"mdat"), "faststart"
        assert stream.width % 2 == stream.height % 2 == 0
        sound, original = (
            np.concatenate([frame.to_ndarray().mean(axis=0) for frame in container.decode(audio=0)])
            for container in (file, source)
        )
    scale = 32768 if sound.dtype == np.int16 else 1
    assert len(sound) == pytest.approx(len(original), rel=0.15)
    assert np.std(sound / scale) == pytest.approx(np.std(original), rel=0.2)


def test_sound_keeps_step_with_a_transport_stream_s_clock(tmp_path):
    demo("--source", remux(SMILE, tmp_path / "tv.ts", 36_000.0), "--save", tmp_path / "saved.mp4")
    with av.open(str(tmp_path / "saved.mp4")) as file:
        first, *_, last = (
            float(packet.pts * packet.time_base) for packet in file.demux(audio=0) if packet.pts is not None
        )
    assert first < 0.1 and 2.2 < last < 2.45
    assert stamps(tmp_path / "saved.mp4")[0] == 0


def joined(path, shift_s=0.0) -> Path:
    """Write the clip twice, as recordings appended to each other: the second one's clock begins anew."""
    first, second = remux(SMILE, path), remux(SMILE, path.with_name(f"second{path.suffix}"), shift_s)
    path.write_bytes(first.read_bytes() + second.read_bytes())
    return path


@pytest.mark.parametrize("name", ["joined.ts", "later.mts", "dvd.vob"])
def test_a_clock_that_begins_anew_goes_on(smile, tmp_path, name):
    clip = tmp_path / name
    if name != "dvd.vob":
        joined(clip, 36_000.0 if name == "later.mts" else 0.0)
    else:
        with av.open(str(clip), "w", format="vob") as file:
            stream = file.add_stream("mpeg2video", rate=30)
            stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
            for image in smile:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
            file.mux(stream.encode(None))
        clip.write_bytes(clip.read_bytes() * 2)
    with VideoSource("joined", clip) as source:
        times = [frame.timestamp_ms for frame in source if frame is not None]
    assert (
        not source.failure and len(times) == 144 and times[-1] == pytest.approx(143 * FRAME_MS, abs=FRAME_MS)
    )
    assert np.diff(times) == pytest.approx(np.full(143, FRAME_MS), abs=2)


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_joined_recordings_are_saved_with_their_sound(tmp_path, suffix):
    saved = tmp_path / f"saved{suffix}"
    demo("--source", joined(tmp_path / "joined.ts"), "--save", saved)
    assert len(stamps(saved)) == 144 and set(streams_of(saved)) == {"video", "audio"}
    with av.open(str(saved)) as file:
        last = [float(packet.pts * packet.time_base) for packet in file.demux(audio=0) if packet.pts][-1]
    assert last == pytest.approx(4.77, abs=0.15)


def test_sound_that_can_not_be_written_never_costs_the_video(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise av.FFmpegError(22, "refused")

    monkeypatch.setattr("utils.video.video_writer.Sound._write", refuse)
    demo("--source", SMILE, "--save", tmp_path / "saved.mp4")
    assert len(stamps(tmp_path / "saved.mp4")) == 72
    assert "is not carried over: " in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_an_animated_picture_is_a_video(smile, tmp_path, suffix):
    path = tmp_path / f"smile{suffix}"
    frames = [Image.fromarray(frame[::2, ::2, ::-1]) for frame in smile[::6]]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=200)
    with open_source(str(path)) as source:
        assert source.kind == "video"
        read = [frame for frame in source if frame is not None]
    assert [frame.timestamp_ms for frame in read] == [200 * index for index in range(12)]
    assert np.abs(read[5].image.astype(int) - smile[30][::2, ::2]).mean() < 8 and not source.failure


@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_an_animated_picture_cut_off_gives_what_it_has_and_says_so(smile, tmp_path, suffix):
    path = tmp_path / f"smile{suffix}"
    frames = [Image.fromarray(frame[::2, ::2, ::-1]) for frame in smile[::6]]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=200)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_source(str(path)) as source:
        assert 2 <= sum(frame is not None for frame in source) < 12
    assert "is damaged" in source.failure


@pytest.mark.parametrize("suffix, codec", [(".wmv", "wmv2"), (".mp4", "libx264")])
def test_a_thumbnail_before_the_video_is_not_the_video(smile, tmp_path, suffix, codec):
    path = tmp_path / f"thumbnail{suffix}"
    with av.open(str(path), "w") as file:
        thumbnail, clip = file.add_stream("mjpeg", rate=1), file.add_stream(codec, rate=30)
        thumbnail.width, thumbnail.height, thumbnail.pix_fmt = 960, 540, "yuvj420p"
        clip.width, clip.height, clip.pix_fmt = 640, 360, "yuv420p"
        large = cv2.resize(smile[0], (960, 540))
        file.mux(thumbnail.encode(av.VideoFrame.from_ndarray(large, format="bgr24")))
        for image in smile:
            file.mux(clip.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        for stream in (thumbnail, clip):
            file.mux(stream.encode(None))
    with VideoSource("x", path) as source:
        shapes = [frame.image.shape for frame in source if frame is not None]
    assert len(shapes) >= 70 and set(shapes) == {(360, 640, 3)} and not source.failure


@pytest.mark.parametrize("suffix, codec, sound", [(".webm", "libvpx", "libopus"), (".mkv", "libx264", "aac")])
def test_sound_that_outlasts_the_video_is_no_early_end(smile, tmp_path, suffix, codec, sound):
    path = tmp_path / f"long{suffix}"
    with av.open(str(path), "w") as file:
        video, audio = file.add_stream(codec, rate=30), file.add_stream(sound, rate=48000)
        video.width, video.height, video.pix_fmt = 640, 360, "yuv420p"
        for image in smile:
            file.mux(video.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        for index in range(400):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), "fltp", "mono")
            silence.sample_rate, silence.pts, silence.time_base = 48000, index * 960, Fraction(1, 48000)
            file.mux(audio.encode(silence))
        for stream in (video, audio):
            file.mux(stream.encode(None))
    with VideoSource("long", path) as source:
        assert sum(frame is not None for frame in source) == 72
    assert not source.failure


def test_damage_in_the_middle_is_not_an_early_end(smile, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", smile)
    with av.open(str(clip)) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.pts]
    data = bytearray(clip.read_bytes())
    for at, size in places[30:40]:
        data[at : at + size] = b"\xff" * size
    clip.write_bytes(data)
    with VideoSource("clip.mp4", clip) as source:
        frames = [frame for frame in source if frame is not None]
    assert frames[-1].timestamp_ms == pytest.approx(71 * FRAME_MS, abs=2)
    assert re.fullmatch(r"clip.mp4 is damaged: 1\d of 72 frames could not be read", source.failure)


def test_quitting_early_ends_the_sound_with_the_picture(tmp_path, monkeypatch):
    keys = iter([""] * 30 + ["q"])

    class Window:
        def __enter__(self):
            return self

        def __exit__(self, *_): ...
        def show(self, image): ...
        def read_key(self, wait_s=0.0):
            return next(keys, "q") if wait_s else ""

    monkeypatch.setattr(command, "display_problem", lambda: "")
    monkeypatch.setattr(command, "Window", Window)
    command.main(
        command.build_parser().parse_args(["--source", str(SMILE), "--save", str(tmp_path / "s.mp4")])
    )
    with av.open(str(tmp_path / "s.mp4")) as file:
        assert 0.5 < file.duration / 1e6 < 1.2
        assert float(file.streams.audio[0].duration * file.streams.audio[0].time_base) < 1.2


FULL = {
    "file size limit": "ulimit -f 60; {run}",
    "full disk": "mount -t tmpfs -o size=60k none {folder} || exit 77; cp {old} {folder}/saved.mp4; {run}; "
    "status=$?; cmp {old} {folder}/saved.mp4 && [ $(ls -A {folder} | wc -l) = 1 ] || exit 99; exit $status",
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
@pytest.mark.parametrize("kind", FULL)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_full_disk_is_an_error_and_leaves_the_old_file(tmp_path, kind, suffix):
    folder, old = tmp_path / "disk", tmp_path / "old"
    folder.mkdir()
    old.write_bytes(b"an older video")
    saved = folder / f"saved{suffix}"
    shutil.copy(old, saved)
    command = f"{sys.executable} {ROOT}/scr/main.py --source {SMILE} --no-display --save {saved}"
    script = FULL[kind].replace("saved.mp4", saved.name).format(run=command, folder=folder, old=old)
    in_namespace = ["unshare", "--user", "--map-root-user", "--mount"] if kind == "full disk" else []
    try:
        done = subprocess.run(
            [*in_namespace, "bash", "-c", script], capture_output=True, text=True, timeout=200
        )
    except FileNotFoundError as missing:
        pytest.skip(f"{missing.filename} is not installed")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"a file system may not be mounted here: {done.stderr.strip()}")
    error = user_error(done)
    assert saved.name in error and ("No space left" in error or "File too large" in error)
    assert saved.read_bytes() == b"an older video" and len(list(folder.iterdir())) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no signals to a process")
def test_ctrl_c_completes_the_video_and_its_index(tmp_path):
    command = [
        sys.executable,
        ROOT / "scr/main.py",
        "--source",
        DEMO,
        "--no-display",
        "--save",
        tmp_path / "s.mp4",
    ]
    process = subprocess.Popen([*command, "--output", tmp_path / "rows.csv"], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
        (tmp_path / "rows.csv").exists() and (tmp_path / "rows.csv").stat().st_size > 5000
    ):
        time.sleep(0.05)
    process.send_signal(2)
    assert process.wait(60) == 130
    rows = read_rows(tmp_path / "rows.csv")
    assert 5 < len(stamps(tmp_path / "s.mp4")) <= len(rows)
    assert streams_of(tmp_path / "s.mp4") == {"video": "h264", "audio": "aac"}


def test_a_folder_of_pictures_and_videos_is_worked_through_in_order(smile, plain, tmp_path, capsys):
    folder = tmp_path / "mixed"
    (folder / "deep").mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), smile[0])
    shutil.copy(SMILE, folder / "b.mp4")
    (folder / "c.avi").write_bytes(b"no video at all")
    remux(SMILE, folder / "d.ts")
    write_clip(folder / "deep" / "e.mkv", smile[:10])
    cv2.imwrite(str(folder / "z.png"), smile[-1])
    demo("--source", folder, "--output", tmp_path / "rows.csv", "--save", tmp_path / "drawn")
    rows = read_rows(tmp_path / "rows.csv")
    names = [Path(row["source"]).relative_to(folder).as_posix() for row in rows]
    assert list(dict.fromkeys(names)) == ["a.png", "b.mp4", "c.avi", "d.ts", "deep/e.mkv", "z.png"]
    assert [names.count(name) for name in ("a.png", "b.mp4", "c.avi", "d.ts", "deep/e.mkv")] == [
        1,
        72,
        1,
        72,
        10,
    ]
    for name in ("b.mp4", "d.ts"):
        mine = [row for row, of in zip(rows, names) if of == name]
        assert [int(row["frame"]) for row in mine] == list(range(72)) and int(mine[0]["timestamp_ms"]) == 0
        assert sum(row["emotion"] == label for row, label in zip(mine, plain)) >= 68
        assert {row["face"] for row in mine} == {"0"}
    drawn = {path.relative_to(tmp_path / "drawn").as_posix() for path in (tmp_path / "drawn").rglob("*.*")}
    assert drawn == {"a.png", "b.mp4", "d.ts.mp4", "deep/e.mkv", "z.png"}
    assert len(stamps(tmp_path / "drawn" / "b.mp4")) == 72
    assert streams_of(tmp_path / "drawn" / "d.ts.mp4") == {"video": "h264", "audio": "aac"}
    assert "c.avi is not a video that can be read" in capsys.readouterr().err


def test_what_is_no_video_is_said_in_one_line_and_never_hangs(smile, tmp_path):
    song = tmp_path / "song.mp4"
    with av.open(str(SMILE)) as old, av.open(str(song), "w") as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(old.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    whole = SMILE.read_bytes()
    broken = {
        "empty": b"",
        "noise": np.random.default_rng(0).bytes(9000),
        "text": b"hello world\n" * 900,
        "head": whole[:4000],
    }
    for name, data in broken.items():
        (tmp_path / f"{name}.mp4").write_bytes(data)
    with pytest.raises(UserError, match="song.mp4 holds no video"):
        open_source(str(song))
    for name in broken:
        with pytest.raises(UserError, match=f"{name}.mp4"):
            with open_source(str(tmp_path / f"{name}.mp4")) as source:
                list(source)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_no_video(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        open_source(str(tmp_path / "pipe.mp4"))


def test_a_video_with_damaged_packets_gives_the_frames_that_are_whole(smile, tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", smile)
    data = bytearray(clip.read_bytes())
    generator = np.random.default_rng(1)
    for at in generator.integers(len(data) // 3, len(data), 60):
        data[at] ^= 0xFF
    (tmp_path / "hurt.mkv").write_bytes(data)
    with open_source(str(tmp_path / "hurt.mkv")) as source:
        frames = [frame for frame in source if frame is not None]
    assert 15 < len(frames) <= 72 and min(np.diff([frame.timestamp_ms for frame in frames])) > 0


def test_a_playlist_under_a_video_s_name_reaches_nothing(tmp_path):
    asked = []
    with server(lambda handler: asked.append(handler.path)) as port:
        (tmp_path / "list.mp4").write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n"
        )
        with pytest.raises(UserError, match="list.mp4"):
            with open_source(str(tmp_path / "list.mp4")) as source:
                list(source)
    assert asked == []


class server:
    """A local HTTP server that answers GET by a function; a context manager that gives its port."""

    def __init__(self, answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self)

            def log_message(self, *_): ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def __enter__(self) -> int:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self._server.server_port

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no signals to a process")
def test_a_stream_that_is_cut_comes_back(smile, tmp_path):
    """The user has a proxy that does not answer, and an exception for the camera's host."""
    jpegs = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in smile[:40]]
    connections = []

    def answer(handler):
        """As an IP camera: pictures without end; the first three connections are cut after some."""
        connections.append(handler.path)
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        for number in range(30 if len(connections) < 3 else 10_000):
            jpeg = jpegs[number % len(jpegs)]
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            try:
                handler.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:
                return
            time.sleep(0.03)

    with server(answer) as port:
        command = [sys.executable, ROOT / "scr/main.py", "--no-display", "--output", tmp_path / "rows.csv"]
        process = subprocess.Popen(
            [*command, "--source", f"http://127.0.0.1:{port}/video"],
            env=os.environ | {"http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1,localhost"},
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 90
        while len(connections) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1.5)
        process.send_signal(2)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert len(connections) >= 3 and said.count("is back") >= 2 and said.count("is lost, trying again") >= 2
    assert len(read_rows(tmp_path / "rows.csv")) > 20


def test_a_file_behind_an_address_is_read_whole():
    data = SMILE.read_bytes()

    def answer(handler):
        start = int((handler.headers["Range"] or "bytes=0-").removeprefix("bytes=").split("-")[0])
        handler.send_response(206)
        handler.send_header("Accept-Ranges", "bytes")
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        with contextlib.suppress(OSError):  # the reader leaves to read elsewhere
            handler.wfile.write(data[start:])

    with server(answer) as port, open_source(f"http://127.0.0.1:{port}/smile.mp4") as source:
        assert source.kind == "video" and sum(frame is not None for frame in source) == 72


def test_a_server_without_ranges_is_not_taken_for_damage(tmp_path):
    """Its file begins with the pictures: where they are is written at the end."""

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(SMILE.stat().st_size))
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(SMILE.read_bytes())

    with server(answer) as port:
        with pytest.raises(UserError, match="may not give parts of a file; download it first"):
            open_source(f"http://127.0.0.1:{port}/smile.mp4")


def test_memory_stays_flat(smile, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", smile * 2)
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("needs /proc")
    sizes = []
    for _ in range(6):
        with VideoSource("clip", clip) as source:
            assert sum(frame is not None for frame in source) == 144
        sizes.append(int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6)
    assert sizes[-1] - sizes[1] < 30, sizes


def test_folder_names_its_files_as_given(smile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("clips")
    write_clip("clips/a.mp4", smile[:3])
    with FolderSource("clips/", Path("clips")) as source:
        assert {frame.source for frame in source if frame is not None} == {os.path.join("clips/", "a.mp4")}

"""Live demo: camera, video, picture or folder of pictures -> window, annotated video, table of emotions.

    python scr/main.py
    python scr/main.py --source clip.mp4 --no-display --save annotated.mp4 --output emotions.csv

Keys: q or Esc quits, m mirrors, l shows the landmarks, n takes a second of your neutral face as reference (again: without
it), h helps, s saves a picture, space goes to the next picture.
Videos and cameras are smoothed in time and may be `uncertain`; the rows of still pictures are neither.
"""

import signal
import time
from argparse import BooleanOptionalAction
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from utils.config import (
    DATA,
    MODELS,
    UserError,
    add_share_flag,
    make_parser,
    note,
    positive_int,
    relative,
    run_script,
)

SNAPSHOTS = DATA / "snapshots"


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument(
        "--source", default="0", help="camera number, video, picture, folder of pictures, or stream address"
    )
    parser.add_argument(
        "--model",
        default=str(MODELS),
        help="a .tflite file, a bundle's folder, or the name of a personal model",
    )
    parser.add_argument("--no-display", action="store_true", help="open no window")
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FILE",
        help="write what is shown: a video, a picture, or for a folder a folder",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write a row for each face and frame: .csv or .jsonl"
    )
    parser.add_argument(
        "--max-faces", type=positive_int, default=1, metavar="N", help="faces to read, the largest first"
    )
    parser.add_argument(
        "--smoothing-ms",
        type=float,
        default=300,
        metavar="MS",
        help="time constant of the smoothing; 0: none",
    )
    parser.add_argument(
        "--calibrate", action="store_true", help="first take a second of the face as its own neutral (key n)"
    )
    parser.add_argument(
        "--subject",
        metavar="NAME",
        help="use the neutral face kept of NAME, and keep it when it is taken (data/personal/NAME)",
    )
    parser.add_argument(
        "--mirror", action=BooleanOptionalAction, help="mirror what is shown (default: cameras only)"
    )
    camera = parser.add_argument_group("camera")
    camera.add_argument(
        "--camera-backend",
        default="auto",
        metavar="NAME",
        choices=("auto", "any", "v4l2", "dshow", "msmf", "avfoundation", "gstreamer"),
        help="auto, any, v4l2, dshow, msmf, avfoundation or gstreamer",
    )
    camera.add_argument("--width", type=positive_int, metavar="PX", help="ask the camera for this width")
    camera.add_argument("--height", type=positive_int, metavar="PX", help="ask the camera for this height")
    camera.add_argument("--fps", type=positive_int, metavar="FPS", help="ask the camera for this frame rate")
    camera.add_argument("--list-cameras", action="store_true", help="list the cameras and end")
    parser.add_argument("--doctor", action="store_true", help="print what a bug report needs and end")
    add_share_flag(parser)
    return parser


def main(args):
    from utils.live.capture import DEMO_CLIP, CameraSettings, list_cameras, open_source

    if args.list_cameras:
        return print("\n".join(list_cameras()) or "no camera found")
    if args.doctor:
        return print_diagnosis(args.model)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` and `timeout` end a run as Ctrl-C does
    check_output(args)
    settings = CameraSettings(args.camera_backend, args.width, args.height, args.fps)
    with open_source(args.source, settings, demo=DEMO_CLIP if args.source == "0" else None) as source:
        check_save(args.save, source)
        tell_news(source)
        with Demo(args, source) as demo:
            demo.run()
    demo.print_summary()
    if demo.interrupted:
        raise KeyboardInterrupt
    if source.failure and source.live:
        raise UserError(source.failure)
    if args.calibrate and demo.reader.taker and not source.live:
        raise UserError(
            "no neutral face was taken: that needs a face on a whole second of the video, from its first face on"
        )


def check_output(args) -> None:
    """Refuse a name for results that would fail only after the work."""
    from utils.live.results import check_name

    if args.output:
        check_name(args.output)


def check_save(save: Path | None, source) -> None:
    """Refuse a name for the annotated picture or video that does not fit the source, or is the source."""
    from utils.faces.images import IMAGE_SUFFIXES
    from utils.live.video_writer import CODECS

    if save is None:
        return
    if source.kind == "folder" and (save.suffix or save.is_file()):
        raise UserError(f"--save {save}: for a folder of pictures, name a folder")
    wanted = {"folder": {""}, "picture": IMAGE_SUFFIXES}.get(source.kind, set(CODECS))
    if save.suffix.lower() not in wanted:
        raise UserError(
            f"--save {save}: for a {source.kind}, end the name in {' or '.join(sorted(wanted)[:4])}"
        )
    if save.resolve() == Path(source.name).resolve():
        raise UserError(f"--save {save} is the source itself; choose another name")


def tell_news(source) -> None:
    """Tell the user what happened to the source."""
    while source.news:
        note(source.news.popleft())


class Demo:
    """One run from a source to window and files; a context manager. `step` is the way of a frame, top to bottom."""

    def __init__(self, args, source):
        self.args, self.source = args, source
        self.still = source.kind in ("picture", "folder")
        self.frames = self.faces = self.frames_with_face = 0
        self.interrupted = False
        self._stack = ExitStack()
        self._fps = 0.0
        self._last = None

    def __enter__(self) -> "Demo":
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def _open(self, stack: ExitStack) -> None:
        from utils.live.display import View
        from utils.live.face_reader import FaceReader
        from utils.live.results import ResultWriter
        from utils.live.video_writer import VideoRecorder

        args, source = self.args, self.source
        self.reader = stack.enter_context(
            FaceReader(args.model, self.still, args.max_faces, args.smoothing_ms, args.subject)
        )
        self._begin_neutral()
        classifier = self.reader.classifier
        self.results = (
            stack.enter_context(ResultWriter(args.output, classifier.classes)) if args.output else None
        )
        self.recorder = (
            stack.enter_context(VideoRecorder(args.save, source.fps, source.live))
            if args.save and not self.still
            else None
        )
        self.window = None if args.no_display else open_window(stack)
        self.view = View(
            classifier.classes, classifier.name, source.live if args.mirror is None else args.mirror
        )

    def _begin_neutral(self) -> None:
        if (self.args.calibrate or self.args.subject is not None) and (
            problem := self.reader.neutral_problem()
        ):
            raise UserError(problem)
        if self.args.calibrate:
            self.reader.take_neutral()
        elif self.args.subject is not None:
            self.reader.load_neutral()

    def __exit__(self, *exception) -> None:
        self._stack.__exit__(*exception)

    def run(self) -> None:
        """Work through the source until it ends or the user does; Ctrl-C ends it in order, with all files complete."""
        self._start = self._stepped = time.perf_counter()
        try:
            for frame in self.source:
                tell_news(self.source)
                if not (self.idle() if frame is None else self.step(frame)):
                    break
        except KeyboardInterrupt:
            self.interrupted = True
        tell_news(self.source)
        self.seconds = time.perf_counter() - self._start

    def step(self, frame) -> bool:
        """Read, write and show a frame; return whether to go on."""
        start = time.perf_counter()
        readings = self.reader.read(frame) if frame.image is not None else []
        self._count(readings)
        if self.results:
            self.results.write(frame.source, frame.index, frame.timestamp_ms, readings)
        if frame.image is None:
            note(f"{frame.source}: not a picture that can be read")
            return True
        if not (self.args.save or self.window):
            return True
        now = time.perf_counter()
        self._fps += (1 / max(now - self._stepped, 1e-6) - self._fps) * (0.05 if self.frames > 10 else 0.5)
        self._stepped = now
        latency_s = time.monotonic() - frame.captured if self.source.live else now - start
        self._last = (frame, readings, latency_s * 1000)
        image = self._draw()
        if self.args.save:
            self._save(image, frame)
        return self._show(image, frame) if self.window else True

    def _draw(self):
        frame, readings, latency_ms = self._last
        self.view.neutral = (
            "neutral face: hold still"
            if self.reader.taker
            else "own neutral face: on"
            if self.reader.offset is not None
            else ""
        )
        if self.still:
            return self.view.draw(frame.image, readings, caption=Path(frame.source).name)
        return self.view.draw(
            frame.image, readings, frame.timestamp_ms, self._fps, latency_ms, self.source.message
        )

    def _count(self, readings: list) -> None:
        self.frames += 1
        self.faces += len(readings)
        self.frames_with_face += bool(readings)

    def _save(self, image, frame) -> None:
        from utils.live.video_writer import write_picture

        if self.recorder:
            self.recorder.write(image, frame.timestamp_ms)
        elif self.source.kind == "folder":
            write_picture(self.args.save / Path(frame.source).relative_to(self.source.name), image)
        else:
            write_picture(self.args.save, image)

    def _show(self, image, frame) -> bool:
        """Show a picture and obey the keys: videos keep their pace, stills wait for a key unless they are written."""
        self.window.show(image)
        if self.still and not (self.args.save or self.args.output):
            while (key := self.window.read_key(0.05)) != "space":
                if not self._press(key):
                    return False
                if key:
                    self.window.show(self._draw())
            return True
        ahead = (
            0
            if self.source.live or self.still
            else self._start + frame.timestamp_ms / 1000 - time.perf_counter()
        )
        return self._press(self.window.read_key(max(0.001, ahead)))

    def idle(self) -> bool:
        """Look after the window and the user while there is no new frame; return whether to go on."""
        if self.window is None:
            return True
        if self.source.message and self._last:
            self._last = (self._last[0], [], self._last[2])
            self.window.show(self._draw())
        return self._press(self.window.read_key())

    def _press(self, key: str) -> bool:
        if key in ("q", "esc", "closed"):
            return False
        if key == "s" and self._last:
            self.save_snapshot()
        if key == "n":
            self._toggle_neutral()
        self.view.press(key)
        return True

    def _toggle_neutral(self) -> None:
        if problem := self.reader.neutral_problem():
            self.view.say(problem)
        elif self.reader.taker or self.reader.offset is not None:
            self.reader.drop_neutral()
        else:
            self.reader.take_neutral()

    def save_snapshot(self) -> None:
        """Write what is shown to data/snapshots."""
        from utils.live.video_writer import write_picture

        path = SNAPSHOTS / f"{time.strftime('%Y%m%d-%H%M%S')}-{self.frames:05}.png"
        write_picture(path, self._draw())
        note(f"saved {relative(path)}")
        self.view.say("picture saved")

    def print_summary(self) -> None:
        """Print what was seen, how fast, and where it was written."""
        what = "pictures" if self.still else "frames"
        print(
            f"{self.frames} {what} in {self.seconds:.1f} s ({self.frames / max(self.seconds, 1e-6):.0f} a second), "
            f"{self.faces} faces on {self.frames_with_face} of them"
        )
        if self.source.failure and not self.source.live:
            note(self.source.failure)
        for path in (self.args.output, self.args.save):
            if path and path.exists():
                print(f"written: {relative(path)}")


def open_window(stack: ExitStack):
    """Return a window, or None with a note if there is no display."""
    from utils.live.display import Window, display_problem

    if problem := display_problem():
        note(f"no display ({problem}): going on without a window")
        return None
    return stack.enter_context(Window())


def print_diagnosis(model: str) -> None:
    """Print what a bug report needs, and try the landmarker and the network."""
    from utils.faces.landmarks import FaceLandmarker
    from utils.learning.classifier import EmotionClassifier
    from utils.live.capture import list_cameras
    from utils.live.display import display_problem, opencv_build
    from utils.live.doctor import diagnose

    def try_landmarker() -> str:
        with FaceLandmarker() as landmarker:
            return (
                f"works, {len(landmarker.detect(np.zeros((64, 64, 3), np.uint8)))} faces on a black picture"
            )

    def try_network() -> str:
        classifier = EmotionClassifier(model)
        return f"{classifier.name} reads {', '.join(classifier.classes)}; uncertain under {classifier.threshold:.2f}"

    print(
        diagnose(
            display_problem(),
            opencv_build(),
            list_cameras(),
            {"landmarker": try_landmarker, "network": try_network},
        )
    )


if __name__ == "__main__":
    run_script(main, build_parser())

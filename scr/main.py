"""Live demo: camera, video, picture or folder of pictures -> window, annotated video, table of emotions.

    python scr/main.py
    python scr/main.py --source clip.mp4 --no-display --save annotated.mp4 --output emotions.csv

Keys: q or Esc quits, m mirrors, l shows the landmarks, n takes a second of your neutral face as baseline
(again: without it), h helps, s saves a picture, space goes to the next picture.
Videos and cameras are smoothed in time and may be `uncertain`; the rows of still pictures are neither.
"""

from utils.cli import add_trust_flag, make_parser, number, positive_int, run_script

import os
import time
from argparse import BooleanOptionalAction
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path

from utils.config import MODELS, UserError, note


def build_parser():
    parser = make_parser(__doc__, "--source")
    parser.add_argument(
        "--source", default="0", help="camera number, video, picture, folder of pictures, or stream address"
    )
    parser.add_argument(
        "--model",
        default=str(MODELS),
        help="a .tflite file, a bundle's folder, the name of a personal model, or a network of the shipped "
        "model: landmarks, crop or hybrid",
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
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw what was read: .png or .html; over time for videos, counted by class for pictures",
    )
    parser.add_argument(
        "--max-faces",
        type=positive_int,
        metavar="N",
        help="faces to read, the largest first (default: all of a still picture, one of a video or camera)",
    )
    parser.add_argument(
        "--jobs",
        type=positive_int,
        metavar="N",
        help="processes that read a folder's pictures (default: one for each core, one with a window)",
    )
    parser.add_argument(
        "--smoothing-ms",
        type=number(0, 60_000),
        default=300,
        metavar="MS",
        help="time constant of the smoothing; 0: none",
    )
    parser.add_argument(
        "--calibrate", action="store_true", help="first take a second of the face as neutral baseline (key n)"
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
    parser.add_argument("--version", action="store_true", help="print version and commit, and end")
    parser.add_argument("--doctor", action="store_true", help="print what a bug report needs and end")
    add_trust_flag(parser)
    return parser


def main(args):
    from utils.app.outputs import check_save
    from utils.app.plot import check_plot
    from utils.app.table import check_name
    from utils.model.bundle import find_model
    from utils.video.camera import CameraSettings, list_cameras
    from utils.video.sources import DEMO_CLIP, open_source

    if args.version:
        return print_version()
    if args.list_cameras:
        return print("\n".join(list_cameras()) or "no camera found")
    if args.doctor:
        return print_diagnosis(args.model)
    if args.output:
        check_name(args.output)
    if args.plot:
        check_plot(args.plot)
    find_model(args.model)  # before a camera is opened in vain
    settings = CameraSettings(args.camera_backend, args.width, args.height, args.fps)
    demo = DEMO_CLIP if args.source == "0" else None
    outputs = [path for path in (args.save, args.output, args.plot) if path]
    with open_source(args.source, settings, demo, outputs) as source:
        check_save(args.save, source)
        tell_news(source)
        with Demo(args, source) as demo:
            demo.run()
    demo.summary.print(demo.seconds, "" if source.live else source.failure, demo.outputs.paths)
    if demo.interrupted:
        raise KeyboardInterrupt
    if source.failure and source.live:
        raise UserError(source.failure)
    if demo.summary.read_nothing:
        raise UserError(f"nothing in {source.name} can be read; choose another folder")
    if args.calibrate and demo.reader.taker and not source.live:
        raise UserError(
            "no neutral face was taken: that needs a face on a whole second of the video, "
            "from its first face on"
        )


def print_version() -> None:
    """Print version and commit."""
    from utils.app.doctor import version

    print(version())


def print_diagnosis(model: str) -> None:
    """Print what a bug report needs, and try the landmarker and the network."""
    from utils.app.doctor import diagnose

    print(diagnose(model))


def tell_news(source) -> None:
    """Tell the user what happened to the source."""
    while source.news:
        note(source.news.popleft())


class Demo:
    """One run from a source to window and files; a context manager. `step` is the way of a frame."""

    def __init__(self, args, source):
        self.args, self.source = args, source
        self.still = source.kind in ("picture", "folder")
        self.interrupted = False
        self._stack = ExitStack()

    def __enter__(self) -> "Demo":
        from utils.app.outputs import Outputs
        from utils.app.pipeline import FaceReader
        from utils.app.screen import Screen
        from utils.app.summary import Summary

        args, source = self.args, self.source
        with ExitStack() as stack:
            self.reader = stack.enter_context(
                FaceReader(
                    args.model,
                    self.still,
                    args.max_faces,
                    args.smoothing_ms,
                    args.subject,
                    keeps=not source.is_demo,
                )
            )
            self.reader.begin_neutral(args.calibrate)
            classes = self.reader.classifier.classes
            self.outputs = stack.enter_context(Outputs(source, classes, args.output, args.save, args.plot))
            mirror = source.live if args.mirror is None else args.mirror
            waits = not (args.save or args.output or args.plot)
            self.screen = stack.enter_context(Screen(source, self.reader, mirror, not args.no_display, waits))
            self.draws = bool(args.save or self.screen.window)
            stack.enter_context(self._share_out_pictures())
            source.loops = source.is_demo and bool(self.screen.window) and waits
            self.summary = Summary(source, bool(self.screen.window))
            self._stack = stack.pop_all()
        return self

    def _share_out_pictures(self):
        """Return a context in which other processes read the pictures: one may kill its process."""
        from utils.app.still_workers import FEWEST_PICTURES, read_pictures

        args, source = self.args, self.source
        if not self.still or not source.pictures:
            return nullcontext()
        few = len(source.pictures) < FEWEST_PICTURES
        jobs = 1 if few else args.jobs or (1 if self.screen.window else os.cpu_count())
        images = bool(self.draws or args.plot)
        source.readers = read_pictures(source.pictures, args.model, args.max_faces, jobs, images)
        return closing(source.readers)

    def __exit__(self, *exception) -> None:
        self._stack.__exit__(*exception)

    def run(self) -> None:
        """Work through the source until it ends or the user does; Ctrl-C ends it with all files complete."""
        start = time.perf_counter()
        try:
            with self.frames() as frames:
                for frame, found in frames:
                    tell_news(self.source)
                    if not (self.screen.idle() if frame is None else self.step(frame, found)):
                        break
        except KeyboardInterrupt:
            self.interrupted = True
        tell_news(self.source)
        self.seconds = time.perf_counter() - start

    @contextmanager
    def frames(self):
        """Yield frames with their faces: while one is read and drawn, faces are found on the next one, and a
        video's next but one is decoded."""
        from utils.app.look_ahead import LookAhead

        frames = self.source
        if self.still and not self.draws:
            yield ((frame, self.find(frame)) for frame in frames)
            return
        with ExitStack() as stack:
            if self.source.kind == "video":
                decoded = stack.enter_context(LookAhead(frames, lambda frame: None))
                frames = (frame for frame, _ in decoded)
            yield stack.enter_context(LookAhead(frames, self.find))

    def find(self, frame) -> tuple[list, float]:
        """Return the faces of a video's frame and the seconds it took; still pictures are read as a whole."""
        start = time.perf_counter()
        still = frame is None or frame.image is None or frame.still
        return [] if still else self.reader.find(frame), time.perf_counter() - start

    def step(self, frame, found: tuple[list, float]) -> bool:
        """Read, write and show a frame on which faces were found; return whether to go on."""
        start = time.perf_counter()
        readings = self.read(frame, found[0])
        self.summary.count(frame, readings)
        self.outputs.write_rows(frame, readings)
        if frame.problem:
            note(frame.problem)
        elif self.draws:
            image = self.screen.draw(frame, readings, found[1] + time.perf_counter() - start)
            self.outputs.write_image(frame, image)
            return self.screen.show(image, frame)
        return True

    def read(self, frame, faces: list) -> list:
        """Return the readings of a frame's faces."""
        if frame.problem:
            return []
        if frame.readings is not None:
            return frame.readings
        return self.reader.read_still(frame) if frame.still else self.reader.read(frame, faces)


if __name__ == "__main__":
    run_script(main, build_parser())

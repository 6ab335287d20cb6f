"""Live demo: camera, video, picture or folder of pictures -> window, annotated video, table of emotions.

    python scr/main.py
    python scr/main.py --source clip.mp4 --no-display --save annotated.mp4 --output emotions.csv

Keys: q or Esc quits, m mirrors, l shows the landmarks, h helps, s saves a picture, space goes to the next
picture. Videos and cameras are smoothed in time. A face of which the model is not sure is `uncertain`.
"""

from utils.cli import add_trust_flag, make_parser, number, positive_int, run_script

import os
import sys
import time
from argparse import BooleanOptionalAction
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from utils.config import MODELS, UserError, note, relative


def build_parser():
    parser = make_parser(__doc__, "--source")
    parser.add_argument(
        "--source",
        help="camera number, video, picture, folder of pictures, numbered pictures (img%%03d.png), or stream "
        "address (default: camera 0; without one a clip that comes along)",
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
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw what was read as a .png: over time for videos, counted by class for pictures",
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
        metavar="MS",
        help="time constant of the smoothing of videos and cameras; 0: none (default: 300)",
    )
    parser.add_argument(
        "--mirror", action=BooleanOptionalAction, help="mirror what is shown (default: cameras only)"
    )
    table = parser.add_argument_group("table")
    table.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write a row for each face and frame: .csv, .jsonl, or - for CSV on standard output",
    )
    table.add_argument("--append", action="store_true", help="add to the rows that FILE has")
    table.add_argument(
        "--delimiter", choices=(",", ";", "tab"), metavar="CHAR", help="of columns: , (default), ; or tab"
    )
    table.add_argument("--decimal", choices=(".", ","), metavar="CHAR", help="of numbers: . (default) or ,")
    camera = parser.add_argument_group("camera")
    camera.add_argument(
        "--camera-backend",
        metavar="NAME",
        choices=("auto", "any", "v4l2", "dshow", "msmf", "avfoundation", "gstreamer"),
        help="auto (default), any, v4l2, dshow, msmf, avfoundation or gstreamer",
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
    from utils.app.doctor import diagnose, version
    from utils.app.table import check_names
    from utils.model.bundle import find_model
    from utils.video.camera import list_cameras

    if args.version:
        return print(version())
    if args.list_cameras:
        return print("\n".join(list_cameras()) or "no camera found")
    if args.doctor:
        return print(diagnose(args.model))
    check_names(args.output, args.plot)
    find_model(args.model)  # before a camera is opened in vain
    interrupted = False
    with ExitStack() as stack:
        source = stack.enter_context(open_input(args))
        check_options(args, source)
        demo = open_demo(args, source, stack)
        start = time.perf_counter()
        try:
            demo.run(source, args.jobs)
        except KeyboardInterrupt:  # all files are completed
            interrupted = True
        seconds = time.perf_counter() - start
    report(demo, seconds, source)
    if interrupted:
        raise KeyboardInterrupt
    if source.failure and source.live:
        raise UserError(source.failure)
    if demo.summary.read_nothing:
        raise UserError(f"nothing in {source.name} can be read; choose another folder")


def open_input(args):
    """Return the source that was named, or else the camera; the bundled clip is for a bare `main.py`."""
    from utils.video.camera import CameraSettings
    from utils.video.sources import DEMO_CLIP, open_source

    asks = (args.source, args.save, args.output, args.plot, *camera_options(args).values())
    is_bare = not args.no_display and all(value is None for value in asks)
    settings = CameraSettings(args.camera_backend or "auto", args.width, args.height, args.fps)
    folders = [args.save] if args.save and args.save.is_dir() else []  # of an earlier run: not read
    return open_source(args.source or "0", settings, DEMO_CLIP if is_bare else None, folders)


def camera_options(args) -> dict:
    """Return the options that only a camera knows, and what was given for them."""
    return {
        "--camera-backend": args.camera_backend,
        "--width": args.width,
        "--height": args.height,
        "--fps": args.fps,
    }


def check_options(args, source) -> None:
    """Raise UserError for an option that does nothing with this source and these outputs."""
    is_csv = args.output and args.output.suffix.lower() != ".jsonl"
    has_videos = source.kind not in ("picture", "folder") or any(not file.is_picture for file in source.files)
    idle = camera_options(args) if source.kind != "camera" else {}
    idle |= {"--jobs": args.jobs} if source.kind != "folder" else {}
    idle |= {"--smoothing-ms": args.smoothing_ms} if not has_videos else {}
    idle |= {"--mirror": args.mirror} if args.no_display and not args.save else {}
    for option, value in idle.items():
        if value is not None:
            raise UserError(f"{option} does nothing for this {source.kind} and these outputs; leave it out")
    if (args.delimiter or args.decimal) and not is_csv:
        raise UserError("--delimiter and --decimal are for --output FILE.csv; leave them out")
    if args.append and str(args.output or "-") == "-":
        raise UserError("--append is for --output FILE; leave it out")


def open_demo(args, source, stack) -> "Demo":
    """Return what the arguments ask for, closed with the stack; raises UserError before a file is touched."""
    from utils.app.pipeline import FaceReader
    from utils.app.smoothing import TIME_CONSTANT_MS
    from utils.app.summary import Summary
    from utils.app.table import Outputs

    outputs = Outputs(source, args.output, args.save, args.plot)
    smoothing_ms = TIME_CONSTANT_MS if args.smoothing_ms is None else args.smoothing_ms
    reader = FaceReader(args.model, args.max_faces, smoothing_ms)
    stack.enter_context(outputs.open(reader.classifier.classes, table_format(args)))
    view, window = open_view(args, source, reader.classifier, stack)
    return Demo(reader, outputs, Summary(source, bool(window)), view, window)


def table_format(args):
    """Return how the table is written."""
    from utils.app.table import TableFormat

    delimiter, decimal = args.delimiter or ",", args.decimal or "."
    if delimiter == decimal:
        raise UserError("a comma between columns and in numbers can't be told apart; add: --delimiter ';'")
    return TableFormat("\t" if delimiter == "tab" else delimiter, decimal, args.append)


def open_view(args, source, classifier, stack):
    """Return what draws the frames, and the window that shows them; None where nothing is drawn or shown."""
    from utils.app.windows.live_view import LiveWindow, View
    from utils.app.windows.window import Window, display_problem
    from utils.model.bundle import NAME

    problem = display_problem() if not args.no_display else ""
    if problem:
        note(f"no display ({problem}): going on without a window")
    has_window = not args.no_display and not problem
    if not (has_window or args.save):
        return None, None
    mirror = source.live if args.mirror is None else args.mirror
    view = View(classifier.classes, "" if classifier.name == NAME else classifier.name, mirror)
    if not has_window:
        return view, None
    source.loops = True  # the clip, in a window
    waits = not (args.save or args.output or args.plot)
    return view, LiveWindow(view, stack.enter_context(Window()), source, waits)


def tell_news(source) -> None:
    """Tell the user what happened to the source."""
    while source.news:
        note(source.news.popleft())


def report(demo: "Demo", seconds: float, source) -> None:
    """Print what was seen and what was written; on stderr if the table went to stdout."""
    place = sys.stderr if demo.outputs.to_stdout else sys.stdout
    first, *others = demo.summary.lines(seconds) or [""]
    if first:
        print(first, file=place)
    if source.failure and not source.live:
        note(source.failure)
    for path in demo.outputs.paths:
        if path.exists():
            print(f"written: {relative(path)}", file=place)
    for line in others:
        print(line, file=place)


@dataclass
class Demo:
    """A run: what reads faces, and where they go; view and window are None if nothing is drawn or shown."""

    reader: object
    outputs: object
    summary: object
    view: object | None
    window: object | None

    def run(self, source, jobs: int | None = None) -> None:
        """Work through a source until it or the user ends; jobs: processes that read pictures."""
        if source.kind in ("picture", "folder"):
            self.run_files(source, jobs)
        else:
            self.run_video(source)
        tell_news(source)

    def run_files(self, source, jobs: int | None) -> None:
        """Go through pictures and videos in their order until they end or the user does."""
        from utils.app.pipeline import read_pictures

        pictures = [file for file in source.files if file.is_picture]
        jobs = jobs or (1 if self.window else os.cpu_count())
        images = bool(self.view or self.outputs.plot)
        with closing(read_pictures(self.reader, pictures, jobs, images)) as results:
            for file in source.files:
                tell_news(source)
                result = next(results) if file.is_picture else None
                if result and result.problem and source.kind == "picture":
                    raise UserError(f"{result.problem}; choose another")
                if not (self.take_picture(result) if result else self.run_video_file(file)):
                    return

    def take_picture(self, result) -> bool:
        """Write and show what was read from a file; return whether to go on."""
        self.summary.add_picture(result)
        self.outputs.add_picture(result)
        if result.problem:
            note(result.problem)
        elif self.view:
            image = self.view.draw(result.image, result.faces, caption=Path(result.name).name)
            self.outputs.save_picture(result.name, image)
            return not self.window or self.window.show_picture(result.faces)
        return True

    def run_video_file(self, file) -> bool:
        """Go through a video of a folder; return whether to go on."""
        from utils.app.pipeline import PictureResult
        from utils.video.sources import VideoSource

        try:
            video = VideoSource(file.name, file.path)
        except UserError as error:
            return self.take_picture(PictureResult(file.name, problem=str(error)))
        with video:
            goes_on = self.run_video(video)
        if video.failure:
            note(video.failure)
        return goes_on

    def run_video(self, source) -> bool:
        """Go through frames until they end or the user does; return whether to go on."""
        from utils.app.pipeline import read_video

        with closing(read_video(self.reader, source)) as frames:
            for frame, faces in frames:
                tell_news(source)
                if frame is None:
                    goes_on = not self.window or self.window.idle()
                else:
                    goes_on = self.take_frame(source, frame, faces)
                if not goes_on:
                    return False
        return True

    def take_frame(self, source, frame, faces: list) -> bool:
        """Write and show what was read from a frame; return whether to go on."""
        self.summary.add_frame(frame, faces)
        self.outputs.add_frame(frame, faces)
        if self.view:
            image = self.view.draw(frame.image, faces, frame.timestamp_ms)
            self.outputs.save_frame(source, frame, image)
        return not self.window or self.window.show_frame(frame, faces)


if __name__ == "__main__":
    run_script(main, build_parser())

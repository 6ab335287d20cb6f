"""Live demo: camera, video, picture or folder of pictures -> window, annotated video, table of emotions.

    python scr/main.py
    python scr/main.py --source clip.mp4 --no-display --save annotated.mp4 --output emotions.csv

Keys: q or Esc quits, m mirrors, l shows the landmarks, h helps, s saves a picture, space goes to the next
picture. Videos and cameras are smoothed in time. A face of which the model is not sure is `uncertain`.
"""

from utils.cli import add_trust_flag, make_parser, number, positive_int, refuse_idle, run_script

import os
import sys
import time
from argparse import BooleanOptionalAction
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from utils.app.doctor import diagnose, version
from utils.app.pipeline import FaceReader, PictureResult, read_pictures, read_video
from utils.app.results.outputs import Outputs, check_names
from utils.app.results.summary import Summary
from utils.app.results.table import STDOUT, TableFormat
from utils.app.smoothing import TIME_CONSTANT_MS
from utils.app.web_page import show_page
from utils.app.windows.live_view import LiveWindow, View
from utils.app.windows.window import Window, display_problem
from utils.config import MODELS, UserError, note, relative
from utils.model.bundle import NAME, find_model
from utils.video.camera import CameraSettings, list_cameras
from utils.video.frames import Source
from utils.video.sources import DEMO_CLIP, VideoSource, open_source

OF_CAMERAS = ("camera_backend", "width", "height", "fps")
"""Options that only cameras know."""


def build_parser():
    parser = make_parser(__doc__, "--source")
    add = parser.add_argument
    source = "camera number, video, picture, folder, numbered pictures (img%%03d.png) or stream address"
    add("--source", help=f"{source} (default: camera 0, or a clip that comes along)")
    model = "a .tflite file, a model's folder, name, or network (landmarks, crop, hybrid, FOLDER:NETWORK)"
    add("--model", default=str(MODELS), help=model)
    add("--no-display", action="store_true", help="open no window")
    add(
        "--save",
        type=Path,
        metavar="FILE",
        help="write what is shown: a video, a picture, for a folder a folder",
    )
    add("--plot", type=Path, metavar="FILE", help="draw a .png: videos over time, pictures counted by class")
    faces = "faces to read, the largest first (default: all of a still picture, one of a video or camera)"
    add("--max-faces", type=positive_int, metavar="N", help=faces)
    jobs = "processes that read a folder's pictures (default: one for each core, one with a window)"
    add("--jobs", type=positive_int, metavar="N", help=jobs)
    smoothing = "time constant of the smoothing in videos; 0: none (default: 300)"
    add("--smoothing-ms", type=number(0, 60_000), metavar="MS", help=smoothing)
    add("--mirror", action=BooleanOptionalAction, help="mirror what is shown (default: cameras only)")
    add("--page", action="store_true", help="read faces on a page in the browser, which runs on this machine")
    add("--version", action="store_true", help="print version and commit, and end")
    add("--doctor", action="store_true", help="print what a bug report needs and end")
    add_trust_flag(parser)
    add = parser.add_argument_group("table").add_argument
    output = "write a row for each face and frame: .csv, .jsonl, or - for CSV on standard output"
    add("--output", type=Path, metavar="FILE", help=output)
    add("--append", action="store_true", default=None, help="add to the rows that FILE has")
    add("--delimiter", choices=(",", ";", "tab"), help="between columns (default: ,)")
    add("--decimal", choices=(".", ","), help="of numbers (default: .)")
    add = parser.add_argument_group("camera").add_argument
    backends = ("auto", "any", "v4l2", "dshow", "msmf", "avfoundation", "gstreamer")
    add("--camera-backend", choices=backends, help="default: auto")
    add("--width", type=positive_int, metavar="PX", help="ask the camera for this width")
    add("--height", type=positive_int, metavar="PX", help="ask the camera for this height")
    add("--fps", type=positive_int, metavar="FPS", help="ask the camera for this frame rate")
    add("--list-cameras", action="store_true", help="list the cameras and end")
    return parser


def main(args):
    if args.version:
        return print(version())
    if args.list_cameras:
        return print("\n".join(list_cameras()) or "no camera found")
    if args.doctor:
        return print(diagnose(args.model))
    if args.page:
        refuse_idle(build_parser(), args, vars(args).keys() - {"page", "model", "trust"}, "with --page")
        return show_page(args.model)
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


def open_input(args) -> Source:
    """Return the source that was named, or else the camera; the bundled clip is for a bare `main.py`."""
    given = (args.source, args.save, args.output, args.plot, *(getattr(args, name) for name in OF_CAMERAS))
    fallback = None if args.no_display or any(given) else DEMO_CLIP
    settings = CameraSettings(args.camera_backend or "auto", args.width, args.height, args.fps)
    unread = [args.save] if args.save and args.save.is_dir() else []  # the annotated files of an earlier run
    return open_source(args.source or "0", settings, fallback, unread)


def check_options(args, source: Source) -> None:
    """Raise UserError for an option that does nothing with this source and these outputs."""
    of_pictures = source.kind in ("picture", "folder") and all(file.is_picture for file in source.files)
    idle = dict.fromkeys(OF_CAMERAS, source.kind != "camera")
    idle |= {"jobs": source.kind != "folder", "smoothing_ms": of_pictures}
    idle |= {"mirror": args.no_display and not args.save, "append": args.output in (None, STDOUT)}
    idle |= dict.fromkeys(("delimiter", "decimal"), not args.output or args.output.suffix.lower() == ".jsonl")
    for name, is_idle in idle.items():
        if is_idle and getattr(args, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} does nothing here ({source.kind}); leave it out")


def open_demo(args, source: Source, stack: ExitStack) -> "Demo":
    """Return what the arguments ask for; the stack completes its files and closes its window."""
    delimiter = "\t" if args.delimiter == "tab" else args.delimiter or ","
    style = TableFormat(delimiter, args.decimal or ".", bool(args.append))
    smoothing_ms = TIME_CONSTANT_MS if args.smoothing_ms is None else args.smoothing_ms
    reader = FaceReader(args.model, args.max_faces, smoothing_ms)
    classifier = reader.classifier
    outputs = Outputs(source, classifier.classes, args.output, args.save, args.plot, style)
    stack.enter_context(outputs)
    problem = "" if args.no_display else display_problem()
    if problem:
        note(f"no display ({problem}): going on without a window")
    has_window = not (args.no_display or problem)
    view = window = None
    if has_window or args.save:
        name = "" if classifier.name == NAME else classifier.name
        view = View(classifier.classes, name, source.live if args.mirror is None else args.mirror)
    if has_window:
        source.loops = True  # the clip
        waits = not (args.save or args.output or args.plot)
        window = LiveWindow(view, stack.enter_context(Window()), source, waits)
    return Demo(reader, outputs, Summary(source, has_window), view, window)


def report(demo: "Demo", seconds: float, source: Source) -> None:
    """Print what was seen and what was written; on stderr if the table went to stdout."""
    place = sys.stderr if demo.outputs.to_stdout else sys.stdout
    first, *others = demo.summary.lines(seconds) or [""]
    if first:
        print(first, file=place)
    if source.failure and not source.live:
        note(source.failure)
    written = [f"written: {relative(path)}" for path in demo.outputs.paths if path.exists()]
    for line in (*written, *others):
        print(line, file=place)


@dataclass
class Demo:
    """A run: what reads faces, and where they go; view and window are None if nothing is drawn or shown."""

    reader: FaceReader
    outputs: Outputs
    summary: Summary
    view: View | None
    window: LiveWindow | None

    def run(self, source, jobs: int | None = None) -> None:
        """Work through a source until it or the user ends; jobs: processes that read pictures."""
        if source.kind in ("picture", "folder"):
            self.run_files(source, jobs)
        else:
            self.run_video(source)
        source.tell_news()

    def run_files(self, source, jobs: int | None) -> None:
        """Go through pictures and videos in their order until they end or the user does."""
        pictures = [file for file in source.files if file.is_picture]
        jobs = jobs or (1 if self.window else os.cpu_count())
        with closing(read_pictures(self.reader, pictures, jobs, images=bool(self.view))) as results:
            for file in source.files:
                source.tell_news()
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
        with closing(read_video(self.reader, source)) as frames:
            for frame, faces in frames:
                source.tell_news()
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

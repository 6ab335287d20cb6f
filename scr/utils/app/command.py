"""Live demo: camera, video, picture or folder of pictures -> window, annotated video, table of emotions.

    emotion-detection
    emotion-detection --source clip.mp4 --no-display --save annotated.mp4 --output emotions.csv

Keys: q or Esc quits, m mirrors, l shows the landmarks, h helps, s saves a picture, space goes to the next
picture. Videos and cameras are smoothed in time. A face of which the model is not sure is `uncertain`.
"""

import sys
import time
from argparse import BooleanOptionalAction
from contextlib import ExitStack
from pathlib import Path

from ..cli import add_trust_flag, make_parser, number, positive_int, refuse_idle, run_script
from ..config import MODELS, PROGRAM, UserError, note, relative
from ..model.bundle import NAME, find_model
from ..video.camera import CameraSettings, list_cameras
from ..video.frames import Source
from ..video.sources import DEMO_CLIP, open_source
from .demo import Demo
from .doctor import diagnose, version
from .pipeline import FaceReader
from .results.outputs import Outputs, check_names
from .results.summary import Summary
from .results.table import MORE_COLUMNS, STDOUT, TableFormat
from .smoothing import TIME_CONSTANT_MS
from .web_page import show_page
from .windows.live_view import LiveWindow, View
from .windows.window import Window, display_problem

OF_CAMERAS = ("camera_backend", "width", "height", "fps")
"""Options that only cameras know."""


def build_parser():
    parser = make_parser((__doc__ or "").replace("emotion-detection", PROGRAM), "--source")
    add = parser.add_argument
    source = "camera number, video, picture, folder, numbered pictures (img%%03d.png) or stream address"
    add("--source", help=f"{source} (default: camera 0, or a clip that comes along)")
    model = "a .tflite file, a model's folder, name, or network (landmarks, crop, hybrid, FOLDER:NETWORK)"
    add("--model", default=str(MODELS), help=model)
    classes = "classes to tell apart, or all that the model knows (default: the model's own choice)"
    add("--classes", nargs="+", metavar="NAME", help=classes)
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
    columns = (
        "more columns: the head's pose (yaw, pitch, roll in degrees), MediaPipe's 52 blendshapes, or all"
    )
    add("--columns", nargs="+", choices=(*MORE_COLUMNS, "all"), help=columns)
    summary = "write a row for each file and person: seconds, shares, mean probabilities (.csv, .jsonl)"
    add("--summary", type=Path, metavar="FILE", help=summary)
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


def start() -> None:
    """Run the command line, as `emotion-detection` and `scr/main.py` do."""
    run_script(main, build_parser())


def main(args):
    if args.version:
        return print(version())
    if args.list_cameras:
        return print("\n".join(list_cameras()) or "no camera found")
    if args.doctor:
        return print(diagnose(args.model))
    if args.page:
        idle = vars(args).keys() - {"page", "model", "classes", "trust"}
        refuse_idle(build_parser(), args, idle, "with --page")
        return show_page(args.model, args.classes)
    check_names(args.output, args.plot, args.summary)
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
    names = ("source", "save", "output", "summary", "plot", *OF_CAMERAS)
    given = [getattr(args, name) for name in names]
    fallback = None if args.no_display or any(given) else DEMO_CLIP
    settings = CameraSettings(args.camera_backend or "auto", args.width, args.height, args.fps)
    unread = [args.save] if args.save and args.save.is_dir() else []  # the annotated files of an earlier run
    return open_source(args.source or "0", settings, fallback, unread)


def check_options(args, source: Source) -> None:
    """Raise UserError for an option that does nothing with this source and these outputs."""
    of_pictures = source.kind in ("picture", "folder") and all(file.is_picture for file in source.files)
    idle = dict.fromkeys(OF_CAMERAS, source.kind != "camera")
    idle |= {"jobs": source.kind != "folder", "smoothing_ms": of_pictures}
    idle |= {"mirror": args.no_display and not args.save, "columns": not args.output}
    tables = [table for table in (args.output, args.summary) if table]
    idle["append"] = all(table == STDOUT for table in tables)
    no_csv = all(table.suffix.lower() == ".jsonl" for table in tables)
    idle |= dict.fromkeys(("delimiter", "decimal"), no_csv)
    for name, is_idle in idle.items():
        if is_idle and getattr(args, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} does nothing here ({source.kind}); leave it out")


def open_demo(args, source: Source, stack: ExitStack) -> Demo:
    """Return what the arguments ask for; the stack completes its files and closes its window."""
    delimiter = "\t" if args.delimiter == "tab" else args.delimiter or ","
    style = TableFormat(delimiter, args.decimal or ".", bool(args.append))
    smoothing_ms = TIME_CONSTANT_MS if args.smoothing_ms is None else args.smoothing_ms
    reader = FaceReader(args.model, args.max_faces, smoothing_ms, args.classes)
    classifier = reader.classifier
    more = MORE_COLUMNS if "all" in (args.columns or ()) else args.columns or ()
    files = args.output, args.save, args.plot, style, more, args.summary
    outputs = stack.enter_context(Outputs(source, classifier.classes, *files))
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
        waits = not outputs.paths and not outputs.to_stdout
        window = LiveWindow(view, stack.enter_context(Window()), source, waits)
    summary = Summary(source, has_window, outputs.summary_table)
    stack.callback(summary.end)
    return Demo(reader, outputs, summary, view, window)


def report(demo: Demo, seconds: float, source: Source) -> None:
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

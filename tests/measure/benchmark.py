"""Speed, as ratios to bare loops measured side by side in the same run. Not a test: a loaded machine
spares neither side.

    python tests/measure/benchmark.py
    python tests/measure/benchmark.py --only labels memory --frames 2000 --json benchmark.json

Keys: loop_ratio (the whole live loop, drawing included, to a bare loop that reads and calls
detect_for_video, one after the other, without blendshapes; goal 1.00 on two free cores), after_landmarks_ms
(crop, features, networks, smoothing and drawing of one face: the mean of all frames, since the crop network
sees every fourth one and the panel is drawn anew on every third; one after the other; goal 4),
published_speedup (to the published loop: IMAGE mode, scaler.transform, model.predict; goal 5),
crop_share_each_frame (cutting out a face and the crop network, to detect_for_video), crop_share (the same as
the live loop does it, now and then; goal .4), live_files_mb (the networks that live use reads,
without MediaPipe's; goal 4), startup_ratio (start to first labelled picture, to a bare script that imports
mediapipe without TensorFlow and detects once; goal 1.2), rss_growth_mb (of memory_frames frames, after the
first 500; goal 20), extraction_efficiency (extract_landmarks.py to cores x a bare detect loop on the same
pictures; goal 0.85), folder_efficiency (the same of main.py --source FOLDER, on all cores).
How calm the labels of the crying, then laughing demo clip are, as main.py reads it: label_changes_raw (a
minute, without smoothing and hysteresis), label_changes_shown (with both; goal 15), label_delay_ms (how
much later a class is shown for it, median; goal 250).
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# This file is no script of the project and no test: nothing else sets its path.
sys.path.insert(0, str(ROOT / "scr"))

import cv2
import numpy as np

from utils.video.frames import Frame, Source

CLIP = ROOT / "assets" / "demo.mp4"
PICTURE = ROOT / "tests" / "assets" / "astronaut.jpg"
TASK = ROOT / "models" / "face_landmarker.task"
PARTS = ("startup", "extraction", "folder", "loop", "memory", "labels")

BARE = """
import sys
sys.modules["tensorflow"] = None
import cv2, mediapipe
from mediapipe.tasks.python import vision
options = vision.FaceLandmarkerOptions(mediapipe.tasks.BaseOptions(model_asset_path=sys.argv[1]))
with vision.FaceLandmarker.create_from_options(options) as landmarker:
    picture = cv2.cvtColor(cv2.imread(sys.argv[2]), cv2.COLOR_BGR2RGB)
    landmarker.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument(
        "--only", nargs="+", metavar="PART", default=PARTS, choices=PARTS, help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--frames", type=int, default=10_000, help="frames of the memory run (default: %(default)s)"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="<emotion>/* pictures for extraction and folder (default: 2,000 frames of the clip)",
    )
    args = parser.parse_args()
    figures = {}
    if "startup" in args.only:
        figures["startup_ratio"] = measure_startup()
    if "extraction" in args.only:
        figures["extraction_efficiency"] = measure_throughput("extract_landmarks.py", "--images", args.images)
    if "folder" in args.only:
        figures["folder_efficiency"] = measure_throughput("main.py", "--no-display --source", args.images)
    if "loop" in args.only:
        figures |= measure_loop()
        figures |= measure_shares()
        figures["published_speedup"] = measure_published(figures["fps"])
    if "memory" in args.only:
        figures |= {"memory_frames": args.frames, "rss_growth_mb": measure_memory(args.frames)}
    if "labels" in args.only:
        figures |= measure_labels()
    for name, value in figures.items():
        print(f"{name:<24}{value:>10.3f}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


def open_landmarker(video: bool):
    """Return (mediapipe, a bare landmarker) as the documentation shows it."""
    os.environ["HTTPS_PROXY"] = "http://127.0.0.1:9"  # MediaPipe would report its use to Google
    if "tensorflow" not in sys.modules:
        sys.modules["tensorflow"] = None  # MediaPipe loads all of it if it can
    import mediapipe
    from mediapipe.tasks.python import vision

    if sys.modules["tensorflow"] is None:
        del sys.modules["tensorflow"]
    mode = vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE
    base = mediapipe.tasks.BaseOptions(model_asset_path=str(TASK))
    return mediapipe, vision.FaceLandmarker.create_from_options(
        vision.FaceLandmarkerOptions(base, running_mode=mode)
    )


def to_image(mediapipe, frame_bgr: np.ndarray):
    return mediapipe.Image(
        image_format=mediapipe.ImageFormat.SRGB, data=cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB)
    )


def bare_loop() -> float:
    """Return the seconds that read and detect_for_video take for the clip."""
    mediapipe, landmarker = open_landmarker(video=True)
    with landmarker:
        capture = cv2.VideoCapture(str(CLIP))
        start, index = time.perf_counter(), 0
        while (read := capture.read())[0]:
            landmarker.detect_for_video(to_image(mediapipe, read[1]), index * 42)
            index += 1
        return time.perf_counter() - start


class NoWindow:
    """Stands for the window, which is not part of what is measured."""

    def show(self, image) -> None:
        self.image = image

    def read_key(self, wait_s: float = 0) -> str:
        return ""


@contextlib.contextmanager
def open_demo(source):
    """Open the live demo on a source, drawing into no window."""
    from utils.app.demo import Demo
    from utils.app.pipeline import FaceReader
    from utils.app.results.outputs import Outputs
    from utils.app.results.summary import Summary
    from utils.app.windows.live_view import LiveWindow, View

    reader = FaceReader(str(ROOT / "models"))
    view = View(reader.classifier.classes)
    window = LiveWindow(view, NoWindow(), source)
    yield Demo(reader, Outputs(source, view.classes), Summary(source, True), view, window)


def whole_loop() -> float:
    """Return the seconds of the live demo's own loop for the clip."""
    from utils.video.sources import open_source

    with open_source(str(CLIP)) as source, open_demo(source) as demo:
        start = time.perf_counter()
        demo.run(source)
        return time.perf_counter() - start


def measure_loop(rounds: int = 5) -> dict:
    """Return loop_ratio and fps, the medians over rounds that alternate the two loops."""
    bare, whole = zip(*((bare_loop(), whole_loop()) for _ in range(rounds)))
    frames = cv2.VideoCapture(str(CLIP)).get(cv2.CAP_PROP_FRAME_COUNT)
    return {
        "loop_ratio": statistics.median(ours / theirs for ours, theirs in zip(whole, bare)),
        "fps": frames / statistics.median(whole),
    }


def measure_shares() -> dict:
    """Return what follows the landmarks, and the crop network's share of a bare detection, frame by frame."""
    from utils.faces.crops import crop_faces
    from utils.model.bundle import find_model
    from utils.video.sources import open_source

    mediapipe, landmarker = open_landmarker(video=True)
    bare, after, crop, calls = [], [], [], []
    with landmarker, open_source(str(CLIP)) as source, open_demo(source) as demo:
        predict_crops = demo.reader.classifier.predict_crops
        demo.reader.classifier.predict_crops = lambda crops: calls.append(1) or predict_crops(crops)
        for frame in filter(None, source):
            image = to_image(mediapipe, frame.image)
            start = time.perf_counter()
            landmarker.detect_for_video(image, frame.timestamp_ms)
            bare.append(time.perf_counter() - start)
            found = demo.reader.find(frame)
            start = time.perf_counter()
            demo.take_frame(source, frame, demo.reader.read(frame, found))
            after.append(time.perf_counter() - start)
            landmarks = [face.landmarks for face in found]
            landmarker.detect_for_video(image, frame.timestamp_ms + 1)  # caches are as cold as in the loop
            start = time.perf_counter()
            predict_crops(crop_faces(frame.image, landmarks))
            crop.append(time.perf_counter() - start)
    share = statistics.median(crop) / statistics.median(bare)
    files = find_model(ROOT / "models").parts
    return {
        "after_landmarks_ms": statistics.mean(after) * 1000,
        "crop_share_each_frame": share,
        "crop_share": share * len(calls) / len(after),
        "live_files_mb": sum(map(len, files.values())) / 1e6,
    }


def measure_published(fps: float, frames: int = 60) -> float:
    """Return how many times faster the live loop is than the published one."""
    from sklearn.preprocessing import StandardScaler

    from utils.training.landmark_network import RECIPES, build_network

    network = build_network(1404, 4, RECIPES["published"])
    scaler = StandardScaler().fit(np.random.default_rng(0).random((10, 1404)))
    mediapipe, landmarker = open_landmarker(video=False)
    with landmarker:
        capture, times = cv2.VideoCapture(str(CLIP)), []
        for _ in range(frames):
            start = time.perf_counter()
            result = landmarker.detect(to_image(mediapipe, capture.read()[1]))
            points = np.array(
                [[point.x, point.y, point.z] for point in result.face_landmarks[0][:468]]
            ).ravel()
            network.predict(scaler.transform([points]), verbose=0)
            times.append(time.perf_counter() - start)
    return fps * statistics.median(times)


def measure_startup(rounds: int = 5) -> float:
    """Return the median ratio of two whole processes that each read one picture; the demo's also names
    the emotion."""

    def seconds(command: list) -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        ours = [
            sys.executable,
            ROOT / "scr" / "main.py",
            "--source",
            PICTURE,
            "--no-display",
            "--output",
            f"{folder}/out.csv",
        ]
        bare = [sys.executable, "-c", BARE, TASK, PICTURE]
        seconds(ours), seconds(bare)  # both find their files in memory
        return statistics.median(seconds(ours) / seconds(bare) for _ in range(rounds))


def measure_memory(frames: int) -> float:
    """Return how much the resident memory grows between frame 500 and the end, in MB."""
    source = Rewound(read_clip(), frames)
    with open_demo(source) as demo:
        demo.run(source)
        return resident_mb() - source.start_mb


class Rewound(Source):
    """A source that shows a clip over and over, and notes the memory at frame 500."""

    live = True

    def __init__(self, clip: list[np.ndarray], frames: int):
        super().__init__("clip", "video")
        self.clip, self.frames, self.start_mb = clip, frames, 0.0

    def __iter__(self):
        for index in range(self.frames):
            if index == 500:
                self.start_mb = resident_mb()
            yield Frame(self.clip[index % len(self.clip)], index, index * 42, str(CLIP), time.monotonic())


def read_clip() -> list[np.ndarray]:
    """Return the frames of the clip."""
    capture, clip = cv2.VideoCapture(str(CLIP)), []
    while (read := capture.read())[0]:
        clip.append(read[1])
    return clip


def resident_mb() -> float:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure_labels() -> dict:
    """Return how often the label of the clip's face changes without and with smoothing and hysteresis,
    and the delay.

    Without them, a label is the likeliest class of its frame, `uncertain` below the threshold.
    """
    from utils.app.pipeline import FaceReader
    from utils.app.smoothing import EmotionSmoother
    from utils.video.sources import open_source

    labels = []
    reader = FaceReader(str(ROOT / "models"), smoothing_ms=0)
    classes, threshold = reader.classifier.classes, reader.classifier.threshold
    raw = EmotionSmoother(classes, threshold, time_constant_ms=0, margin=0)
    calm = EmotionSmoother(classes, threshold)
    with open_source(str(CLIP)) as source:
        for frame in filter(None, source):
            for face in reader.read(frame, reader.find(frame)):
                values = np.array([*face.probabilities.values()], np.float32), frame.timestamp_ms
                labels.append((frame.timestamp_ms, raw.update(*values)[0], calm.update(*values)[0]))
    raw_turns, calm_turns = find_turns(labels, 1), find_turns(labels, 2)
    minutes = labels[-1][0] / 60_000
    delays = [
        when
        - max((first for first, raw_label in raw_turns if raw_label == label and first <= when), default=0)
        for when, label in calm_turns
        if label in classes
    ]
    return {
        "label_changes_raw": len(raw_turns) / minutes,
        "label_changes_shown": len(calm_turns) / minutes,
        "label_delay_ms": statistics.median(delays),
    }


def find_turns(labels: list[tuple], column: int) -> list[tuple[int, str]]:
    """Return (milliseconds, label) of each change of a column of labels."""
    return [(now[0], now[column]) for before, now in zip(labels, labels[1:]) if now[column] != before[column]]


def measure_throughput(script: str, flags: str, images: Path | None) -> float:
    """Return the rate of a script that reads pictures over cores x the rate of a bare loop of imread and
    detect."""
    with tempfile.TemporaryDirectory() as folder:
        images = images or write_frames(Path(folder) / "pictures", 2000)
        output = Path(folder) / ("out.csv" if script == "main.py" else "out.faces")
        paths = sorted(path for path in images.rglob("*") if path.is_file())
        command = [sys.executable, ROOT / "scr" / script, *flags.split(), images, "--output", output]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        whole = time.perf_counter() - start
        sample = paths[:: max(1, len(paths) // 500)]
        mediapipe, landmarker = open_landmarker(video=False)
        with landmarker:
            start = time.perf_counter()
            for path in sample:
                landmarker.detect(to_image(mediapipe, cv2.imread(str(path))))
            bare = (time.perf_counter() - start) / len(sample)
    return bare * len(paths) / (whole * os.cpu_count())


def write_frames(root: Path, count: int) -> Path:
    """Write frames of the clip as a labelled folder of 256-pixel-high pictures."""
    (root / "sad").mkdir(parents=True)
    clip = [cv2.resize(frame, None, fx=0.7, fy=0.7) for frame in read_clip()]
    for index in range(count):
        cv2.imwrite(str(root / "sad" / f"{index:05}.jpg"), clip[index % len(clip)])
    return root


if __name__ == "__main__":
    main()

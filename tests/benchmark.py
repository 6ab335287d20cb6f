"""Speed, as ratios to bare loops measured side by side in the same run. Not a test: a loaded machine spares neither side.

    python tests/benchmark.py
    python tests/benchmark.py --json benchmark.json --frames 2000

Keys: loop_ratio (the whole live loop, drawing included, to a bare loop of read and detect_for_video; goal 1.15),
after_landmarks_ms (features, network, smoothing and drawing of one face; goal 0.5), published_speedup (to the published
loop: IMAGE mode, scaler.transform, model.predict; goal 5), startup_ratio (start to first labelled picture, to a bare
script that imports mediapipe without TensorFlow and detects once; goal 1.25), rss_growth_mb (after the first 500 frames;
goal 20), extraction_efficiency (extract_landmarks.py to cores x a bare detect loop on the same pictures; goal 0.85).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scr"))  # this file is no script of the project and no test: nothing else sets its path

import cv2  # noqa: E402
import numpy as np  # noqa: E402

CLIP = ROOT / "assets" / "demo.mp4"
PICTURE = ROOT / "tests" / "data" / "astronaut.jpg"
TASK = ROOT / "models" / "face_landmarker.task"

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--frames", type=int, default=10_000, help="frames of the memory run")
    parser.add_argument("--images", type=Path, metavar="DIR", help="<emotion>/* pictures for the extraction (default: 2,000 frames of the clip)")
    args = parser.parse_args()
    figures = {"startup_ratio": measure_startup()}
    figures["extraction_efficiency"] = measure_extraction(args.images)
    figures |= measure_loop()
    figures["published_speedup"] = measure_published(figures["fps"])
    figures["rss_growth_mb"] = measure_memory(args.frames)
    for name, value in figures.items():
        print(f"{name:<24}{value:>10.3f}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


def open_landmarker(video: bool):
    """Return (mediapipe, a bare landmarker) as the documentation shows it."""
    from utils.landmarks import _import_mediapipe

    mediapipe, vision = _import_mediapipe()
    mode = vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE
    base = mediapipe.tasks.BaseOptions(model_asset_path=str(TASK))
    return mediapipe, vision.FaceLandmarker.create_from_options(vision.FaceLandmarkerOptions(base, running_mode=mode))


def to_image(mediapipe, frame_bgr: np.ndarray):
    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB))


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


def whole_loop() -> tuple[float, float]:
    """Return the seconds of the live demo's own loop for the clip, and the median milliseconds after the landmarks."""
    import main as demo_script
    from utils.capture import open_source

    after = []
    with open_source(str(CLIP)) as source:
        args = demo_script.build_parser().parse_args(["--source", str(CLIP), "--no-display"])
        with demo_script.Demo(args, source) as demo:
            demo.window = NoWindow()
            detect = demo.reader.landmarker.detect

            def timed_detect(*arguments):
                faces = detect(*arguments)
                demo.detected = time.perf_counter()
                return faces

            demo.reader.landmarker.detect = timed_detect
            demo.window.show = lambda image: after.append(time.perf_counter() - demo.detected)
            start = time.perf_counter()
            demo.run()
            return time.perf_counter() - start, statistics.median(after) * 1000


def measure_loop(rounds: int = 5) -> dict:
    """Return loop_ratio and after_landmarks_ms, the medians over rounds that alternate the two loops."""
    pairs = [(bare_loop(), whole_loop()) for _ in range(rounds)]
    frames = cv2.VideoCapture(str(CLIP)).get(cv2.CAP_PROP_FRAME_COUNT)
    return {"loop_ratio": statistics.median(whole / bare for bare, (whole, _) in pairs),
            "after_landmarks_ms": statistics.median(after for _, (_, after) in pairs),
            "fps": frames / statistics.median(whole for _, (whole, _) in pairs)}


def measure_published(fps: float, frames: int = 60) -> float:
    """Return how many times faster the live loop is than the published one."""
    from sklearn.preprocessing import StandardScaler

    from utils.classifier import build_network

    network = build_network(1404, 4, ((1024, 0.5, True), (512, 0.5, True), (256, 0.4, True), (128, 0.3, False)))
    scaler = StandardScaler().fit(np.random.default_rng(0).random((10, 1404)))
    mediapipe, landmarker = open_landmarker(video=False)
    with landmarker:
        capture, times = cv2.VideoCapture(str(CLIP)), []
        for _ in range(frames):
            start = time.perf_counter()
            result = landmarker.detect(to_image(mediapipe, capture.read()[1]))
            points = np.array([[point.x, point.y, point.z] for point in result.face_landmarks[0][:468]]).ravel()
            network.predict(scaler.transform([points]), verbose=0)
            times.append(time.perf_counter() - start)
    return fps * statistics.median(times)


def measure_startup(rounds: int = 5) -> float:
    """Return the median ratio of two whole processes that each read one picture; the demo's also names the emotion."""
    def seconds(command: list) -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        ours = [sys.executable, ROOT / "scr" / "main.py", "--source", PICTURE, "--no-display", "--output", f"{folder}/out.csv"]
        bare = [sys.executable, "-c", BARE, TASK, PICTURE]
        seconds(ours), seconds(bare)  # both find their files in memory
        return statistics.median(seconds(ours) / seconds(bare) for _ in range(rounds))


def measure_memory(frames: int) -> float:
    """Return how much the resident memory grows between frame 500 and the end, in MB."""
    import main as demo_script
    from utils.capture import open_source

    with open_source(str(CLIP)) as source:
        args = demo_script.build_parser().parse_args(["--source", str(CLIP), "--no-display"])
        with demo_script.Demo(args, source) as demo:
            demo.window, demo.source = NoWindow(), Rewound(read_clip(), frames)
            demo.run()
            return resident_mb() - demo.source.start_mb


class Rewound:
    """A source that shows a clip over and over, and notes the memory at frame 500."""

    kind, live, message, failure, news = "video", False, "", "", ()

    def __init__(self, clip: list[np.ndarray], frames: int):
        self.clip, self.frames, self.start_mb = clip, frames, 0.0

    def __iter__(self):
        from utils.capture import Frame

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


def measure_extraction(images: Path | None) -> float:
    """Return the rate of extract_landmarks.py over cores x the rate of a bare loop of imread and detect."""
    with tempfile.TemporaryDirectory() as folder:
        images = images or write_frames(Path(folder) / "pictures", 2000)
        paths = sorted(path for path in images.rglob("*") if path.is_file())
        start = time.perf_counter()
        subprocess.run([sys.executable, ROOT / "scr" / "extract_landmarks.py", "--images", images, "--output", f"{folder}/out.npz"],
                       check=True, capture_output=True)
        whole = time.perf_counter() - start
        sample = paths[::max(1, len(paths) // 500)]
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

"""What a bug report needs: versions, OpenCV's build, display, cameras, model files, and what is wrong."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

from ..config import MODELS, ROOT, VERSION, UserError, relative

PACKAGES = (
    "opencv-contrib-python",
    "opencv-python",
    "opencv-python-headless",
    "numpy",
    "ai-edge-litert",
    "av",
    "keras",
    "tensorflow",
    "scikit-learn",
    "joblib",
    "kagglehub",
)
BUILD_FACTS = ("GUI", "FFMPEG", "GStreamer", "v4l/v4l2", "DirectShow", "Media Foundation", "AVFoundation")
MODEL_SUFFIXES = (".task", ".tflite", ".keras", ".pkl", ".json", ".onnx")


def diagnose(model: str) -> str:
    """Return the report as text that one can paste into an issue; `model` is what `--model` names."""
    from ..video.camera import list_cameras
    from .windows.window import display_problem, opencv_build

    display, build, cameras = display_problem(), opencv_build(), list_cameras()
    problems = [f"display: {display}"] if display else []
    problems += [] if cameras else ["cameras: none found"]
    lines = [
        version(),
        f"python    {platform.python_version()} {sys.executable}",
        f"system    {platform.platform()}, {os.cpu_count()} cores",
    ]
    lines += [f"package   {name} {version}" for name, version in _versions()]
    lines += [f"opencv    {name}: {build[name]}" for name in BUILD_FACTS if name in build]
    lines += [f"display   {display or os.environ.get('DISPLAY') or 'ok'}"]
    lines += [f"camera    {camera}" for camera in cameras] or ["camera    none"]
    lines += [
        f"file      {relative(path)} {path.stat().st_size} bytes, sha256 {_sha256(path)}"
        for path in _model_files()
    ]
    for name, check in {"landmarker": _try_landmarker, "network": lambda: _try_network(model)}.items():
        try:
            lines.append(f"check     {name}: {check()}")
        except UserError as error:
            problems.append(f"{name}: {error}")
        except Exception as error:  # a diagnosis must come to its end
            problems.append(f"{name}: {type(error).__name__}: {error}")
    return "\n".join(lines + ([f"PROBLEM   {problem}" for problem in problems] or ["nothing wrong found"]))


def version() -> str:
    """Return the version, and the commit if this is a clone: `-dirty` if its files were changed."""
    try:
        done = subprocess.run(
            ["git", "-C", ROOT, "describe", "--always", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
        commit = done.stdout.strip() if done.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):  # no git here
        commit = ""
    return f"Emotion Detection {VERSION}" + (f", commit {commit}" if commit else "")


def _try_landmarker() -> str:
    from ..faces.landmarker import FaceLandmarker

    with FaceLandmarker() as landmarker:
        black = np.zeros((64, 64, 3), np.uint8)
        return f"works, {len(landmarker.detect_picture(black))} faces on a black picture"


def _try_network(model: str) -> str:
    from ..model.classifier import EmotionClassifier

    classifier = EmotionClassifier(model)
    classes = ", ".join(classifier.classes)
    return f"{classifier.name} reads {classes}; uncertain under {classifier.threshold:.2f}"


def _versions() -> list[tuple[str, str]]:
    versions = []
    for name in PACKAGES:
        try:
            versions.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            versions.append((name, "not installed"))
    return versions


def _model_files() -> list[Path]:
    return (
        sorted(path for path in MODELS.rglob("*") if path.suffix in MODEL_SUFFIXES) if MODELS.is_dir() else []
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

"""What a bug report needs: versions, OpenCV's build, display, cameras, model files, and what is wrong."""

import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from utils.config import MODELS, UserError, relative

PACKAGES = (
    "mediapipe",
    "opencv-contrib-python",
    "opencv-python",
    "opencv-python-headless",
    "numpy",
    "ai-edge-litert",
    "keras",
    "tensorflow",
    "scikit-learn",
    "joblib",
    "kagglehub",
)
BUILD_FACTS = ("GUI", "FFMPEG", "GStreamer", "v4l/v4l2", "DirectShow", "Media Foundation", "AVFoundation")
MODEL_SUFFIXES = (".task", ".tflite", ".keras", ".pkl", ".json", ".onnx")


def diagnose(
    display_problem: str, build: dict[str, str], cameras: Sequence[str], checks: dict[str, Callable[[], str]]
) -> str:
    """Return the report as text that one can paste into an issue.

    `display_problem` and `build` (`opencv_build`) come from display, `cameras` from capture. `checks` are tried one by
    one: each returns what it found, or raises UserError with what is wrong.
    """
    problems = [f"display: {display_problem}"] if display_problem else []
    problems += [] if cameras else ["cameras: none found"]
    lines = [
        f"python    {platform.python_version()} {sys.executable}",
        f"system    {platform.platform()}, {os.cpu_count()} cores",
    ]
    lines += [f"package   {name} {version}" for name, version in _versions()]
    lines += [f"opencv    {name}: {build[name]}" for name in BUILD_FACTS if name in build]
    lines += [f"display   {display_problem or os.environ.get('DISPLAY') or 'ok'}"]
    lines += [f"camera    {camera}" for camera in cameras] or ["camera    none"]
    lines += [
        f"file      {relative(path)} {path.stat().st_size} bytes, sha256 {_sha256(path)}"
        for path in _model_files()
    ]
    for name, check in checks.items():
        try:
            lines.append(f"check     {name}: {check()}")
        except UserError as error:
            problems.append(f"{name}: {error}")
        except Exception as error:  # a diagnosis must come to its end
            problems.append(f"{name}: {type(error).__name__}: {error}")
    return "\n".join(lines + ([f"PROBLEM   {problem}" for problem in problems] or ["nothing wrong found"]))


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

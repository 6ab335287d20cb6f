"""What a bug report needs: versions, display, cameras, and whether the landmarker and the network work."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys

import numpy as np

from ..config import IN_REPOSITORY, ROOT, VERSION
from ..faces.landmarker import FaceLandmarker
from ..model.classifier import EmotionClassifier
from ..video.camera import list_cameras
from .windows.window import display_problem

PACKAGES = (
    *("opencv-contrib-python", "opencv-python", "opencv-python-headless", "numpy"),
    *("ai-edge-litert", "av", "keras", "tensorflow", "scikit-learn"),
)


def diagnose(model: str) -> str:
    """Return the report as text that one can paste into an issue; `model` is what `--model` names."""
    display, cameras = display_problem(), list_cameras()
    problems = [f"display: {display}"] if display else []
    problems += [] if cameras else ["cameras: none found"]
    lines = [
        version(),
        f"python    {platform.python_version()} {sys.executable}",
        f"system    {platform.platform()}, {os.cpu_count()} cores",
        *(f"package   {name} {_version_of(name)}" for name in PACKAGES),
        f"display   {display or os.environ.get('DISPLAY') or 'ok'}",
        *([f"camera    {camera}" for camera in cameras] or ["camera    none"]),
    ]
    for name, check in {"landmarker": _try_landmarker, "network": lambda: _try_network(model)}.items():
        try:
            lines.append(f"check     {name}: {check()}")
        except Exception as error:  # a diagnosis must come to its end
            problems.append(f"{name}: {type(error).__name__}: {error}")
    return "\n".join(lines + ([f"PROBLEM   {problem}" for problem in problems] or ["nothing wrong found"]))


def version() -> str:
    """Return the version, and the commit if this is a clone: `-dirty` if its files were changed."""
    command = ["git", "-C", ROOT, "describe", "--always", "--dirty", "--exclude=*"]
    commit = ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # no git here
        done = IN_REPOSITORY and subprocess.run(command, capture_output=True, text=True, timeout=10)
        commit = done.stdout.strip() if done and done.returncode == 0 else ""
    return f"Emotion Detection {VERSION}" + (f", commit {commit}" if commit else "")


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _try_landmarker() -> str:
    landmarker = FaceLandmarker()
    black = np.zeros((64, 64, 3), np.uint8)
    return f"works, {len(landmarker.detect_picture(black))} faces on a black picture"


def _try_network(model: str) -> str:
    classifier = EmotionClassifier(model)
    return f"{classifier.name} reads {', '.join(classifier.classes)}"

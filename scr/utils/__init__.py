"""Reads emotions from faces in pictures, videos and webcam frames; `docs/python.md` tells how.

In the repository this is the package `utils`; installed, it is `emotion_detection`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .app.api import FaceResult, FrameResult, Reader, read_faces, read_video
    from .config import EmotionDetectionError

__all__ = ["EmotionDetectionError", "FaceResult", "FrameResult", "Reader", "read_faces", "read_video"]


def __getattr__(name: str):
    """Load the interface when it is first used: the scripts import this package before all others."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import config
    from .app import api

    return getattr(config if name == "EmotionDetectionError" else api, name)

"""A window of OpenCV's, and whether there is a display for one. Owns cv2's windows."""

import ctypes
import os
import re
import sys
import time

import numpy as np

from ...faces.images import import_cv2

QUIT_KEYS = ("q", "esc", "closed")
"""Of `Window.read_key`."""


def display_problem() -> str:
    """Return why no window can be opened, or "". Without a display, cv2.imshow aborts the process."""
    if re.search(r"GUI: +NONE", import_cv2().getBuildInformation()):
        return "this OpenCV is built without windows; pip uninstall opencv-python-headless"
    if sys.platform == "darwin" and "SSH_CONNECTION" in os.environ:
        return "this is an SSH session"
    if sys.platform in ("win32", "darwin"):
        return ""
    if not os.environ.get("DISPLAY"):
        return "DISPLAY is not set" + ("; install xwayland" if os.environ.get("WAYLAND_DISPLAY") else "")
    try:
        xcb = ctypes.CDLL("libxcb.so.1")
    except OSError:
        return "libxcb is missing; on Debian or Ubuntu run: apt-get install libxcb1"
    xcb.xcb_connect.restype = ctypes.c_void_p
    connection = ctypes.c_void_p(xcb.xcb_connect(None, None))
    refused = xcb.xcb_connection_has_error(connection)
    xcb.xcb_disconnect(connection)
    return f"the X server {os.environ['DISPLAY']} does not answer" if refused else ""


class Window:
    """A window that shows pictures and reads keys; check `display_problem` before."""

    def __init__(self, title: str = "Facial emotion recognition"):
        if sys.platform.startswith("linux"):
            os.environ.setdefault("QT_QPA_PLATFORM", "xcb")
            os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")  # on fonts that it does not need
        self._cv2 = import_cv2()
        self._title = title
        self._opened, self._shape = False, None

    def show(self, image: np.ndarray) -> None:
        """Show a picture (height, width, 3) uint8; the window takes its shape, at most 1600 x 900."""
        if not self._opened:
            flags = self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_KEEPRATIO | self._cv2.WINDOW_GUI_NORMAL
            self._cv2.namedWindow(self._title, flags)
            self._opened = True
        if image.shape != self._shape:
            zoom = min(1.0, 1600 / image.shape[1], 900 / image.shape[0])
            self._cv2.resizeWindow(self._title, round(image.shape[1] * zoom), round(image.shape[0] * zoom))
            self._shape = image.shape
        self._cv2.imshow(self._title, image)

    def read_key(self, wait_s: float = 0.001) -> str:
        """Return the key pressed within `wait_s`: a character, `esc`, `space`, `closed` (window), or ""."""
        if not self._opened:
            time.sleep(wait_s)
            return ""
        code = self._cv2.waitKey(max(1, round(wait_s * 1000)))
        if self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) < 1:
            return "closed"
        if code < 0:
            return ""
        return {27: "esc", 32: "space", 13: "space"}.get(code & 0xFF, chr(code & 0xFF).lower())

    def close(self) -> None:
        """Close the window."""
        if self._opened:
            self._cv2.destroyAllWindows()
            self._opened = False

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, *_) -> None:
        self.close()

"""What one sees while recording: the frame, what happens now above it, what to do in the panel."""

import math
import textwrap

import numpy as np

from ..windows.canvas import AMBER, DIM, FAINT, INK, PANEL, PAPER, Canvas, RowLayout, class_colours
from .recorder import CONSENT, SampleFilter
from .session_plan import SessionPlan

HINTS = {
    "fear": ("eyes wide, brows up and", "together, lips stretched"),
    "happy": ("smile as at an old friend,", "let your eyes smile too"),
    "neutral": ("relax your whole face,", "lips closed, look ahead"),
    "sad": ("inner brows up, corners of", "the mouth down"),
    "anger": ("brows down and together,", "lips pressed, stare"),
    "disgust": ("wrinkle your nose, raise", "your upper lip"),
    "surprise": ("brows up, eyes wide,", "let your jaw drop"),
    "contempt": ("press one corner of your", "mouth back and up"),
}
"""How to show the known emotions; what a class of one's own looks like, its owner knows."""
ROW_PITCH = 30
"""From class to class, if there is room."""
LINE = 28
"""Letters of a line of text in the panel."""


class RecordingView:
    """Draws frames, the plan of the session and what is wrong with a frame."""

    def __init__(self, subject: str, mirror: bool):
        self.subject, self.mirror, self.canvas = subject, mirror, Canvas()
        self.colours: dict[str, tuple[int, int, int]] = {}

    def draw(
        self, frame_bgr: np.ndarray, face, plan: SessionPlan, problem: str, now: float, question: str = ""
    ) -> np.ndarray:
        """Return the picture to show of a frame (height, width, 3) uint8 and its face, or None.

        `problem` says why the frame would not be recorded, `question` is one that y or n answers. The array
        is reused by the next call.
        """
        self.canvas.begin(frame_bgr, self.mirror)
        self.colours = class_colours(plan.classes)
        if face:
            points = self.canvas.to_pixels(face.landmarks)
            self.canvas.draw_contours(points, AMBER if problem else self.colours[plan.label])
        self._draw_task(plan.label)
        below = self._draw_counts(plan)
        if question:
            self._draw_banner(AMBER, question, "y / n")
            self.canvas.text("y  keep    n  leave out", 12, below + 24, 14, INK, 600)
        else:
            self._draw_state(plan, now, below + 24)
            self._draw_problem(problem, plan.recording(now), below + 48)
        self.canvas.text("m  mirror    q  end", 12, self.canvas.height - 12, 12, DIM)
        return self.canvas.image

    def _draw_task(self, label: str) -> None:
        self.canvas.text("now show", 12, 22, 12, DIM)
        shown, size = self.canvas.fit_label(label, PANEL - 24, 24)
        self.canvas.text(shown, 12, 50, size, self.colours[label], 600)
        for row, hint in enumerate(HINTS.get(label, ())):
            self.canvas.text(hint, 12, 72 + 16 * row, 12, INK)

    def _draw_counts(self, plan: SessionPlan) -> float:
        """Draw how many samples each class has; return where the list ends."""
        canvas = self.canvas
        top = 108 if set(HINTS) & set(plan.classes) else 76
        rows = RowLayout.fit(len(plan.classes), canvas.height - 82 - top, ROW_PITCH)
        for row, name in enumerate(plan.classes):
            y, count = top + row * rows.pitch, plan.counts[name]
            chosen = name == plan.label
            base, weight = y + rows.size - 2, 600 if chosen else 400
            shown = canvas.fit_text(f"{row + 1}  {name}", PANEL - 84, rows.size, weight)
            canvas.text(shown, 12, base, rows.size, INK if chosen else DIM, weight)
            canvas.text(f"{count} of {plan.wanted}", PANEL - 12, base, rows.size, DIM, right=True)
            canvas.fill(12, y + rows.bar_top, PANEL - 24, rows.bar, FAINT)
            done = (PANEL - 24) * min(1.0, count / plan.wanted)
            canvas.fill(12, y + rows.bar_top, done, rows.bar, self.colours[name])
        return top + len(plan.classes) * rows.pitch

    def _draw_state(self, plan: SessionPlan, now: float, y: float) -> None:
        """Draw what the space key does now and, over the frame's top, countdown and recording."""
        colour = self.colours[plan.label]
        if plan.counting(now):
            self._draw_banner(colour, f"{plan.label} in {math.ceil(plan.begin - now)}", "get ready")
            key = "space  stop"
        elif plan.recording(now):
            missing = plan.wanted - plan.counts[plan.label]
            left = f"{missing} to go" if missing > 0 else f"{plan.until - now:.0f} s left"
            self._draw_banner(colour, f"recording {plan.label}", left)
            key = "space  stop"
        else:
            key = "space  record" if plan.missing else "all done: press q"
        self.canvas.text(key, 12, y, 16, INK, 600)

    def _draw_banner(self, colour: tuple[int, int, int], left: str, right: str) -> None:
        width = self.canvas.image.shape[1] / self.canvas.scale - PANEL  # of the frame: it has a negative x
        self.canvas.fill(-width, 0, width, 50, PAPER)
        left, size = self.canvas.fit_label(left, width - 150, 30)
        self.canvas.text(left, 16 - width, 36, size, colour, 600)
        self.canvas.text(right, -16, 34, 20, INK, right=True)

    def _draw_problem(self, problem: str, recording: bool, y: float) -> None:
        if problem and (recording or problem != SampleFilter.SAME):
            self.canvas.text(self.canvas.fit_text(problem, PANEL - 24, 13), 12, y, 13, AMBER)

    def draw_consent(self, frame_bgr: np.ndarray) -> np.ndarray:
        """Return the one screen that says what is stored and what for."""
        self.canvas.begin(frame_bgr, self.mirror)
        self.canvas.clear_panel()
        self.canvas.text("Recording your face", 12, 24, 12, INK, 600)
        lines = textwrap.wrap(CONSENT.format(subject=self.subject), LINE, break_on_hyphens=False)
        for row, line in enumerate([*lines, "", "y  I agree    q  quit"], start=2):
            self.canvas.text(line, 12, 24 + row * 18, 12, INK)
        return self.canvas.image

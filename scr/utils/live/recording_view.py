"""What one sees while recording: the frame, what happens now above it, what to do in the panel."""

import math

import numpy as np

from utils.config import EMOTIONS
from utils.data.recordings import SampleFilter
from utils.live.display import AMBER, DIM, FAINT, INK, PANEL, PAPER, Canvas, colour_of
from utils.live.session_plan import SessionPlan

HINTS = {
    "fear": ("eyes wide, brows up and", "together, lips stretched"),
    "happy": ("smile as at an old friend,", "let your eyes smile too"),
    "neutral": ("relax your whole face,", "lips closed, look ahead"),
    "sad": ("inner brows up, corners of", "the mouth down"),
}
CONSENT = (
    "Recording your face",
    "",
    "What is stored: 478 points",
    "of your face and the label,",
    "in data/personal on this",
    "computer. No pictures.",
    "",
    "What for: to train a model",
    "of your own. Nothing is sent",
    "anywhere.",
    "",
    "Delete it all at any time:",
    "record_dataset.py",
    "  --forget {subject}",
    "",
    "y  I agree",
    "q  quit",
)
CONSENT_BOLD = (0, CONSENT.index("y  I agree"))
LOW_PANEL = 340
"""A panel lower than this, in design units, has room for what is needed only."""


class RecordingView:
    """Draws frames, the plan of the session and what is wrong with a frame."""

    def __init__(self, subject: str, session: str, sessions: str, mirror: bool):
        self.subject, self.session, self.sessions, self.mirror = subject, session, sessions, mirror
        self.canvas = Canvas()

    def draw(self, frame_bgr: np.ndarray, face, plan: SessionPlan, problem: str, now: float) -> np.ndarray:
        """Return the picture to show of a frame (height, width, 3) uint8 and its face, or None.

        `problem` says why the frame would not be recorded. The array is reused by the next call.
        """
        self.canvas.begin(frame_bgr, self.mirror)
        if face:
            points = self.canvas.to_pixels(face.landmarks)
            self.canvas.draw_contours(points, AMBER if problem else colour_of(plan.label))
        self._draw_task(plan.label)
        self._draw_counts(plan)
        self._draw_state(plan, now)
        self._draw_problem(problem, plan.recording(now))
        self._draw_foot()
        return self.canvas.image

    def _draw_task(self, label: str) -> None:
        self.canvas.text("now show", 12, 22, 12, DIM)
        self.canvas.text(label, 12, 50, 24, colour_of(label), 600)
        for row, hint in enumerate(HINTS[label]):
            self.canvas.text(hint, 12, 72 + 16 * row, 12, INK)

    def _draw_counts(self, plan: SessionPlan) -> None:
        canvas = self.canvas
        for row, name in enumerate(EMOTIONS):
            y, count = 108 + row * 30, plan.counts[name]
            chosen = name == plan.label
            canvas.text(f"{row + 1}  {name}", 12, y + 11, 13, INK if chosen else DIM, 600 if chosen else 400)
            canvas.text(f"{count} of {plan.wanted}", PANEL - 12, y + 11, 13, DIM, right=True)
            canvas.fill(12, y + 17, PANEL - 24, 4, FAINT)
            canvas.fill(12, y + 17, (PANEL - 24) * min(1.0, count / plan.wanted), 4, colour_of(name))

    def _draw_state(self, plan: SessionPlan, now: float) -> None:
        """Draw what the space key does now and, over the frame's top, countdown and recording."""
        if plan.counting(now):
            self._draw_banner(plan.label, f"{plan.label} in {math.ceil(plan.begin - now)}", "get ready")
            key = "space  stop"
        elif plan.recording(now):
            missing = plan.wanted - plan.counts[plan.label]
            left = f"{missing} to go" if missing > 0 else f"{plan.until - now:.0f} s left"
            self._draw_banner(plan.label, f"recording {plan.label}", left)
            key = "space  stop"
        else:
            key = "space  record" if plan.missing else "all done: press q"
        self.canvas.text(key, 12, 252, 16, INK, 600)

    def _draw_banner(self, label: str, left: str, right: str) -> None:
        width = self.canvas.image.shape[1] / self.canvas.scale - PANEL  # of the frame: it has a negative x
        self.canvas.fill(-width, 0, width, 50, PAPER)
        self.canvas.text(left, 16 - width, 36, 30, colour_of(label), 600)
        self.canvas.text(right, -16, 34, 20, INK, right=True)

    def _draw_problem(self, problem: str, recording: bool) -> None:
        if problem and (recording or problem != SampleFilter.SAME):
            self.canvas.text(self.canvas.fit_text(problem, PANEL - 24, 13), 12, 276, 13, AMBER)

    def _draw_foot(self) -> None:
        canvas = self.canvas
        if canvas.height >= LOW_PANEL:
            who = canvas.fit_text(f"{self.subject}, session {self.session}", PANEL - 24, 12)
            canvas.text(who, 12, canvas.height - 48, 12, DIM)
            canvas.text(self.sessions, 12, canvas.height - 30, 12, DIM)
        canvas.text("m  mirror    q  end", 12, canvas.height - 12, 12, DIM)

    def draw_consent(self, frame_bgr: np.ndarray) -> np.ndarray:
        """Return the one screen that says what is stored and what for."""
        self.canvas.begin(frame_bgr, self.mirror)
        self.canvas.clear_panel()
        for row, line in enumerate(CONSENT):
            weight = 600 if row in CONSENT_BOLD else 400
            self.canvas.text(line.format(subject=self.subject), 12, 24 + row * 18, 12, INK, weight)
        return self.canvas.image

"""Camera, video or pictures -> your own labelled landmarks in data/personal/. Pictures are never stored.

    python scr/record_dataset.py --subject ann
    python scr/record_dataset.py --subject ann --session 1 --source photos/happy --label happy

Keys: space counts down from three and records until there are enough, at most ten seconds (space again stops it);
1-4 choose the expression, m mirrors, q or Esc ends. Record two sessions, on different days if you can: one is held out
to see what the training gained.
"""

import shutil
import time
from argparse import BooleanOptionalAction
from itertools import chain
from pathlib import Path

import numpy as np

from utils.config import (
    EMOTIONS,
    PERSONAL_DATA,
    PERSONAL_MODELS,
    UserError,
    add_share_flag,
    make_parser,
    note,
    positive_int,
    relative,
    run_script,
)
from utils.data.recordings import (
    NEUTRAL_FILE,
    SampleFilter,
    SessionWriter,
    check_name,
    count_labels,
    has_consent,
    list_sessions,
    read_session,
    store_consent,
)

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
COUNTDOWN_S = 3.0
"""From the key to the first sample: the hand leaves the keyboard and the expression settles."""
RECORD_S = 10.0
WANTED_SESSIONS = 2


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument("--subject", metavar="NAME", help="who is recorded (default: me)")
    parser.add_argument("--session", metavar="NAME", help="name of the session (default: the next number)")
    parser.add_argument(
        "--source", default="0", help="camera number, video, picture, folder of pictures, or stream address"
    )
    parser.add_argument(
        "--label", choices=EMOTIONS, help="label everything that the source shows; needs no window"
    )
    parser.add_argument(
        "--wanted",
        type=positive_int,
        default=20,
        metavar="N",
        help="samples wanted of each class in a session",
    )
    parser.add_argument(
        "--data", type=Path, default=PERSONAL_DATA, metavar="DIR", help="folder of recordings"
    )
    parser.add_argument("--mirror", action=BooleanOptionalAction, default=True, help="mirror what is shown")
    manage = parser.add_argument_group("manage")
    manage.add_argument("--list", action="store_true", help="list subjects, sessions and counts, and end")
    manage.add_argument("--delete-session", metavar="NAME", help="delete this session of --subject, and end")
    manage.add_argument(
        "--forget", metavar="SUBJECT", help="delete all recordings and the model of a subject, and end"
    )
    add_share_flag(parser)
    return parser


def main(args):
    if args.list:
        return list_recordings(args.data)
    if args.delete_session and not args.subject:
        raise UserError(
            "whose session is to be deleted? name the person with --subject; see: python scr/record_dataset.py --list"
        )
    args.subject = args.subject or "me"
    if args.delete_session:
        return delete_session(args.data, args.subject, args.delete_session)
    if args.forget:
        return forget(args.data, args.forget)

    from utils.live.capture import open_source
    from utils.live.display import display_problem

    session = args.session or next_session(args.data, args.subject)
    if args.label is None and (problem := display_problem()):
        if Path(args.source).exists():
            raise UserError(
                f"what does {args.source} show? without a display each source is recorded under one label: add --label happy"
            )
        raise UserError(
            f"no display ({problem}), so you can't see what to show; record from files instead: "
            "python scr/record_dataset.py --source DIR --label happy"
        )
    with open_source(args.source) as source, SessionWriter(args.subject, session, args.data) as writer:
        earlier, dropped = read_session(writer.path)
        if dropped:
            note(
                f"{dropped} damaged sample(s) in {relative(writer.path)} are dropped; {len(earlier)} are whole"
            )
        recorder = Recorder(args, source, writer, earlier)
        recorder.run_labelled() if args.label else recorder.run_live()
    if source.failure:
        note(source.failure)
    recorder.report(args.subject, session)


class Recorder:
    """One recording: what is shown, what is taken, and why a frame is not."""

    def __init__(self, args, source, writer: SessionWriter, earlier: list):
        from utils.faces.landmarks import FEW_FACES, FaceLandmarker

        self.args, self.source, self.writer = args, source, writer
        self.still = source.kind in ("picture", "folder")
        self.landmarker_options = {"video": not self.still, "max_faces": FEW_FACES if self.still else 1}
        self.open_landmarker = lambda: FaceLandmarker(**self.landmarker_options)
        self.filter = SampleFilter()
        self.counts, self.refused = count_labels(earlier), {}
        self.label = args.label or self.next_label()
        self.begin = self.until = 0.0
        self.problem = ""
        sessions = {path for path in list_sessions(args.data) if path.parent == writer.path.parent} | {
            writer.path
        }
        others = (sample for path in sessions - {writer.path} for sample in read_session(path)[0])
        self.known = {sample.landmarks.tobytes() for sample in chain(earlier, others)}
        more = WANTED_SESSIONS - len(sessions)
        self.sessions = (
            f"{more} more session{'s' * (more > 1)} wanted after it"
            if more > 0
            else f"{len(sessions)} sessions: enough"
        )

    def take(self, landmarker, frame):
        """Return the main face of a frame, or None; set `problem` to why it would spoil the set."""
        faces = (
            (
                landmarker.detect_picture(frame.image)
                if self.still
                else landmarker.detect(frame.image, frame.timestamp_ms)
            )
            if frame.image is not None
            else []
        )
        face = faces[0] if faces else None
        self.problem = self.filter.problem(face.landmarks if face else None, frame.image, self.label)
        return face

    def store(self, face) -> None:
        """Write a sample or count why not."""
        if not self.problem and face.landmarks.tobytes() in self.known:
            self.problem = "already recorded"
            self.filter.accept(
                face.landmarks, self.label
            )  # so that a run that was cut short goes on as it would have
        if self.problem:
            self.refused[self.problem] = self.refused.get(self.problem, 0) + 1
            return
        self.writer.append(face.landmarks, face.blendshapes, self.label)
        self.filter.accept(face.landmarks, self.label)
        self.known.add(face.landmarks.tobytes())
        self.counts[self.label] += 1

    def run_labelled(self) -> None:
        """Record everything that the source shows under one label."""
        with self.open_landmarker() as landmarker:
            for frame in self.source:
                if frame is None:
                    continue
                self.store(self.take(landmarker, frame))
                if self.source.live and self.counts[self.label] >= self.args.wanted:
                    break

    def run_live(self) -> None:
        """Show the source, obey the keys, record while asked to."""
        from utils.live.display import Canvas, Window

        self.canvas = Canvas()
        with self.open_landmarker() as landmarker, Window("Record your expressions") as window:
            agreed = self.still or has_consent(self.writer.path.parent)
            start = time.monotonic()
            for frame in self.source:
                now = time.monotonic()
                if frame is None:
                    if not self.press(window.read_key(), now):
                        break
                    continue
                if frame.image is None:
                    continue
                face = self.take(landmarker, frame)
                if agreed and self.recording(now):
                    self.store(face)
                    self.move_on()
                window.show(self.draw(frame.image, face, now) if agreed else self.draw_consent(frame.image))
                ahead = 0 if self.source.live else start + frame.timestamp_ms / 1000 - time.monotonic()
                key = window.read_key(3600 if self.still else max(0.001, ahead))
                if not agreed and key == "y":
                    store_consent(self.writer.path.parent)
                    agreed = True
                elif not self.press(key, time.monotonic()):
                    break
                elif self.still and key == "space":
                    self.store(face)

    def counting(self, now: float) -> bool:
        """Tell whether the countdown runs at a time in seconds."""
        return now < min(self.begin, self.until)

    def recording(self, now: float) -> bool:
        """Tell whether frames are recorded at a time in seconds."""
        return self.begin <= now < self.until

    def press(self, key: str, now: float) -> bool:
        """Obey a key pressed at a time in seconds; return whether to go on."""
        if key in ("q", "esc", "closed"):
            return False
        if key in ("1", "2", "3", "4"):
            self.label, self.until = EMOTIONS[int(key) - 1], 0.0
        elif key == "space" and now < self.until:
            self.until = 0.0
        elif key == "space" and not self.still:
            self.begin = now + COUNTDOWN_S
            self.until = self.begin + RECORD_S
        elif key == "m":
            self.args.mirror = not self.args.mirror
        return True

    def move_on(self) -> None:
        """Go to the next class that still wants samples when this one has just got its last."""
        if self.counts[self.label] == self.args.wanted and not self.problem:
            self.label, self.until = self.next_label(), 0.0

    def next_label(self) -> str:
        """Return the first class that still wants samples, or the one at hand."""
        return next(
            (name for name in EMOTIONS if self.counts[name] < self.args.wanted),
            getattr(self, "label", EMOTIONS[0]),
        )

    def draw(self, frame_bgr: np.ndarray, face, now: float) -> np.ndarray:
        """Return the picture to show: the frame, light contours, what happens now above it, what to do in the panel."""
        from utils.live.display import AMBER, DIM, FAINT, INK, PANEL, colour_of

        canvas = self.canvas
        canvas.begin(frame_bgr, self.args.mirror)
        if face:
            canvas.draw_contours(
                canvas.to_pixels(face.landmarks), colour_of(self.label) if not self.problem else AMBER
            )
        canvas.text("now show", 12, 22, 12, DIM)
        canvas.text(self.label, 12, 50, 24, colour_of(self.label), 600)
        for row, hint in enumerate(HINTS[self.label]):
            canvas.text(hint, 12, 72 + 16 * row, 12, INK)
        for row, name in enumerate(EMOTIONS):
            y = 108 + row * 30
            chosen = name == self.label
            canvas.text(f"{row + 1}  {name}", 12, y + 11, 13, INK if chosen else DIM, 600 if chosen else 400)
            canvas.text(f"{self.counts[name]} of {self.args.wanted}", PANEL - 12, y + 11, 13, DIM, right=True)
            canvas.fill(12, y + 17, PANEL - 24, 4, FAINT)
            canvas.fill(
                12, y + 17, (PANEL - 24) * min(1.0, self.counts[name] / self.args.wanted), 4, colour_of(name)
            )
        self.draw_state(now)
        if canvas.height >= 340:  # a low panel has room for what is needed only
            canvas.text(
                canvas.fit_text(f"{self.args.subject}, session {self.writer.path.stem}", PANEL - 24, 12),
                12,
                canvas.height - 48,
                12,
                DIM,
            )
            canvas.text(self.sessions, 12, canvas.height - 30, 12, DIM)
        canvas.text("m  mirror    q  end", 12, canvas.height - 12, 12, DIM)
        return canvas.image

    def draw_state(self, now: float) -> None:
        """Draw what the keys do now, what is wrong with the frame, and, over its top, countdown and recording."""
        from utils.live.display import AMBER, INK, PANEL, PAPER, colour_of

        canvas, colour = self.canvas, colour_of(self.label)
        width = (
            canvas.image.shape[1] / canvas.scale - PANEL
        )  # of the frame: what is left of the panel has a negative x
        missing = self.args.wanted - self.counts[self.label]
        counting, recording = self.counting(now), self.recording(now)
        if counting or recording:
            canvas.fill(-width, 0, width, 50, PAPER)
            canvas.text(
                f"{self.label} in {np.ceil(self.begin - now):.0f}" if counting else f"recording {self.label}",
                16 - width,
                36,
                30,
                colour,
                600,
            )
            canvas.text(
                "get ready"
                if counting
                else f"{missing} to go"
                if missing > 0
                else f"{self.until - now:.0f} s left",
                -16,
                34,
                20,
                INK,
                right=True,
            )
            canvas.text("space  stop", 12, 252, 16, INK, 600)
        elif min(self.counts.values()) >= self.args.wanted:
            canvas.text("all done: press q", 12, 252, 16, INK, 600)
        else:
            canvas.text("space  record", 12, 252, 16, INK, 600)
        if self.problem and (recording or self.problem != SampleFilter.SAME):
            canvas.text(canvas.fit_text(self.problem, PANEL - 24, 13), 12, 276, 13, AMBER)

    def draw_consent(self, frame_bgr: np.ndarray) -> np.ndarray:
        """Return the one screen that says what is stored and what for."""
        from utils.live.display import INK

        self.canvas.begin(frame_bgr, self.args.mirror)
        self.canvas.clear_panel()
        for row, line in enumerate(CONSENT):
            self.canvas.text(
                line.format(subject=self.args.subject),
                12,
                24 + row * 18,
                12,
                INK,
                600 if row in (0, 15) else 400,
            )
        return self.canvas.image

    def report(self, subject: str, session: str) -> None:
        """Print what was recorded, what was refused and why, and the next command."""
        refused = ", ".join(
            f"{count} {reason.split(':')[0] if self.still else reason}"
            for reason, count in self.refused.items()
        )
        if not any(self.counts.values()):
            raise UserError(
                f"nothing was recorded ({refused or 'space records'}); run the same command again, with other pictures or more light"
            )
        print(
            f"{subject}, session {session}: "
            + ", ".join(f"{name} {count}" for name, count in self.counts.items())
        )
        if refused:
            print(f"refused: {refused}")
        if missing := [
            f"{self.args.wanted - count} {name}"
            for name, count in self.counts.items()
            if count < self.args.wanted
        ]:
            print(f"still wanted: {', '.join(missing)}; the same command with --session {session} goes on")
        sessions = [path for path in list_sessions(self.args.data) if path.parent.name == subject]
        print(
            f"next: python scr/train_personal.py --subject {subject}"
            if len(sessions) >= WANTED_SESSIONS
            else f"next: a second session, later today or tomorrow: python scr/record_dataset.py --subject {subject}"
        )


def next_session(folder: Path, subject: str) -> str:
    """Return the first number that is not yet a session of the subject."""
    taken = {path.stem for path in list_sessions(folder) if path.parent.name == check_name(subject)}
    return next(str(number) for number in range(1, len(taken) + 2) if str(number) not in taken)


def list_recordings(folder: Path) -> None:
    """Print subjects, sessions and counts."""
    paths = list_sessions(folder)
    for path in paths:
        samples, dropped = read_session(path)
        counts = ", ".join(f"{name} {count}" for name, count in count_labels(samples).items())
        print(
            f"{path.parent.name}, session {path.stem}: {counts}"
            + (f" ({dropped} damaged)" if dropped else "")
        )
    kept = sorted(folder.glob(f"*/{NEUTRAL_FILE}"))
    for path in kept:
        print(f"{path.parent.name}, neutral face of the live demo")
    if not paths and not kept:
        print(
            f"nothing recorded in {relative(folder)}; start with: python scr/record_dataset.py --subject NAME"
        )


def delete_session(folder: Path, subject: str, session: str) -> None:
    """Delete one session's file."""
    path = folder / check_name(subject) / f"{check_name(session)}.jsonl"
    if not path.is_file():
        raise UserError(f"{subject} has no session {session}; see: python scr/record_dataset.py --list")
    path.unlink()
    print(
        f"deleted session {session} of {subject}; models trained on it are not changed: train again, or --forget {subject}"
    )


def forget(folder: Path, subject: str) -> None:
    """Delete everything about a subject: recordings, consent and personal model."""
    places = [place for place in (folder / check_name(subject), PERSONAL_MODELS / subject) if place.is_dir()]
    if not places:
        raise UserError(f"nothing is stored about {subject}; see: python scr/record_dataset.py --list")
    for place in places:
        shutil.rmtree(place)
        print(f"deleted {relative(place)}")


if __name__ == "__main__":
    run_script(main, build_parser())

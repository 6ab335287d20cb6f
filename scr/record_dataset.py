"""Camera, video or pictures -> your own labelled landmarks in data/personal/. Pictures are never stored.

    python scr/record_dataset.py --subject ann
    python scr/record_dataset.py --subject ann --session 1 --source photos/happy --label happy

Keys: space counts down from three and records until there are enough, at most ten seconds (space again
stops it); 1-4 choose the expression, m mirrors, q or Esc ends. Record two sessions, on different days if
you can: one is held out to see what the training gained.
"""

from utils.script import run_script

import shutil
import time
from argparse import BooleanOptionalAction
from contextlib import ExitStack
from pathlib import Path

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
    session_path,
    store_consent,
    writing_session,
)
from utils.live.display import QUIT_KEYS
from utils.live.session_plan import SessionPlan

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
            "whose session is to be deleted? name the person with --subject; "
            "see: python scr/record_dataset.py --list"
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
                f"what does {args.source} show? without a display each source is recorded under one label: "
                "add --label happy"
            )
        raise UserError(
            f"no display ({problem}), so you can't see what to show; record from files instead: "
            "python scr/record_dataset.py --source DIR --label happy"
        )
    with open_source(args.source) as source, SessionWriter(args.subject, session, args.data) as writer:
        earlier, dropped = read_session(writer.path)
        if dropped:
            note(
                f"{dropped} damaged sample(s) in {relative(writer.path)} are dropped; "
                f"{len(earlier)} are whole"
            )
        sessions = {path for path in list_sessions(args.data) if path.parent == writer.path.parent}
        others = [sample for path in sessions - {writer.path} for sample in read_session(path)[0]]
        known = {sample.landmarks.tobytes() for sample in earlier + others}
        plan = SessionPlan(count_labels(earlier), args.wanted, args.label)
        recorder = Recorder(source, writer, plan, known)
        if args.label:
            recorder.run_labelled()
        else:
            recorder.run_live(open_view(args, session, len(sessions | {writer.path})))
    if source.failure:
        note(source.failure)
    report(recorder, args.data, args.subject, session)


def open_view(args, session: str, sessions: int):
    """Return the view of a recording; `sessions` counts those of the subject, this one included."""
    from utils.live.recording_view import RecordingView

    more = WANTED_SESSIONS - sessions
    wanted = (
        f"{more} more session{'s' * (more > 1)} wanted after it"
        if more > 0
        else f"{sessions} sessions: enough"
    )
    return RecordingView(args.subject, session, wanted, args.mirror)


class Recorder:
    """One recording: what is taken from a source, and why a frame is not."""

    def __init__(self, source, writer: SessionWriter, plan: SessionPlan, known: set[bytes]):
        self.source, self.writer, self.plan, self.known = source, writer, plan, known
        self.still = source.kind in ("picture", "folder")
        self.filter = SampleFilter()
        self.refused: dict[str, int] = {}
        """how many frames were not taken, by reason"""
        self.problem = ""
        """why the newest frame would spoil the set, or \"\""""

    def take(self, landmarker, frame):
        """Return the main face of a frame, or None; set `problem`."""
        faces = []
        if frame.image is not None:
            faces = (
                landmarker.detect_picture(frame.image)
                if self.still
                else landmarker.detect(frame.image, frame.timestamp_ms)
            )
        face = faces[0] if faces else None
        self.problem = self.filter.problem(face.landmarks if face else None, frame.image, self.plan.label)
        return face

    def store(self, face) -> None:
        """Write a sample or count why not."""
        if not self.problem and face.landmarks.tobytes() in self.known:
            self.problem = "already recorded"
            # Accepted all the same, so that a run that was cut short goes on as it would have.
            self.filter.accept(face.landmarks, self.plan.label)
        if self.problem:
            self.refused[self.problem] = self.refused.get(self.problem, 0) + 1
            return
        self.writer.append(face.landmarks, face.blendshapes, self.plan.label)
        self.filter.accept(face.landmarks, self.plan.label)
        self.known.add(face.landmarks.tobytes())
        self.plan.count()

    def open_landmarker(self):
        """Return a landmarker for the source, a context manager."""
        from utils.faces.landmarks import FEW_FACES, FaceLandmarker

        return FaceLandmarker(video=not self.still, max_faces=FEW_FACES if self.still else 1)

    def run_labelled(self) -> None:
        """Record all that the source shows under one label; from a camera, as much as is wanted."""
        with self.open_landmarker() as landmarker:
            for frame in self.source:
                if frame is None:
                    continue
                self.store(self.take(landmarker, frame))
                if self.source.live and self.plan.label not in self.plan.missing:
                    break

    def run_live(self, view) -> None:
        """Show the source in a window, obey the keys, record while asked to."""
        from utils.live.display import Window

        with self.open_landmarker() as landmarker, Window("Record your expressions") as window:
            agreed = self.still or has_consent(self.writer.path.parent)
            start = time.monotonic()
            for frame in self.source:
                now = time.monotonic()
                if frame is None:
                    if not self.press(window.read_key(), now, view):
                        break
                    continue
                if frame.image is None:
                    continue
                face = self.take(landmarker, frame)
                if agreed and self.plan.recording(now):
                    self.store(face)
                    if not self.problem:
                        self.plan.move_on()
                window.show(
                    view.draw(frame.image, face, self.plan, self.problem, now)
                    if agreed
                    else view.draw_consent(frame.image)
                )
                ahead = 0 if self.source.live else start + frame.timestamp_ms / 1000 - time.monotonic()
                key = window.read_key(3600 if self.still else max(0.001, ahead))
                if not agreed and key == "y":
                    store_consent(self.writer.path.parent)
                    agreed = True
                elif not self.press(key, time.monotonic(), view):
                    break
                elif self.still and key == "space":
                    self.store(face)

    def press(self, key: str, now: float, view) -> bool:
        """Obey a key pressed at a time in seconds; return whether to go on."""
        if key in QUIT_KEYS:
            return False
        if key in ("1", "2", "3", "4"):
            self.plan.choose(EMOTIONS[int(key) - 1])
        elif key == "space" and not self.still:
            self.plan.start_or_stop(now)
        elif key == "m":
            view.mirror = not view.mirror
        return True


def report(recorder: Recorder, folder: Path, subject: str, session: str) -> None:
    """Print what was recorded, what was refused and why, and the next command."""
    plan = recorder.plan
    refused = ", ".join(
        f"{count} {reason.split(':')[0] if recorder.still else reason}"
        for reason, count in recorder.refused.items()
    )
    if not any(plan.counts.values()):
        raise UserError(
            f"nothing was recorded ({refused or 'space records'}); run the same command again, "
            "with other pictures or more light"
        )
    print(f"{subject}, session {session}: {list_counts(plan.counts)}")
    if refused:
        print(f"refused: {refused}")
    if plan.missing:
        missing = ", ".join(f"{count} {name}" for name, count in plan.missing.items())
        print(f"still wanted: {missing}; the same command with --session {session} goes on")
    sessions = [path for path in list_sessions(folder) if path.parent.name == subject]
    if len(sessions) >= WANTED_SESSIONS:
        print(f"next: python scr/train_personal.py --subject {subject}")
    else:
        again = f"python scr/record_dataset.py --subject {subject}"
        print(f"next: a second session, later today or tomorrow: {again}")


def list_counts(counts: dict[str, int]) -> str:
    """Return the counts of classes as text."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def next_session(folder: Path, subject: str) -> str:
    """Return the first number that is not yet a session of the subject."""
    taken = {path.stem for path in list_sessions(folder) if path.parent.name == check_name(subject)}
    return next(str(number) for number in range(1, len(taken) + 2) if str(number) not in taken)


def list_recordings(folder: Path) -> None:
    """Print subjects, sessions and counts."""
    paths = list_sessions(folder)
    for path in paths:
        samples, dropped = read_session(path)
        counts = list_counts(count_labels(samples))
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
    path = session_path(subject, session, folder)
    if not path.is_file():
        raise UserError(f"{subject} has no session {session}; see: python scr/record_dataset.py --list")
    with writing_session(path):
        path.unlink()
    print(
        f"deleted session {session} of {subject}; models trained on it are not changed: "
        f"train again, or --forget {subject}"
    )


def forget(folder: Path, subject: str) -> None:
    """Delete everything about a subject: recordings, consent and personal model."""
    places = [place for place in (folder / check_name(subject), PERSONAL_MODELS / subject) if place.is_dir()]
    if not places:
        raise UserError(f"nothing is stored about {subject}; see: python scr/record_dataset.py --list")
    with ExitStack() as stack:
        for path in list_sessions(folder):
            if path.parent.name == subject:
                stack.enter_context(writing_session(path))  # not under a recording that runs
    for place in places:
        shutil.rmtree(place)
        print(f"deleted {relative(place)}")


if __name__ == "__main__":
    run_script(main, build_parser())

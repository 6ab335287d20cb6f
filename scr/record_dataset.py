"""Camera, video or pictures -> your own labelled landmarks in data/personal/. Pictures are never stored.

    python scr/record_dataset.py --subject ann
    python scr/record_dataset.py --subject ann --classes wink kiss neutral
    python scr/record_dataset.py --subject ann --session 1 --source photos/happy --label happy
    python scr/record_dataset.py --subject ann --source photos

The classes are fear, happy, neutral and sad, or your own: they are kept with the recordings. The last form
takes a folder with a sub-folder for each class in one run.

Keys: space counts down from three and records until there are enough, at most ten seconds (space again
stops it; a clip is recorded from at once, and begins again at its end); digits choose the expression, m
mirrors, q or Esc ends. Record two sessions, on different days if you can: one is held out to see what the
training gained.
"""

from utils.cli import make_parser, positive_int, run_script

import shutil
import sys
from argparse import BooleanOptionalAction
from contextlib import ExitStack, contextmanager
from pathlib import Path

from utils.app.session_plan import SessionPlan
from utils.config import EMOTIONS, MODELS, PERSONAL_DATA, PERSONAL_MODELS, UserError, note, relative
from utils.data.classes import check_classes, class_name, given_class, list_names, name_problem
from utils.data.recordings import (
    NEUTRAL_FILE,
    SampleFilter,
    SessionWriter,
    check_name,
    count_labels,
    keep_classes,
    list_sessions,
    load_classes,
    neutral_path,
    quoted,
    read_session,
    record_command,
    session_path,
    writing_session,
)

WANTED_SESSIONS, WANTED_SAMPLES = 2, 20
PLAIN = {SampleFilter.SAME: "nearly the same face as the last one"}
"""What to call a reason in the report where it is not the word of the window."""
REMEDIES = {
    "no face": "larger faces, seen from the front, in more light",
    "face cut off": "the whole face in view",
    "blurred": "sharper pictures, in more light",
    "unreadable picture": "files that are pictures",
}
"""What to do about a reason for which all was refused; about others, take other pictures."""


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument("--subject", metavar="NAME", help="who is recorded (default: me)")
    parser.add_argument("--session", metavar="NAME", help="name of the session (default: the next number)")
    parser.add_argument(
        "--source",
        default="0",
        help="camera number, video, picture, folder of pictures (or of a sub-folder for each class), or "
        "stream address",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="what is recorded, 2 to 9 classes; kept with the recordings (default: those kept, or fear happy "
        "neutral sad)",
    )
    parser.add_argument(
        "--label", metavar="NAME", help="label everything that the source shows; needs no window"
    )
    parser.add_argument(
        "--wanted",
        type=positive_int,
        default=WANTED_SAMPLES,
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
        "--forget",
        metavar="SUBJECT",
        help="delete recordings, neutral face and model of a subject, after a question, and end",
    )
    manage.add_argument(
        "--forget-neutral", metavar="SUBJECT", help="delete the neutral face of a subject alone, and end"
    )
    manage.add_argument("--yes", action="store_true", help="with --forget: delete without a question")
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
        return forget(args.data, args.forget, args.yes)
    if args.forget_neutral:
        return forget_neutral(args.data, args.forget_neutral)

    from utils.app.label_check import Doubts
    from utils.app.recorder import Recorder
    from utils.app.windows.window import display_problem
    from utils.video.sources import names_file, open_source

    is_file = names_file(args.source)
    if is_file:
        open_source(args.source).close()  # says what is wrong with it
    classes, folders = choose_classes(args)
    for _, folder in folders:
        open_source(folder).close()
    session = args.session or next_session(args.data, args.subject)
    problem = "" if args.label or folders else display_problem()
    if problem and is_file:
        raise UserError(
            f"what does {args.source} show? without a display each source is recorded under one label: add "
            f"--label {classes[0]}, or name a folder with a sub-folder for each class"
        )
    if problem:
        session_given = ["--session", args.session] if args.session else []
        raise UserError(
            f"no display ({problem}), so you can't see what to show; record from pictures, in a folder with "
            f"a sub-folder for each class: {command(args, *session_given, '--source', 'FOLDER')}; or "
            f"all of one class: add --label {quoted(classes[0])}"
        )
    with SessionWriter(args.subject, session, args.data) as writer:
        keep_classes(args.subject, classes, args.data)
        earlier, dropped = read_session(writer.path)
        if dropped:
            note(
                f"{dropped} damaged sample(s) in {relative(writer.path)} are dropped; "
                f"{len(earlier)} are whole"
            )
        sessions = {path for path in list_sessions(args.data) if path.parent == writer.path.parent}
        others = [sample for path in sessions - {writer.path} for sample in read_session(path)[0]]
        known = {sample.landmarks.tobytes() for sample in earlier + others}
        plan = SessionPlan(count_labels(earlier, classes), args.wanted, args.label)
        with (
            Recorder(writer, plan, known, Doubts(), open_classifier()) as recorder,
            telling_kept(plan, session),
        ):
            if args.label or folders:
                for label, name in folders or [(args.label, args.source)]:
                    plan.choose(label)
                    with open_source(name) as source:
                        recorder.run_labelled(source)
                    if source.failure:
                        note(source.failure)
            else:
                view = open_view(args, session, len(sessions | {writer.path}))
                recorder.run_live(lambda: open_source(args.source), view)
    report(recorder, args, session, is_file)


@contextmanager
def telling_kept(plan: SessionPlan, session: str):
    """Say what is kept, and how to go on, where the user stops the recording by Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        if any(plan.counts.values()):
            kept = f"kept in session {session}: {list_counts(plan.counts)}"
            note(f"{kept}; the same command with --session {session} goes on")
        raise


def open_classifier():
    """Return the general model, for the embedding that is kept of each face; None without a model."""
    from utils.model.classifier import EmotionClassifier

    try:
        return EmotionClassifier(MODELS)
    except UserError:
        return None


def choose_classes(args) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Return the subject's classes, and (class, path) of the source's folders that are named after them.

    Raises UserError if --label is none of them, or if they leave out what is recorded already.
    """
    recorded = {
        sample.label
        for path in list_sessions(args.data)
        if path.parent.name == check_name(args.subject)
        for sample in read_session(path)[0]
    }
    given = [] if args.label else class_folders(args.source)
    kept = None if args.classes else load_classes(args.subject, args.data)
    if args.classes:
        classes = args.classes = check_classes(args.classes)
    elif kept or recorded or {label for label, _ in given} <= set(EMOTIONS):
        classes = kept or EMOTIONS
    else:
        classes = check_classes([label for label, _ in given], args.source)
    if lost := sorted(recorded - set(classes)):
        raise UserError(
            f"{list_names(lost)} of {args.subject} is recorded already and not among {list_names(classes)}; "
            "add it to --classes, or record the others under another --subject"
        )
    args.label = args.label and given_class(args.label)
    if args.label and args.label not in classes:
        named = [name for name in classes if name in recorded] + [args.label]
        raise UserError(
            f"--label {args.label} is none of {args.subject}'s classes ({list_names(classes)}); name them "
            f"all: --classes {' '.join(map(quoted, named))} ..."
        )
    folders = [(label, path) for label, path in given if label in classes]
    if others := [Path(path).name for label, path in given if label not in classes]:
        note(f"left out, none of {list_names(classes)}: {list_names(others)} (--classes takes them in)")
    if classes != EMOTIONS:
        note(f"classes: {list_names(classes)}")
    return classes, folders


def class_folders(source: str) -> list[tuple[str, str]]:
    """Return (class, path) of a source's sub-folders that are named as classes can be, if it is a folder;
    empty ones are left out."""
    root = Path(source).expanduser()
    paths = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    paths = [path for path in paths if not name_problem(class_name(path.name))]
    if empty := [path.name for path in paths if not any(path.iterdir())]:
        note(f"left out, nothing in: {list_names(empty)}")
    return [(class_name(path.name), str(path)) for path in paths if path.name not in empty]


def open_view(args, session: str, sessions: int):
    """Return the view of a recording; `sessions` counts those of the subject, this one included."""
    from utils.app.windows.recording_view import RecordingView

    few = sessions < WANTED_SESSIONS
    wanted = "afterwards run this once more" if few else f"{sessions} sessions: enough"
    return RecordingView(args.subject, session, wanted, args.mirror)


def report(recorder, args, session: str, is_file: bool) -> None:
    """Print what was recorded, what was refused and why, and the next command; is_file: from no camera."""
    plan, subject = recorder.plan, args.subject
    refused = list_refused(recorder)
    if not recorder.agreed:
        raise UserError(
            "you did not agree to be recorded (key y), so nothing is stored; to do so, run it again"
        )
    if not any(plan.counts.values()):
        raise UserError(f"nothing was recorded: {refused or 'the space key records'}; {remedy(recorder)}")
    print(f"{subject}, session {session}: {list_counts(plan.counts)}")
    if refused:
        print(f"refused: {refused}")
    for (label, seen), count in recorder.doubts.kept.items():
        print(
            f"{count} of {label} look {seen} to the general model, and are kept; if that is a mistake: "
            f"{record_command(subject, args.data, '--delete-session', session)}"
        )
    tell_next(plan, args, session, is_file)


def list_refused(recorder) -> str:
    """Return how many frames were refused and why, with the names of the first pictures among them."""
    texts = []
    for reason, count in recorder.refused.items():
        files = [name for name, why in recorder.refused_pictures.items() if why == reason]
        names = f" ({list_names(files, 3)})" if files else ""
        texts.append(f"{count} {PLAIN.get(reason, reason)}{names}")
    return ", ".join(texts)


def remedy(recorder) -> str:
    """Return what to do where nothing was recorded."""
    again = "run the same command again"
    if not recorder.refused:
        return again
    reason = recorder.refused.most_common(1)[0][0]
    return f"{again} with {REMEDIES.get(reason, 'other pictures')}"


def tell_next(plan: SessionPlan, args, session: str, is_file: bool) -> None:
    """Print the next commands: one for what is missing in the session, one for what comes after it.

    From files no number of samples is wanted: what is there can be trained on.
    """
    if is_file:
        place = ["--source", "OTHER_FOLDER" if Path(args.source).expanduser().is_dir() else "OTHER_FILE"]
        missing = [name for name in plan.missing if not plan.counts[name]]
        what = f"not recorded yet: {list_names(missing)}; to add it"
    else:
        place = [] if args.source == "0" else ["--source", args.source]
        missing = list(plan.missing)
        what = "still wanted: " + ", ".join(f"{count} {name}" for name, count in plan.missing.items())
    label = ["--label", args.label] if args.label else []
    if missing:
        of_missing = ["--label", missing[0]] if args.label else []
        print(f"{what}: {command(args, '--session', session, *place, *of_missing)}")
    sessions = [path for path in list_sessions(args.data) if path.parent.name == args.subject]
    if len(sessions) >= WANTED_SESSIONS:
        data = "" if args.data == PERSONAL_DATA else f" --data {quoted(str(args.data))}"
        print(f"next: python scr/train_personal.py --subject {args.subject}{data}")
    elif sum(map(bool, plan.counts.values())) > 1:
        when = "from other pictures" if is_file else "later today or tomorrow"
        print(f"next: a second session, {when}: {command(args, *place, *label)}")


def command(args, *more: str) -> str:
    """Return the command that goes on recording this person; more: further arguments."""
    new = args.classes and (load_classes(args.subject, args.data) or EMOTIONS) != args.classes
    given = ["--classes", *args.classes] if new else []
    given += ["--wanted", str(args.wanted)] if args.wanted != WANTED_SAMPLES else []
    return record_command(args.subject, args.data, *given, *more)


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
        counts = list_counts(count_labels(samples, load_classes(path.parent.name, folder) or EMOTIONS))
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


def forget(folder: Path, subject: str, sure: bool) -> None:
    """Delete everything about a subject, recordings, consent and personal model; ask first unless `sure`."""
    places = [place for place in (folder / check_name(subject), PERSONAL_MODELS / subject) if place.is_dir()]
    if not places:
        raise UserError(f"nothing is stored about {subject}; see: python scr/record_dataset.py --list")
    sessions = [path for path in list_sessions(folder) if path.parent.name == subject]
    if not sure:
        ask_to_delete(places, sessions)
    with ExitStack() as stack:
        for path in sessions:
            stack.enter_context(writing_session(path))  # not under a recording that runs
    for place in places:
        shutil.rmtree(place)
        print(f"deleted {relative(place)}")


def ask_to_delete(places: list[Path], sessions: list[Path]) -> None:
    """Ask whether folders, with sessions in them, are to be deleted; raises UserError unless they are."""
    samples = sum(len(read_session(path)[0]) for path in sessions)
    held = f" ({samples} samples in {len(sessions)} sessions)" if sessions else ""
    what = f"{' and '.join(map(relative, places))}{held}"
    if not (sys.stdin and sys.stdin.isatty()):
        raise UserError(f"--forget asks before it deletes {what}, and there is nobody to ask; add --yes")
    if input(f"delete {what} for good? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("nothing is deleted")


def forget_neutral(folder: Path, subject: str) -> None:
    """Delete the neutral face that the live demo keeps of a subject."""
    path = neutral_path(subject, folder)
    if not path.is_file():
        raise UserError(f"no neutral face of {subject} is kept; see: python scr/record_dataset.py --list")
    path.unlink()
    print(f"deleted {relative(path)}")


if __name__ == "__main__":
    run_script(main, build_parser())

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

from utils.cli import make_parser, positive_int, refuse_idle, run_script

from argparse import BooleanOptionalAction
from pathlib import Path

from utils.app.recording.session_plan import SessionPlan
from utils.config import EMOTIONS, MODELS, PERSONAL_DATA, PERSONAL_MODELS, UserError, ask, note, relative
from utils.data.classes import check_classes, class_name, given_class, list_names, name_problem
from utils.data.recordings import (
    Recordings,
    check_name,
    check_new_subject,
    delete_folder,
    list_subjects,
    open_recordings,
    quoted,
    record_command,
)

WANTED_SESSIONS, WANTED_SAMPLES = 2, 20


def build_parser():
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--subject", metavar="NAME", help="who is recorded (default: me)")
    add("--session", metavar="NAME", help="name of the session (default: the next number)")
    add("--source", default="0", help="camera number, video, picture, folder, or stream address")
    classes = "2 to 9 classes (default: those kept with the recordings, or fear happy neutral sad)"
    add("--classes", nargs="+", metavar="NAME", help=classes)
    add("--label", metavar="NAME", help="label all that the source shows; needs no window")
    wanted = "samples wanted of each class in a session"
    add("--wanted", type=positive_int, default=WANTED_SAMPLES, metavar="N", help=wanted)
    add("--data", type=Path, default=PERSONAL_DATA, metavar="DIR", help="folder of recordings")
    model = "model that checks labels, and whose embedding is kept: the --base of train_personal.py"
    add("--model", type=Path, default=MODELS, metavar="PATH", help=model)
    add("--consent", action="store_true", help="the person agreed to be recorded: it is not asked")
    add("--mirror", action=BooleanOptionalAction, default=True, help="mirror what is shown")
    add = parser.add_argument_group("manage").add_argument
    add("--list", action="store_true", help="list subjects, sessions and counts, and end")
    add("--delete-session", metavar="NAME", help="delete this session of --subject, and end")
    add("--forget", metavar="SUBJECT", help="delete all recordings and the model of a subject, and end")
    add("--yes", action="store_true", help="with --forget: delete without a question")
    return parser


def main(args):
    if args.list or args.forget or args.delete_session:
        recording = ("session", "source", "classes", "label", "wanted", "model", "consent", "mirror")
        refuse_idle(build_parser(), args, recording, "with --list, --forget or --delete-session")
    if not args.forget:
        refuse_idle(build_parser(), args, ["yes"], "without --forget")
    if args.list:
        list_recordings(args.data)
    elif args.forget:
        forget(args.data, args.forget, args.yes)
    elif args.delete_session:
        delete_session(args.data, args.subject, args.delete_session)
    else:
        record(args)


def record(args) -> None:
    """Record from the source, under labels given before or in a window, and report what was recorded."""
    from utils.app.pipeline import FaceReader
    from utils.app.recording.recorder import Recorder
    from utils.model.bundle import JSON, PARTS

    args.subject = args.subject or "me"
    models = {*PARTS, *(path.parent.name for path in MODELS.glob(f"*/{JSON}"))}
    check_new_subject(args.subject, args.data, models)
    folders = [] if args.label else class_folders(args.source)
    check_files(args.source, folders)
    with open_recordings(args.subject, args.data) as recordings:
        classes = choose_classes(args, recordings, [label for label, _ in folders])
        parts = choose_parts(args, classes, folders)
        session = check_name(args.session or recordings.next_session())
        if not parts:
            check_display(args, classes)
        ask_for_consent(args, recordings, in_window=not parts)
        recordings.keep_classes(classes)
        counts = recordings.count(session)
        plan = SessionPlan({name: counts[name] for name in classes}, args.wanted, args.label)
        reader = FaceReader(args.model, max_faces=1)
        reader.classifier.narrow_to(classes)
        recorder = Recorder(recordings, session, plan, reader)
        try:
            run(recorder, args, parts)
        finally:  # whatever ends it, Ctrl-C or a full disk
            if any(plan.counts.values()):
                print(f"{args.subject}, session {session}: {list_counts(plan.counts)}", flush=True)
        report(recorder, args)
        tell_next(recorder, args)


def class_folders(source: str) -> list[tuple[str, str]]:
    """Return (class, path) of a folder's sub-folders that are named as classes can be and hold anything."""
    root = Path(source).expanduser()
    paths = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    paths = [path for path in paths if not name_problem(class_name(path.name))]
    if empty := [path.name for path in paths if not any(path.iterdir())]:
        note(f"left out, nothing in: {list_names(empty)}")
    return [(class_name(path.name), str(path)) for path in paths if path.name not in empty]


def check_files(source: str, folders: list[tuple[str, str]]) -> None:
    """Raise UserError if the source, or one of its class folders, is a file or folder that can't be read."""
    from utils.video.sources import names_file, open_source

    for place in [path for _, path in folders] or [source] * names_file(source):
        open_source(place).close()


def choose_classes(args, recordings: Recordings, of_folders: list[str]) -> tuple[str, ...]:
    """Return the classes of the recording: those named, those kept, those of the folders, or the usual ones.

    Raises UserError if they leave out what is recorded already.
    """
    recorded = sorted(recordings.count())
    usual = EMOTIONS if recorded or set(of_folders) <= set(EMOTIONS) else of_folders
    where = "--classes" if args.classes else args.source
    classes = check_classes(args.classes or recordings.classes or usual, where)
    if lost := [name for name in recorded if name not in classes]:
        what = "--classes" if args.classes else f"the list {list_names(classes)}"
        raise UserError(
            f"{args.subject} already has recordings of {list_names(lost)}, which {what} leaves out; "
            "name all in --classes, or record the others under another --subject"
        )
    if classes != EMOTIONS:
        note(f"classes: {list_names(classes)}")
    return classes


def choose_parts(args, classes, folders: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return (class, source) of what is recorded without a window: --label or the class folders, if any.

    Raises UserError if --label is no class of the subject.
    """
    if args.label:
        args.label = given_class(args.label)
        if args.label not in classes:
            raise UserError(
                f"{args.subject} has no class {args.label} (classes: {list_names(classes)}); "
                f"to add it, name all: --classes {' '.join(map(quoted, (*classes, args.label)))}"
            )
        return [(args.label, args.source)]
    if others := [Path(path).name for label, path in folders if label not in classes]:
        note(f"left out, none of {list_names(classes)}: {list_names(others)} (--classes takes them in)")
    return [(label, path) for label, path in folders if label in classes]


def check_display(args, classes) -> None:
    """Raise UserError if no window can be opened, in which one sees what to show and says what is shown."""
    from utils.app.windows.window import display_problem

    if problem := display_problem():
        raise UserError(
            f"no display ({problem}); without one, say what the source shows: add --label "
            f"{quoted(classes[0])}, or name a folder with a sub-folder for each class: "
            f"{command(args, '--source', 'FOLDER', *(['--classes', *args.classes] if args.classes else []))}"
        )


def ask_for_consent(args, recordings: Recordings, in_window: bool) -> None:
    """Note that the person agreed to be recorded; asks, once and unless the window does.

    Raises UserError without consent.
    """
    from utils.app.recording.recorder import CONSENT

    if recordings.has_consent or (in_window and not args.consent):
        return
    if not args.consent:
        note(CONSENT.format(subject=args.subject))
        confirm(f"does {args.subject} agree to be recorded?", "--consent")
    recordings.store_consent()


def confirm(question: str, flag: str) -> None:
    """Ask on the terminal; raises UserError unless the answer is yes. flag: answers it beforehand."""
    answer = ask(f"{question} [y/N]")
    if answer is None:
        raise UserError(f"there is nobody to ask: {question} add {flag} if so")
    if answer not in ("y", "yes"):
        raise UserError("nothing is changed, since the answer is not yes")


def run(recorder, args, parts: list[tuple[str, str]]) -> None:
    """Record the parts, (class, source); where there are none, what the user chooses in a window."""
    from utils.app.recording.recording_view import RecordingView
    from utils.video.sources import open_source

    for label, place in parts:
        recorder.plan.choose(label)
        with open_source(place) as source:
            recorder.run_labelled(source)
    if not parts:
        recorder.run_live(lambda: open_source(args.source), RecordingView(args.subject, args.mirror))


def report(recorder, args) -> None:
    """Print what was refused and why, and what looks wrong; raises UserError if nothing was recorded."""
    texts = []
    for reason, names in recorder.refused.items():
        pictures = list(filter(None, names))
        texts.append(f"{len(names)} {reason}" + (f" ({list_names(pictures, 3)})" if pictures else ""))
    refused = ", ".join(texts)
    if not recorder.recordings.has_consent:
        raise UserError("you did not agree to be recorded (key y), so nothing is stored")
    if not any(recorder.plan.counts.values()):
        raise UserError(
            f"nothing was recorded: {refused or 'the space key records'}; run the same command again"
            + (" with other pictures, or in better light" if refused else "")
        )
    if refused:
        print(f"refused: {refused}")
    for (label, seen), count in recorder.kept_unasked.items():
        print(
            f"{count} of {label} look {seen} to the model, and are kept; if that is a mistake: "
            f"{record_command(args.subject, args.data, '--delete-session', recorder.session)}"
        )


def tell_next(recorder, args) -> None:
    """Print the next commands: one for what is missing in the session, one for what comes after it.

    From files no number of samples is wanted: what is there can be trained on.
    """
    from utils.video.sources import names_file

    plan, is_file = recorder.plan, names_file(args.source)
    source = "OTHER_SOURCE" if is_file else args.source
    place = [] if source == "0" else ["--source", source]
    if missing := [name for name in plan.missing if not (is_file and plan.counts[name])]:
        label = ["--label", missing[0]] if args.label else []
        again = command(args, "--session", recorder.session, *place, *label)
        print(f"missing: {list_names(missing)}; {again}")
    if len(recorder.recordings.sessions) >= WANTED_SESSIONS:
        given = ["--subject", args.subject]
        given += ["--data", str(args.data)] if args.data != PERSONAL_DATA else []
        given += ["--base", str(args.model)] if args.model != MODELS else []
        print(f"next: python scr/train_personal.py {' '.join(map(quoted, given))}")
    elif sum(map(bool, plan.counts.values())) > 1:
        label = ["--label", args.label] if args.label else []
        print(f"next: a second session, another day if you can: {command(args, *place, *label)}")


def command(args, *more: str) -> str:
    """Return the command that goes on recording this person; more: further arguments."""
    given = ["--wanted", str(args.wanted)] if args.wanted != WANTED_SAMPLES else []
    given += ["--model", str(args.model)] if args.model != MODELS else []
    return record_command(args.subject, args.data, *given, *more)


def list_counts(counts: dict[str, int]) -> str:
    """Return the counts of classes as text."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def list_recordings(folder: Path) -> None:
    """Print subjects, sessions and counts."""
    subjects = list_subjects(folder)
    for subject in subjects:
        try:
            with open_recordings(subject, folder, to_read=True) as recordings:
                for session in recordings.sessions:
                    print(f"{subject}, session {session}: {list_counts(recordings.count(session))}")
        except UserError as error:  # damaged, or being recorded
            print(f"{subject}: {error}")
    if not subjects:
        where = relative(folder)
        print(f"nothing recorded in {where}; start with: python scr/record_dataset.py --subject NAME")


def delete_session(folder: Path, subject: str | None, session: str) -> None:
    """Delete one session of a subject."""
    if not subject:
        raise UserError("whose session is it? name the person with --subject; see --list")
    with open_recordings(subject, folder) as recordings:
        recordings.delete_session(session)
    print(
        f"deleted session {session} of {subject}; models trained on it are not changed: "
        f"train again, or --forget {subject}"
    )


def forget(folder: Path, subject: str, sure: bool) -> None:
    """Delete everything about a subject, recordings, consent and personal model; ask first unless `sure`."""
    places = [place for place in (folder / check_name(subject), PERSONAL_MODELS / subject) if place.is_dir()]
    if not places:
        raise UserError(f"nothing is stored about {subject}; see: python scr/record_dataset.py --list")
    if not sure:
        confirm(f"delete {' and '.join(map(relative, places))} for good?", "--yes")
    for place in places:
        delete_folder(place)
        print(f"deleted {relative(place)}")


if __name__ == "__main__":
    run_script(main, build_parser())

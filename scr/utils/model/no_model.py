"""Where training wrote no model, a file in its folder says why, and which model to use in its place."""

from collections.abc import Sequence
from pathlib import Path

from ..config import ROOT, UserError, note_once, relative
from ..data.checks import check_fields, read_json
from ..files import write_json

FILE = "no_model.json"


def write_no_model(folder: Path, why: str, instead: Path | None = None) -> None:
    """Note in a folder why it holds no model, and which one is as good; None if there is no such model."""
    write_json(folder / FILE, {"why": why, "instead": relative(instead) if instead else ""})


def stand_in(folders: Sequence[Path]) -> Path | None:
    """Return the model that is as good as the one that training did not write to one of the folders.

    Says so; None if there is no such folder. Raises UserError if there is no model in its place.
    """
    path = next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
    if path is None:
        return None
    try:
        found = read_json(path)
        check_fields(found, dict.fromkeys(("why", "instead"), lambda value: isinstance(value, str)))
    except (OSError, ValueError):
        return None
    why, instead = found["why"], found["instead"]
    if not instead:
        raise UserError(f"no model in {relative(path.parent)}: {why}")
    note_once(f"{relative(path.parent)} holds no model: {why}; {instead} is used")
    return ROOT / instead

"""Damaged and forged files: a short run of tests/measure/fuzz.py, and what it and others once found."""

import sys

import numpy as np
import pytest
from conftest import ROOT, run

from utils.config import TRUST_VARIABLE, UserError
from utils.data.image_folder import FERPLUS_COLUMNS, read_ferplus

sys.path.insert(0, str(ROOT / "tests" / "measure"))
import fuzz


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_no_damaged_or_forged_file_ends_in_a_traceback_or_a_nan(kind, monkeypatch):
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    count = 12 if kind == "model, .keras" else 24  # each loads TensorFlow's network
    faults = [(seed, fault) for seed in range(count) if (fault := fuzz.try_case((kind, seed)))]
    assert not faults, faults[0]


def test_the_fuzz_can_fail():
    broken = fuzz.Kind("a", lambda: b"xx", fuzz.damage, lambda folder: [np.array([np.nan])])
    fuzz.KINDS["broken"] = broken
    try:
        assert "NaN" in fuzz.try_case(("broken", 1))
        fuzz.KINDS["broken"] = fuzz.Kind("a", lambda: b"xx", fuzz.damage, lambda folder: 1 / 0)
        assert "ZeroDivisionError" in fuzz.try_case(("broken", 2))
    finally:
        del fuzz.KINDS["broken"], fuzz._good["broken"]


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("main.py", ["--smoothing-ms", "nan"]),
        ("main.py", ["--smoothing-ms", "-1"]),
        ("main.py", ["--max-faces", "0"]),
        ("train_model.py", ["--seed", "-1"]),
        ("train_model.py", ["--epochs", "9" * 30]),
        ("train_personal.py", ["--subject", "a", "--max-forgetting", "nan"]),
        ("balance_dataset.py", ["--seed", str(2**32)]),
    ],
)
def test_flags_out_of_range_are_refused(script, flags):
    done = run(script, *flags)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"argument {flags[-2]}:" in done.stderr.splitlines()[-1]


def ferplus(tmp_path, change):
    """Return what is read of a FER+ table of one picture, changed by a function of its text."""
    (tmp_path / "é.png").write_bytes(b"")
    text = "\n".join(["Usage,Image name," + ",".join(FERPLUS_COLUMNS), "Training,é.png,0,9,0,1,0,0,0,0,0,0"])
    (tmp_path / "votes.csv").write_bytes(change(text))
    (image,), _ = read_ferplus(tmp_path, tmp_path / "votes.csv")
    return image.label, image.votes[:4]


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "latin-1"])
def test_ferplus_tables_are_read_in_any_spreadsheets_coding(coding, tmp_path):
    assert ferplus(tmp_path, lambda text: text.encode(coding)) == ("happy", (0, 9, 0, 1))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("happiness", "joy", "lacks the columns happiness"),
        (",9,", ",many,", "invalid literal"),
        (",9,", ",900,", "line 2 has 0 to 900 votes"),
        (",9,", ",-9,", "line 2 has -9 to 1 votes"),
        (",9,0,1,0,0,0,0,0,0", ",9", "line 2 is too short"),
    ],
)
def test_ferplus_tables_that_are_none_are_refused(old, new, reason, tmp_path):
    with pytest.raises(UserError, match=f"is not a FER\\+ label file .*{reason}"):
        ferplus(tmp_path, lambda text: text.replace(old, new).encode())

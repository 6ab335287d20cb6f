"""A few of the hostile files of `tests/measure/hostile.py`: handled, or refused by name, and nothing else."""

from conftest import ROOT


def test_hostile_files_are_handled_or_refused(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "measure"))
    from hostile import measure

    report = measure(range(100, 160), jobs=2, keep=tmp_path)
    assert report["tracebacks"] == report["crashes"] == report["hangs"] == {}
    assert len(report["handled"]) >= 20 and len(report["refused"]) >= 10
    assert report["peak_mb"] < 1000
    assert len(report["handled"]) + len(report["refused"]) == 60

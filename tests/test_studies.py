"""Studies lose and repeat no run, whatever happens to them, and keep no score that is no number."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from course_utils import studies
from course_utils.core import files
from course_utils.core.files import ROOT
from course_utils.datafiles.trees import DataError
from course_utils.studies import Study
from course_utils.studies.__main__ import STUDIES


@pytest.fixture
def made(monkeypatch, tmp_path):
    """A study of six quick runs in a folder of its own, and the list of settings it ran."""
    monkeypatch.setattr(files, "data_dir", lambda: tmp_path)
    ran = []

    def run(settings):
        ran.append(settings)
        return {"score": settings["seed"] * 10}

    return Study("made", [{"seed": [0, 1, 2], "lr": [1e-3, 1e-2]}], run), ran


def test_every_combination_is_run_once(made):
    study, ran = made
    for settings in study.open():
        studies.record(study, settings)
    assert study.open() == []
    assert ran == study.settings
    assert len(ran) == 6
    frame = studies.table("made")
    assert frame["score"].tolist() == [0, 0, 10, 10, 20, 20]
    assert {"seed", "lr", "seconds", "peak_bytes", "machine"} <= set(frame.columns)


def test_a_stopped_study_goes_on_where_it_was(made, monkeypatch):
    study, ran = made
    studies.record(study, study.open()[0])

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # killed while the second line is about to be put in place
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            studies.record(study, study.open()[0])
    assert len(study.done()) == 1
    for settings in study.open():
        studies.record(study, settings)
    recorded = [record["settings"] for record in study.done()]
    assert recorded == study.settings


WORKER = """
import sys, time
from pathlib import Path
from course_utils import studies
from course_utils.core import files

folder, me = Path(sys.argv[1]), sys.argv[2]
files.data_dir = lambda: folder

def run(settings):
    with (folder / "ran.txt").open("a") as log:
        log.write(f"{settings['seed']} ")
    time.sleep(60 if me == "dying" else 0.1)
    return {"score": settings["seed"]}

study = studies.Study("shared", [{"seed": [0, 1, 2, 3, 4, 5]}], run)
(folder / f"{me}.ready").touch()
while len(list(folder.glob("*.ready"))) < int(sys.argv[3]):
    time.sleep(0.001)
for settings in study.open():
    studies.record(study, settings)
"""


def workers(folder: Path, *names: str) -> list[subprocess.Popen]:
    """Processes that work on one study, all from the same moment."""
    command = [sys.executable, "-c", WORKER, str(folder)]
    return [subprocess.Popen([*command, name, str(len(names))], cwd=ROOT) for name in names]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


@pytest.mark.slow
def test_two_processes_lose_no_line_and_run_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "data_dir", lambda: tmp_path)
    assert [worker.wait(60) for worker in workers(tmp_path, "a", "b")] == [0, 0]
    assert sorted(studies.table("shared")["seed"]) == [0, 1, 2, 3, 4, 5]
    assert sorted((tmp_path / "ran.txt").read_text(encoding="utf-8").split()) == list("012345")


@pytest.mark.slow
def test_a_process_that_dies_blocks_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "data_dir", lambda: tmp_path)
    (worker,) = workers(tmp_path, "dying")
    wait_for(tmp_path / "ran.txt")
    worker.kill()
    worker.wait(60)
    study = Study("shared", [{"seed": [0]}], lambda settings: {"score": 1})
    assert studies.record(study, {"seed": 0})["score"] == 1


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None, [0.5, float("nan")]])
def test_a_score_that_is_no_number_is_not_recorded(made, score):
    study = Study("made", [{"seed": [7]}], lambda settings: {"accuracy": 1.0, "loss": score})
    studies.record(made[0], {"seed": 0, "lr": 1e-3})
    before = study.path.read_bytes()
    with pytest.raises(ValueError, match=r"made, \{'seed': 7\}: its score 'loss' .*nothing was recorded"):
        studies.record(study, {"seed": 7})
    assert study.path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"settings": {"seed": 1}, "score": NaN}', "line 2, field 'score': not a finite number"),
        ('{"settings": {"seed": 1}, "score": [0.5, Infinity]}', "line 2, field 'score': not a finite number"),
        ('{"settings": {"seed": 1}, "score": null}', "line 2, field 'score': not a finite number"),
        ('{"settings": {"seed": 1}}', "line 2, field 'score': missing"),
        ('{"settings": {"seed": 1}, "score": 1, "more": 1}', "line 1, field 'more': missing"),
        ('{"settings": 3, "score": 1}', "line 2, field 'settings': missing"),
        ("[]", "line 2, field 'settings': missing"),
    ],
)
def test_a_missing_score_is_noticed_by_every_reader(made, line, words):
    study, _ = made
    study.path.parent.mkdir()
    study.path.write_text('{"settings": {"seed": 0}, "score": 1}\n' + line + "\n", encoding="utf-8")
    for read in (study.done, study.open, lambda: studies.table("made")):
        with pytest.raises(DataError, match=rf"made.jsonl, {words}"):
            read()


def test_runs_of_another_kind_may_have_other_fields(made):
    study, _ = made
    study.path.parent.mkdir()
    study.path.write_text(
        '{"settings": {}, "score": 1}\n{"settings": {"lr": 0.1}, "score": 2, "losses": [1]}\n', encoding="utf-8"
    )
    assert studies.table("made")["score"].tolist() == [1, 2]
    assert studies.table("made")["lr"].isna().tolist() == [True, False]


def test_a_damaged_file_names_the_line(made):
    study, _ = made
    study.path.parent.mkdir()
    study.path.write_text(json.dumps({"settings": {"seed": 0}}) + '\n{"score": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match="made.jsonl, line 2, field 'settings'"):
        study.open()


def test_a_study_without_records_names_those_that_have(made):
    with pytest.raises(ValueError, match="No study 'nothing' has records; those that have: none.*course_utils.studies"):
        studies.table("nothing")
    studies.record(made[0], made[0].settings[0])
    with pytest.raises(ValueError, match="'dated' has records; those that have: made"):
        studies.table("dated")


def test_grids_of_one_study_are_joined():
    grids = [{"method": ["base"]}, {"method": ["lora"], "r": [1, 4]}]
    expected = [{"method": "base"}, {"method": "lora", "r": 1}, {"method": "lora", "r": 4}]
    assert Study("joined", grids, dict).settings == expected


def test_records_say_on_what_they_were_made():
    for record in STUDIES["dates"].done():
        assert {"settings", "seconds", "peak_bytes", "machine"} <= set(record)
        assert "torch 2" in record["machine"]
        assert "CPU (" in record["machine"], "the instruction set"
        assert record["settings"]["method"] == "base" or {"tokens", "losses"} <= set(record)


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.name)
def test_committed_records_are_complete(study):
    assert study.open() == []
    assert len(study.done()) == len(study.settings)

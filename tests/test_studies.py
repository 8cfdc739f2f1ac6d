"""Studies lose and repeat no run, whatever happens to them, and their intervals are Student's."""

import json
import os
from statistics import mean, stdev

import pandas as pd
import pytest

from course_utils import studies
from course_utils.studies import Study
from course_utils.trees import DataError


@pytest.fixture
def made(monkeypatch, tmp_path):
    """A study of six quick runs in a folder of its own, and the list of settings it ran."""
    monkeypatch.setattr(studies, "data_dir", lambda: tmp_path)
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


def test_a_damaged_file_names_the_line(made):
    study, _ = made
    study.path.parent.mkdir()
    study.path.write_text(json.dumps({"settings": {"seed": 0}}) + '\n{"score": 1}\n')
    with pytest.raises(DataError, match="made.jsonl, line 2, field 'settings'"):
        study.open()


def test_unknown_study_names_the_choices():
    with pytest.raises(ValueError, match="reply_ranks"):
        studies.table("nothing")


def test_interval_is_students(made):
    values = [1.0, 2.0, 4.0]
    center, half = studies.mean_and_interval(values)
    assert center == pytest.approx(mean(values))
    assert half == pytest.approx(4.302653 * stdev(values) / 3**0.5, rel=1e-4)  # t table, 2 degrees of freedom
    with pytest.raises(ValueError, match="1"):
        studies.mean_and_interval([1.0])


def test_summary_has_a_row_for_each_value(made):
    runs = pd.DataFrame({"lr": [1, 1, 1, 2, 2, 2], "score": [1.0, 2.0, 4.0, 3.0, 3.0, 3.0]})
    found = studies.summarize(runs, "lr", "score")
    assert found["lr"].tolist() == [1, 2]
    assert found["score"].tolist() == [pytest.approx(7 / 3), 3.0]
    assert found["score_half"].tolist() == [pytest.approx(studies.mean_and_interval([1.0, 2.0, 4.0])[1]), 0.0]


def test_grids_of_one_study_are_joined():
    grids = [{"method": ["base"]}, {"method": ["lora"], "r": [1, 4]}]
    expected = [{"method": "base"}, {"method": "lora", "r": 1}, {"method": "lora", "r": 4}]
    assert Study("joined", grids, dict).settings == expected


def test_records_say_on_what_they_were_made():
    for record in studies.STUDIES["dates"].done():
        assert {"settings", "seconds", "peak_bytes", "machine"} <= set(record)
        assert "torch 2" in record["machine"]
        assert "CPU (" in record["machine"], "the instruction set"
        assert record["settings"]["method"] == "base" or {"tokens", "losses"} <= set(record)


@pytest.mark.parametrize("study", studies.STUDIES.values(), ids=lambda study: study.name)
def test_committed_records_are_complete(study):
    assert study.open() == []
    assert len(study.done()) == len(study.settings)

"""Studies lose and repeat no run, whatever happens to them, and keep no score that is no number."""

import hashlib
import importlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import ModuleType

import pytest

from course_utils import chat, datafiles, evaluation, studies, training
from course_utils.core import files
from course_utils.core.files import ROOT
from course_utils.datafiles.trees import DataError
from course_utils.evaluation import Answer
from course_utils.studies import Study, off_ceiling, tasks
from course_utils.studies import __main__ as command
from course_utils.studies.__main__ import STUDIES
from course_utils.training import LORA, Recipe
from tests.test_rooms import imported

RECIPE = Recipe(lr=1e-3, steps=1)
UNDER_WAY: set[str] = set()  # studies with runs still missing, which no notebook and no document may quote


@pytest.fixture
def made(monkeypatch, tmp_path):
    """A study of six quick runs in a folder of its own, and the list of recipes it ran."""
    monkeypatch.setattr(files, "data_dir", lambda: tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"a": 1, "b": 2}\n', encoding="utf-8")
    ran = []

    def run(recipe):
        ran.append(recipe)
        return {"score": recipe.seed * 10}

    recipes = studies.grid(RECIPE, seed=[0, 1, 2], lr=[1e-3, 1e-2])
    return Study("made", recipes, run, {"max_new_tokens": 4}, ("rows.jsonl",)), ran


def test_every_combination_is_run_once(made):
    study, ran = made
    for recipe in study.open():
        studies.record(study, recipe)
    assert study.open() == []
    assert ran == study.recipes
    assert [(recipe.seed, recipe.lr) for recipe in ran] == [(seed, lr) for seed in (0, 1, 2) for lr in (1e-3, 1e-2)]
    frame = studies.table("made")
    assert frame["score"].tolist() == [0, 0, 10, 10, 20, 20]
    assert {"seed", "lr", "method", "seconds", "peak_bytes", "machine"} <= set(frame.columns)


def test_a_record_holds_the_whole_recipe_and_what_scored_it(made):
    study, _ = made
    line = studies.record(study, RECIPE)
    assert line["recipe"] == asdict(RECIPE)
    assert Recipe(**line["recipe"]) == RECIPE
    assert line["scoring"] == {"max_new_tokens": 4}
    content = json.dumps([[{"a": 1, "b": 2}]], sort_keys=True).encode()
    assert line["data_sha256"] == hashlib.sha256(content).hexdigest()
    assert json.loads(study.path.read_text(encoding="utf-8")) == line


OTHER = {  # another value of every field
    "lr": 1e-2,
    "steps": 2,
    "model": "other",
    "revision": "v2",
    "precision": "nf4",
    "compute_dtype": "bf16",
    "adapter": LORA,
    "trainable": "norm",
    "data": "units",
    "subset": "worst",
    "template": "chatml",
    "train_on": "all",
    "max_length": 96,
    "batch_size": 4,
    "accumulation": 2,
    "batch_order": "sequential",
    "schedule": "linear",
    "warmup_steps": 1,
    "optim": "adafactor",
    "weight_decay": 0.1,
    "max_grad_norm": 2.0,
    "seed": 7,
}


@pytest.mark.parametrize("field", [field.name for field in fields(Recipe)])
def test_a_recipe_that_differs_in_any_field_is_another_run(made, field):
    study, ran = made
    base = replace(RECIPE, schedule="constant_with_warmup")
    for recipe in (base, base, replace(base, **{field: OTHER[field]})):
        studies.record(study, recipe)
    assert ran == [base, replace(base, **{field: OTHER[field]})]


def test_other_scoring_and_other_data_make_another_run_and_other_line_endings_do_not(made, tmp_path):
    study, ran = made
    studies.record(study, RECIPE)
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b'{"b": 2, "a": 1}\r\n\r\n')
    os.utime(rows, ns=(1, 1))
    assert RECIPE not in study.open()
    assert RECIPE in replace(study, scoring={"max_new_tokens": 5}).open()
    rows.write_text('{"a": 1, "b": 3}\n', encoding="utf-8")
    os.utime(rows, ns=(2, 2))
    assert RECIPE in study.open()
    studies.record(study, RECIPE)
    assert len(ran) == 2


def test_records_that_were_scored_differently_are_not_put_in_one_table(made):
    study, _ = made
    studies.record(study, RECIPE)
    studies.record(replace(study, scoring={"max_new_tokens": 5}), RECIPE)
    with pytest.raises(DataError, match=r"made.jsonl, record 2, field 'scoring': not that of record 1"):
        studies.table("made")


def test_a_table_shows_what_the_adapter_is_set_to(made):
    study, _ = made
    for recipe in (RECIPE, replace(RECIPE, adapter={**LORA, "r": 4}), replace(RECIPE, steps=0)):
        studies.record(study, recipe)
    frame = studies.table("made")
    assert frame["method"].tolist() == ["full", "lora", "base"]
    assert frame["r"].fillna(0).tolist() == [0, 4, 0]


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
    for recipe in study.open():
        studies.record(study, recipe)
    assert [Recipe(**line["recipe"]) for line in study.done()] == study.recipes


WORKER = """
import sys, time
from pathlib import Path
from course_utils import studies
from course_utils.core import files
from course_utils.training import Recipe

folder, me = Path(sys.argv[1]), sys.argv[2]
files.data_dir = lambda: folder

def run(recipe):
    with (folder / "ran.txt").open("a") as log:
        log.write(f"{recipe.seed} ")
    time.sleep(60 if me == "dying" else 0.1)
    return {"score": recipe.seed}

study = studies.Study("shared", studies.grid(Recipe(lr=1e-3, steps=1), seed=[0, 1, 2, 3, 4, 5]), run)
(folder / f"{me}.ready").touch()
while len(list(folder.glob("*.ready"))) < int(sys.argv[3]):
    time.sleep(0.001)
for recipe in study.open():
    studies.record(study, recipe)
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
    study = Study("shared", [RECIPE], lambda recipe: {"score": 1})
    assert studies.record(study, RECIPE)["score"] == 1


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None, [0.5, float("nan")]])
def test_a_score_that_is_no_number_is_not_recorded(made, score):
    study = Study("made", [replace(RECIPE, seed=7)], lambda recipe: {"accuracy": 1.0, "loss": score})
    studies.record(made[0], RECIPE)
    before = study.path.read_bytes()
    with pytest.raises(ValueError, match=r"made, Recipe\(.*seed=7\): its score 'loss' .*nothing was recorded"):
        studies.record(study, replace(RECIPE, seed=7))
    assert study.path.read_bytes() == before


WHOLE = {"recipe": asdict(RECIPE), "scoring": {}, "data_sha256": "0", "seconds": 1, "peak_bytes": 1, "machine": "m"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"score": float("nan")}, "line 2, field 'score': not a finite number"),
        ({"score": [0.5, float("inf")]}, "line 2, field 'score': not a finite number"),
        ({"score": None}, "line 2, field 'score': not a finite number"),
        ({}, "line 2, field 'score': missing"),
        ({"score": 1, "more": 1}, "line 1, field 'more': missing"),
        ({"score": 1, "recipe": 3}, "line 2, field 'recipe': missing"),
        ({"score": 1, "recipe": {"lr": 1, "steps": 1}}, "line 2, field 'recipe.accumulation': missing"),
        ({"score": 1, "recipe": {**asdict(RECIPE), "rate": 1}}, "line 2, field 'recipe.rate': no field of training"),
        (None, "line 2, field 'recipe': missing"),
    ],
    ids=str,
)
def test_a_line_that_is_no_whole_record_is_noticed_by_every_reader(made, line, words):
    study, _ = made
    study.path.parent.mkdir()
    second = [] if line is None else WHOLE | line
    lines = [json.dumps(WHOLE | {"score": 1}), json.dumps(second)]
    study.path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for read in (study.done, study.open, lambda: studies.table("made")):
        with pytest.raises(DataError, match=rf"made.jsonl, {words}"):
            read()


@pytest.mark.parametrize("part", ["scoring", "data_sha256", "seconds", "peak_bytes", "machine"])
def test_a_line_without_a_part_of_its_identity_or_provenance_is_noticed(made, part):
    study, _ = made
    study.path.parent.mkdir()
    study.path.write_text(json.dumps({k: v for k, v in WHOLE.items() if k != part}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"made.jsonl, line 1, field '{part}': missing"):
        study.done()


def test_runs_of_another_method_may_have_other_scores(made):
    study, _ = made
    study.path.parent.mkdir()
    base = WHOLE | {"recipe": asdict(replace(RECIPE, steps=0)), "score": 1}
    lines = [json.dumps(base), json.dumps(WHOLE | {"score": 2, "losses": [1]})]
    study.path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert studies.table("made")["score"].tolist() == [1, 2]
    assert studies.table("made")["losses"].isna().tolist() == [True, False]


def test_a_study_without_records_names_those_that_have(made):
    with pytest.raises(ValueError, match="No study 'nothing' has records; those that have: none.*course_utils.studies"):
        studies.table("nothing")
    studies.record(made[0], RECIPE)
    with pytest.raises(ValueError, match="'dated' has records; those that have: made"):
        studies.table("dated")


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.name)
def test_committed_records_are_complete_and_no_others(study):
    assert bool(study.open()) == (study.name in UNDER_WAY)
    assert len(study.done()) + len(study.open()) == len(study.recipes)
    for line in study.done():
        assert "torch 2" in line["machine"]
        assert "CPU" in line["machine"] or "NVIDIA" in line["machine"]


def test_nothing_quotes_a_study_that_is_under_way():
    texts = [*files.notebooks(), *(files.ROOT / name for name in ("README.md", "CLAIMS.md", "data/README.md"))]
    for name in UNDER_WAY:
        assert not [path.name for path in texts if f"`{name}`" in path.read_text(encoding="utf-8")]


def test_no_other_study_has_the_seed_of_the_pilot():
    others = [study for study in STUDIES.values() if study.name != "off_ceiling"]
    assert off_ceiling.PILOT_SEED not in {recipe.seed for study in others for recipe in study.recipes}


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.name)
def test_a_change_of_a_file_that_a_study_reads_makes_other_runs(study, monkeypatch, tmp_path):
    """Each file counts that its run opens: with one altered, nothing of the study is done."""
    shipped = files.data_dir()
    monkeypatch.setattr(files, "data_dir", lambda: tmp_path)
    for altered in study.reads:
        shutil.copytree(shipped, tmp_path, dirs_exist_ok=True)
        with (tmp_path / altered).open("a", encoding="utf-8") as file:
            file.write('{"more": 1}\n')
        assert len(study.open()) == len(study.recipes)
    opened = opened_files(study)
    assert opened == {Path(name).name for name in study.reads}


def opened_files(study: Study) -> set[str]:
    """The data files that the code of a study names, by the loaders that it calls."""
    source = code(inspect.getmodule(study.run))
    names = {
        "load_conversations": "conversations.jsonl",
        "load_passages": "passages.jsonl",
        "load_prompts": "prompts.jsonl",
    }
    found = {file for loader, file in names.items() if loader in source}
    tasks = {f"{recipe.data}.jsonl" for recipe in study.recipes if "load_task" in source}
    return found | tasks


def code(module: ModuleType) -> str:
    """Of a study, and of the files beside it that it imports."""
    source = inspect.getsource(module)
    others = [name for name in imported(source) if name.startswith("course_utils.studies.")]
    return source + "".join(code(importlib.import_module(name)) for name in others)


def test_a_study_of_tasks_scores_rows_that_it_did_not_train_on(monkeypatch, tokenizer):
    """And counts what is exactly right."""
    trained, asked = [], []
    solutions = [row["answer"] for row in datafiles.load_task("units", "validation")]

    def generate(model, tokenizer, threads, **_):
        asked.extend(threads)
        return [Answer(solution, True) for solution in [*solutions[:59], "wrong"]]

    monkeypatch.setattr(training, "prepare_model", lambda recipe: None)
    monkeypatch.setattr(training, "fit", lambda model, examples, recipe: trained.extend(examples))
    monkeypatch.setattr(evaluation, "generate", generate)
    recipe = next(recipe for recipe in tasks.STUDY.recipes if recipe.data == "units" and recipe.steps)
    assert tasks.STUDY.run(recipe) == {"rows": 60, "exact": 59}
    assert trained == chat.encode_answers(datafiles.load_task("units", "train"), tokenizer)
    assert asked == [chat.question(row["prompt"]) for row in datafiles.load_task("units", "validation")]


def test_the_command_says_what_is_missing_and_makes_it(made, monkeypatch, capsys):
    study, ran = made
    studies.record(study, study.recipes[0])
    monkeypatch.setattr(command, "STUDIES", {"made": study})
    monkeypatch.setattr(sys, "argv", ["studies"])
    command.main()
    assert "made: 5 of 6 runs are missing, about 0.0 minutes each" in capsys.readouterr().out
    assert ran == study.recipes
    assert study.open() == []


def test_before_there_is_a_record_the_command_says_what_is_expected(made):
    study, _ = made
    assert command.announced(study) == "made: 6 of 6 runs are missing"
    expected = "made: 6 of 6 runs are missing, about 10.0 minutes each, 1.0 hours"
    assert command.announced(replace(study, minutes=10)) == expected
    studies.record(study, study.recipes[0])
    assert "about 10.0 minutes" not in command.announced(replace(study, minutes=10)), "a record says it better"


def test_the_command_names_the_studies_there_are(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["studies", "nothing"])
    with pytest.raises(SystemExit):
        command.main()
    assert "unknown study nothing; choose from dates, reply_ranks, tasks" in capsys.readouterr().err

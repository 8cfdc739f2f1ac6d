"""The course's own data: complete, balanced, correct where a machine can check, and free of what must not be in it."""

import contextlib
import doctest
import io
import itertools
import json
import re
from collections import Counter
from statistics import mean

import pandas as pd
import pytest

from course_utils import chat, datafiles, intervals, studies, tournament
from course_utils.core import files
from course_utils.core.files import ROOT
from course_utils.core.rows import read_rows
from course_utils.course import datasheet
from course_utils.datafiles.trees import split_of

TREES = datafiles.load_conversations()
MESSAGES = [message for tree in TREES for message in tree.walk()]
BEST = [message for message in MESSAGES if message.rank == 0]
PROMPTS = datafiles.load_prompts()
PASSAGES = [record for _, record in read_rows(files.data_dir() / "passages.jsonl")]
CATEGORIES = (
    "explanation how-to writing summarizing reasoning code advice planning brainstorming role-play chat facts refusal"
).split()
FLAWS = {"vague", "off-topic", "wrong", "wordy", "rude", "needless-refusal", "made-up"}
NEAR_DUPLICATE = 0.5  # share of the smaller text's three-word sequences that the other one holds, too


def every_text() -> list[str]:
    prompts = [text for p in PROMPTS for text in (p["text"], p["reference"], *p["must"])]
    return [m.text for m in MESSAGES] + prompts + [p["text"] for p in PASSAGES]


def checked_texts() -> list[str]:
    """Everything that must be right: best replies, reference answers and passages."""
    return [m.text for m in BEST] + [p["reference"] for p in PROMPTS] + [p["text"] for p in PASSAGES]


def test_size_and_balance():
    counts = Counter(tree.extra["category"] for tree in TREES)
    assert len(TREES) >= 400
    assert sorted(counts) == sorted(CATEGORIES)
    assert max(counts.values()) <= 1.5 * min(counts.values())
    assert sum(tree.lang != "en" for tree in TREES) >= 24
    assert len({tree.lang for tree in TREES}) >= 5


def test_every_answered_question_has_two_to_four_ranked_replies():
    for message in MESSAGES:
        if message.role == "prompter":
            assert [reply.rank for reply in message.replies] == list(range(len(message.replies)))
            assert 2 <= len(message.replies) <= 4


def test_conversations_need_none_of_the_loaders_leniency():
    """It takes more than this; here one line is one whole message, each id stands once, and nothing is left out."""
    content = (files.data_dir() / "conversations.jsonl").read_bytes()
    rows = [json.loads(line) for line in content.decode("utf-8").removesuffix("\n").split("\n")]
    assert b"\r" not in content
    ids = {"message_id": str, "message_tree_id": str, "role": str, "text": str, "lang": str}
    assert all(type(row[name]) is kind and row[name].strip() for row in rows for name, kind in ids.items())
    assert all(row["lang"] != "und" and not row.keys() & {"deleted", "review_result", "replies"} for row in rows)
    assert len({row["message_id"] for row in rows}) == len(rows) == len(MESSAGES)
    assert all(row["message_tree_id"] == row["message_id"] for row in rows if row["parent_id"] is None)
    ranks = {}
    for row in rows:
        if row["role"] == "prompter":
            assert row["rank"] is None
        else:
            ranks.setdefault(row["parent_id"], []).append(row["rank"])
    assert all(sorted(found) == list(range(len(found))) for found in ranks.values())


def test_worse_replies_say_what_is_wrong_with_them():
    worse = [m for m in MESSAGES if m.rank]
    assert all("flaw" not in m.extra for m in BEST)
    assert {m.extra["flaw"] for m in worse} == FLAWS
    assert min(Counter(m.extra["flaw"] for m in worse).values()) >= 30


def test_turns_and_branches():
    assert sum(datasheet.turns(tree) >= 2 for tree in TREES) >= len(TREES) / 3
    assert sum(any(m.role == "assistant" and len(m.replies) > 1 for m in tree.walk()) for tree in TREES) >= 10


def test_lengths_fit_a_cpu(tokenizer):
    lengths = [len(tokenizer(m.text)["input_ids"]) for m in BEST]
    assert 30 <= mean(lengths) <= 90
    for tree in TREES:
        assert len(chat.encode(chat.top_thread(tree), tokenizer)["input_ids"]) <= 512
    passages = [len(tokenizer(p["text"])["input_ids"]) for p in PASSAGES]
    assert min(passages) >= 80
    assert max(passages) <= 200


def test_prompts_cover_the_nine_categories_of_vicuna():
    counts = Counter(p["category"] for p in PROMPTS)
    ten = ["generic", "knowledge", "roleplay", "common-sense", "fermi", "counterfactual", "writing"]
    assert counts == {**dict.fromkeys(ten, 10), "coding": 7, "math": 3}
    assert len({p["id"] for p in PROMPTS}) == 80


def test_passages_cover_six_kinds():
    kinds = Counter(p["kind"] for p in PASSAGES)
    assert kinds == dict.fromkeys(["news", "encyclopedia", "narrative", "dialogue", "code", "poetry"], 10)


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False)) or {tuple(words)}


def overlap(a: set, b: set) -> float:
    return len(a & b) / min(len(a), len(b))


def test_no_near_duplicates_within_or_across_splits():
    """First questions and answers alike; a tree is one text of all its best replies, so copies in other words show."""
    questions = [(tree.message_id, trigrams(tree.text)) for tree in TREES]
    threads = [(tree.message_id, trigrams(" ".join(t["content"] for t in chat.top_thread(tree)))) for tree in TREES]
    for kind in (questions, threads):
        for (id_a, a), (id_b, b) in itertools.combinations(kind, 2):
            assert overlap(a, b) < NEAR_DUPLICATE, (id_a, id_b, split_of(id_a), split_of(id_b))


def test_no_evaluation_prompt_is_close_to_a_conversation_or_another_prompt():
    prompts = [(p["id"], trigrams(p["text"])) for p in PROMPTS]
    asked = [(m.message_id, trigrams(m.text)) for m in MESSAGES if m.role == "prompter"]
    for (name, a), (other, b) in itertools.chain(itertools.product(prompts, asked), itertools.combinations(prompts, 2)):
        if len(b) > 2:
            assert overlap(a, b) < NEAR_DUPLICATE, (name, other)


def test_no_passage_is_close_to_a_training_text():
    """Forgetting is measured on the passages: what is trained on must not be among them."""
    trained = [(m.message_id, trigrams(m.text)) for m in MESSAGES]
    trained += [
        (row["prompt"], trigrams(f"{row['prompt']} {row['answer']}"))
        for task in ("dates", "records", "units")
        for row in datafiles.load_task(task, "train")
    ]
    for passage in PASSAGES:
        for name, text in trained:
            if len(text) > 2:
                assert overlap(trigrams(passage["text"]), text) < NEAR_DUPLICATE, (passage["id"], name)


@pytest.mark.parametrize(
    "pattern",
    [r"https?://|www\.", r"\S+@\S+\.\w", r"(?<![\d-])\+?\d[\d ()]{8,}\d", r"(?i)\bas an ai (language )?model\b"],
    ids=["url", "e-mail", "phone", "as an AI"],
)
def test_nothing_that_must_not_be_there(pattern):
    found = [text for text in every_text() if re.search(pattern, text)]
    if "as an ai" in pattern:
        found = [text for text in found if text in {m.text for m in BEST}]
    assert found == []


GIVEN_NAMES = (
    "James Mary Robert Patricia John Jennifer Michael Linda David Elizabeth William Barbara Richard Susan Joseph "
    "Jessica Thomas Sarah Charles Karen Christopher Lisa Daniel Nancy Matthew Anthony Mark Donald Steven Paul Andrew "
    "Joshua Kenneth Kevin Brian George Edward Anna Emma Julia Laura Peter Martin Alex Sam Ben Tom Tim Max Paula Maria "
    "Carlos Juan Pedro Ana Luis Sofia Marie Pierre Jean Claire Hans Klaus Sabine Giulia Marco Ada Henri Walter Amelia "
    "Victor"
).split()
PUBLIC_OR_FICTIONAL = set(
    "Ada Lovelace,Amelia Earhart,Henri Becquerel,Marie Curie,Mary Shelley,Pedro Segundo,Pierre Curie,Ada Pell,"
    "Victor Frankenstein,Walter Tungsten,Don Juan,Juan Sebastian,Charles Darwin,Charles Babbage".split(",")
)


def test_no_private_person_is_named():
    """A given name followed by a family name is a historical figure, or a character of the course's own fiction."""
    pattern = re.compile(rf"\b(?:{'|'.join(GIVEN_NAMES)}) [A-Z][a-zà-ÿ]+\b")
    assert {name for text in every_text() for name in pattern.findall(text)} <= PUBLIC_OR_FICTIONAL


SUM = re.compile(r"(?<![\w.,])(\d+(?:\.\d+)?(?:\s*[-+*/]\s*\d+(?:\.\d+)?)+)\s*=\s*(-?\d+(?:\.\d+)?)")


def test_every_sum_is_right():
    sums = [(text, *found) for text in checked_texts() for found in SUM.findall(text)]
    assert len(sums) >= 60
    for text, expression, result in sums:
        assert eval(expression) == pytest.approx(float(result), rel=1e-6), text


def test_every_line_of_code_runs_and_does_what_it_says():
    """Blocks with >>> are doctests; the others prove themselves with assert, or at least run."""
    blocks = [block for text in checked_texts() for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    blocks += [p["text"] for p in PASSAGES if p["kind"] == "code"]
    assert len(blocks) >= 40
    for block in blocks:
        if ">>>" in block and not block.lstrip().startswith(("def", "import", "from", "class", '"""', "#")):
            test, output = doctest.DocTestParser().get_doctest(block, {}, "reply", None, 0), io.StringIO()
            result = doctest.DocTestRunner(verbose=False).run(test, out=output.write)
            assert result.failed == 0, output.getvalue()
        else:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(block, {"__name__": "reply"})


COMMON = {
    "en": "the a to and of is you it in that for",
    "es": "el la de que y en un los una por para con",
    "fr": "le la de et les des un une en pour que est",
    "de": "der die das und ist nicht ein zu den mit für",
    "pt": "o a de que e um uma para em não os com",
    "it": "il la di che e un una per in non con è",
    "nl": "de het een en van is dat je niet op te",
}


def test_language_tags_are_plausible():
    """The words of a tree fit its own language better than any other."""
    for tree in TREES:
        text = " ".join(m.text for m in tree.walk() if "```" not in m.text).lower()
        words = re.findall(r"\w+", text)
        scores = {lang: sum(words.count(w) for w in common.split()) for lang, common in COMMON.items()}
        own = tree.lang.partition("-")[0]
        assert scores[own] >= 0.8 * max(scores.values()), (tree.lang, tree.text)


def test_datasheet_quotes_the_statistics(tokenizer):
    assert datasheet.describe(tokenizer) in (ROOT / "data" / "README.md").read_text(encoding="utf-8")


FIGURES = sorted(path.stem for path in (files.data_dir() / "figures").glob("*.csv"))


@pytest.mark.parametrize("name", FIGURES)
def test_every_published_number_names_its_source(name):
    table = datafiles.load_figures(name)
    assert len(table) > 1
    assert table["source"].str.len().min() > 10
    assert not table.duplicated().any()


def test_figures_are_those_of_the_papers():
    """Against facts that can be computed: parameter counts, win counts, and what a table says of itself."""
    assert len(FIGURES) == 16
    methods = datafiles.load_figures("peft_method_comparison").set_index("method")
    layers, hidden, kv = 28, 3072, 1024  # Llama-3.2-3B
    assert methods.loc["LoRA r32 qv (alpha 64)", "trainable_parameters"] == layers * 32 * (3 * hidden + kv)
    assert methods.loc["prompt tuning, default", "trainable_parameters"] == 200 * hidden
    assert methods.loc["prefix tuning, 200 tokens, lr 1e-3", "trainable_parameters"] == 200 * 2 * layers * kv
    verdicts = datafiles.load_figures("guanaco_gpt4_verdicts")
    vicuna = verdicts[verdicts["benchmark"] == "vicuna"]
    pairs = vicuna.groupby(["model_a", "model_b"])["prompts"].sum()
    assert len(pairs) == 8 * 7 / 2
    of_draws = datafiles.load_figures("guanaco_benchmarks").set_index("prompts")["share_of_draws"]
    drawn = tournament.bootstrap(tournament.published().query("winner != 'unparsed'"), within_pairs=True)
    assert 0.975 < of_draws[80] <= (drawn["Guanaco-65B"] > drawn["ChatGPT-3.5"]).mean(), "which is too narrow"
    assert pairs.max() <= 80
    rates = datafiles.load_figures("biderman_forgetting").set_index("run")
    ratios = (rates["lora_lr"] / rates["full_lr"]).round(6).to_dict()
    assert ratios == {"code IFT": 2, "code CPT": 1, "math IFT": 5, "math CPT": 4, "Tulu mix": 20}
    ranks = datafiles.load_figures("lora_table6").groupby(["weights", "task"])["r"].apply(list)
    assert (ranks.map(lambda values: values == [1, 2, 4, 8, 64])).all()


def test_datasheet_quotes_the_study_of_the_tasks():
    runs, text = studies.table("tasks"), (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for task, group in runs.groupby("data"):
        before, after = (group.set_index("steps").loc[steps, ["exact", "rows"]] for steps in (0, 60))
        assert re.search(rf"\| {task}: .* \| {before['exact']} of {before['rows']} \| {after['exact']} of 60 \|", text)
    low = intervals.share_and_interval(60, 60)[1]
    assert f"is {100 * low:.0f} to 100 %" in text


def test_datasheet_quotes_the_ranking_study():
    """Every number of its table is computed again from the records."""
    runs, text = studies.table("reply_ranks"), (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for replies, group in runs.groupby("subset"):
        nll, nll_half = intervals.mean_and_interval(group["answer_nll"])
        stop, stop_half = intervals.mean_and_interval(group["stop_rate"])
        assert f"| {replies}-ranked replies | {nll:.3f} ± {nll_half:.3f} | {stop:.2f} ± {stop_half:.2f} |" in text
    by_seed = runs.pivot(index="seed", columns="subset")
    gaps = {score: by_seed[score]["worst"] - by_seed[score]["best"] for score in ("answer_nll", "stop_rate")}
    nll, nll_half = intervals.mean_and_interval(gaps["answer_nll"])
    stop, stop_half = intervals.mean_and_interval(gaps["stop_rate"])
    assert f"| worst minus best, by seed | {nll:.3f} ± {nll_half:.3f} | {stop:.2f} ± {stop_half:.2f} |" in text


def test_datasheet_quotes_the_pilot():
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    names = {"base": "untrained, after eight examples", "lora": "LoRA, 1e-3", "full": "full fine-tuning, 1e-4"}
    for run in studies.table("off_ceiling").itertuples():
        _, low, high = intervals.share_and_interval(run.exact, run.rows)
        share = f"{run.exact} of {run.rows}: {low:.0%} to {high:.0%}".replace("%", "", 1).replace("%", " %")
        assert f"| {names[run.method]} | {share} |" in text
        assert (low > 0.04) if run.method == "base" else (0.3 < low < high < 0.9), "the rule"


def test_datasheet_quotes_the_study_of_equal_quality():
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for (precision, lr), group in studies.table("equal_quality").groupby(["precision", "lr"]):
        by_seed = group.pivot(index="seed", columns="variant", values="heldout_nll")
        columns = by_seed.ours, by_seed.plain_peft, by_seed.ours - by_seed.plain_peft
        (*_, (gap, half)) = found = [intervals.mean_and_interval(column) for column in columns]
        means = " | ".join(f"{mean:.3f} ± {around:.3f}" for mean, around in found)
        assert f"| {precision}, {lr:g} | {means} | {by_seed.stock_trl[0]:.3f} |" in text
        assert abs(gap) < half, "the interval of the difference includes zero"
        assert lr > 1e-4 or abs(gap) + half < 0.01


def test_datasheet_quotes_the_study_of_forgetting():
    ends, text = studies.looks().query("step == steps"), (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for (data, *_), runs in ends.groupby(SETTING, dropna=False):
        scores = ("accuracy", "forgetting", "forgetting_after_rehearsal")
        means = " | ".join(quoted(runs[score], digits) for score, digits in zip(scores, (2, 3, 3), strict=True))
        assert f"| {data}, {setting(runs.iloc[0])} | {means} |" in text
        assert sorted(runs["seed"]) == [0, 1, 2]
    for run in studies.table("forgetting").query("steps == 0").itertuples():
        asked = len(datafiles.load_task(run.data, "test"))
        assert f"{round(run.few_shot_accuracy * asked)} of {asked} questions of `{run.data}`" in text


def test_datasheet_quotes_the_study_of_the_ranks():
    ends = studies.looks().query("step == steps and data == 'addition' and method == 'lora'")
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for (r, lr), runs in pd.concat([studies.table("ranks"), ends]).groupby(["r", "lr"]):
        means = f"{quoted(runs['accuracy'], 2)} | {quoted(runs['answer_nll'], 3)}"
        assert f"| r = {r:.0f}, {lr:g} | {means} |" in text


def test_datasheet_quotes_the_studies_of_methods_and_of_places():
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    untrained = studies.table("methods").query("steps == 0")["general_nll"].item()
    for study, name in (("methods", "variant"), ("placement", "place")):
        for (arm, lr), runs in studies.table(study).query("steps > 0").groupby([name, "lr"]):
            scores = runs["accuracy"], runs["validation_nll"], runs["general_nll"] - untrained
            assert f"| {arm}, {lr:g} | {' | '.join(quoted(score, 3) for score in scores)} |" in text
            assert sorted(runs["seed"]) == [0, 1, 2]
    assert f"LoRA with {studies.table('placement')['trained'].unique().item():,} trained parameters" in text


def test_datasheet_quotes_the_study_of_qlora():
    rows, text = studies.qlora.looks(), (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for (arm, lr), runs in rows.query("step == 40").groupby(["arm", "lr"]):
        assert f"| {arm}, {lr:g} | {quoted(runs['validation_nll'], 3)} | {quoted(runs['test_nll'], 3)} |" in text
        assert sorted(runs["seed"]) == studies.qlora.SEEDS
    for run in rows.query("arm == 'untrained'").itertuples():
        assert f"| nothing, {run.precision} | {run.validation_nll:.3f} | {run.test_nll:.3f} |" in text
    for arm in ("full", "LoRA", "QLoRA"):
        assert set(studies.qlora.last_looks(rows, arm)["lr"]) == {rows.query("arm == @arm")["lr"].max()}
    assert all(studies.qlora.compared(rows, "QLoRA", other).words == "worse" for other in ("LoRA", "full"))


SETTING = ["data", "method", "r", "lr", "schedule", "trainable"]


def setting(run):
    name = f"LoRA {run['lr']:g}" if run["method"] == "lora" else f"full {run['lr']:g}"
    name += f", r = {run['r']:.0f}" if run["r"] in (1, 64) else ""
    name += ", 210 matrices" if isinstance(run["trainable"], str) else ""
    return name + (", decay" if run["schedule"] == "linear" else "")


def quoted(values, digits):
    mean, half = intervals.mean_and_interval(values)
    return f"{mean:.{digits}f} ± {half:.{digits}f}"

"""Numbers in prose are recorded values: in all notebooks, the README and the datasheet."""

import inspect
import re
from collections.abc import Iterator
from statistics import fmean

import nbformat
import pytest

from course_utils import chat, datafiles, evaluation, loading, machine, studies
from course_utils.core.files import ROOT, notebooks
from course_utils.course import datasheet
from course_utils.course.claims_page import collect
from course_utils.loading import cache
from course_utils.memory import parts
from course_utils.studies.__main__ import STUDIES
from tests.notebooks.prose_numbers import unknown_numbers, unnoticed

NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in notebooks()}
VERDICTS = {
    path.stem: " ".join(f"{v.measured} {v.statement} {v.source}" for v in collect([path])) for path in notebooks()
}
DEFINITION, RULE, PUBLISHED = (
    "a definition",
    "a rule, stated before its verdict",
    "published, with its source beside it",
)
COUNTED = "counted by the reader in what is printed just before"
EXEMPT = {  # passages whose numbers nothing records, and why
    "01_lora": {
        "as a sum of matrices of **rank** 1": DEFINITION,
        "expect about 4 % of the full matrix": "the verdict's percentage, rounded",
        "those of the same 24 runs": "twice the 12 that the verdict names",
        "takes at least 5 % less": RULE,
        "one sequence of 1,304 tokens a step": "the row of data/figures/peak_memory.csv",
        "And 65 billion parameters": "the size that the verdict names as 65B",
        "borne out if it fits 24 GB": RULE,
        "lie in 27 of its 576 directions": COUNTED,
        "27 is more than the rank of 16": COUNTED,
        "a scaling of 2": DEFINITION,
        "and 4 + 4 + 8 bytes": DEFINITION,
        "4 bytes for each trained number": DEFINITION,
        "4 bytes for each frozen weight": DEFINITION,
        "with 200 test questions": "the test rows of data/tasks/addition.jsonl",
        '"399 + 214 ="': "one of these rows",
        "after 5, 10, 20, 40 and 80 steps": "the checkpoints of studies.forgetting.SCORING",
        "after 40, 80 and 160 steps": "the checkpoints of studies.forgetting.SCORING",
        "24 runs of 40 steps": "twice the 12 that the picture says",
        "A 6×6 matrix": "the toy, whose size its code gives as 6, 6",
        "the 6×6 matrix": "the toy",
        "a step counter of 4 bytes": DEFINITION,
        "below the 24 GB of such a card": DEFINITION,
        "`q_proj` of layer 15": "the name of studies.WATCHED",
        "between 5 and 20": RULE,
        "ten of the 200 questions": RULE,
        "wholly above −0.05": RULE,
        "beside 16 bytes for each parameter, the 4 of": DEFINITION,
        "an accuracy above 1, a loss below 0": DEFINITION,
        "from 0.5 in steps": RULE,
        "A bf16 number has 8 significant bits": DEFINITION,
        "24 stored runs (four rates and three seeds": "the grid of studies.dates",
        "the opposite if it takes 5 % more": RULE,
        "the dates; `addition` | 80; 160": "the steps of studies.forgetting",
        "at 11 of 11 levels and 6 of 6": "computed in test_forgetting.py",
        "a factor of 33": "1e-3 over 3e-5; test_forgetting.py has every seed choose these",
        "Wilson's interval is ± 6 points": "for 150 of 200, as test_forgetting.py computes",
    },
    "01_why_lora": {
        "a matrix of rank 2": "the toy, whose size its code gives as 6, 2",
        "for 90 % of its energy": DEFINITION,
        "is 3 for a Gaussian": DEFINITION,
        "it scales by 4 times as much": "√16",
        "= √2 it is the same": "the toy's scaling, in its code as math.sqrt(2)",
        "The √2 is our derivation": "the same",
        "with their 192 could": "the model's shapes, printed in the lesson",
        "`k` and `v` 192": "the model's shapes, printed in the lesson",
        "0 if nothing moved": DEFINITION,
        "after 80 steps, LoRA at three ranks": "the last checkpoint of studies.forgetting.SCORING",
        "a model of 3 billion parameters": "data/figures/peft_method_comparison.csv",
        "subspaces of dimension 8": "in the next cell's code",
        "It is 1 if the smaller lies in the larger": DEFINITION,
        "The means are over the 30 matrices": "the verdict of L12 says of how many the mean is",
        "the first was 16 times the last": PUBLISHED,
        "(2, 2), (8, 0), (8, 8), (32, 4) and (64, 0)": "the paper's Table 15; their sums are in the code",
        "reaches 0.9 in both": RULE,
        "LoRA at 1e-4 is still 0.030 ± 0.007 above": "in data/README.md, where test_data.py computes it",
        "1/√64": "the bound, printed by the next cell as a comparison",
        "by √2": "the toy's scaling, in its code as math.sqrt(2)",
        "and 0 if they are orthogonal": DEFINITION,
        "(2 N² + 6 N r) / (3 N²)": "a formula, whose value the next cell prints",
        "less than 70 %": RULE,
        "A bf16 number has 8 significant bits": DEFINITION,
    },
    "02_peft": {
        "with the factors 10 and 0.1": "the toy, in the next cell's code",
        "(three query heads share one of each) and 1,536 inner": "the model's shapes, printed in notebook 01",
        "of 192 numbers each": "the model's shapes, printed in notebook 01",
        "Twenty vectors of 576 numbers": "the model's shapes, printed in notebook 01",
        '"about 90 % fewer" parameters': "what courses say",
        "at least 99 % fewer": "the percentages printed below it, rounded down",
        "it was 96.4 %": "4,884,480 of the model's 134,515,008 parameters, taken from a hundred",
        "for dates in most of 16 answers after 20 steps": "a rule that was given up",
        "(With transformers 5.24, PEFT 0.21 reads": "the newest version of a lone run; see requirements.txt",
        "were run with 5.23": "the version in requirements.txt",
        "in one of 20 cases": DEFINITION,
        "differ by a factor of 60": "AdaLoRA's 691,920 over prompt tuning's 11,520, printed above",
        "100 adapters in 354 GB, instead of 100 models in 35 TB": PUBLISHED,
        "four texts of 30 tokens": "the batch's shape, printed with the data",
        "more than about 40 tokens": "where two thirds of the operations for 20 tokens more are those without them",
        "20 virtual tokens would no longer": "P, in the code of prompt tuning",
        '"399 + 214 ="': "a row of data/tasks/addition.jsonl",
        "200 test questions": "the test rows of data/tasks/addition.jsonl",
        "one of 200 is half a point": "the same",
        "above -5 points of accuracy (ten questions)": RULE,
        "5,000 steps on questions of arithmetic": PUBLISHED,
        "both, and P-tuning, whose network is 128 wide, have 20 virtual tokens": "studies.methods.METHODS",
        "Here are 20 of its 63 rows": "20 are printed just below; 63 lie in PEFT's repository",
        "Prompt tuning's 200 virtual tokens": PUBLISHED,
        "whose file has room for 20": "its 0.2 MB are 20 vectors of 3,072 numbers of 4 bytes",
        "none is among these 20": "the rows of the table",
        "LoRA's three differ by 2.0 points": "49.4 less 47.4, in the printed table",
        "a file below 50 kB": "the table of ten prints 46.20 for both, rounded up",
        "keeps 2 bytes for a gradient and 2 + 2 for Adam's states": DEFINITION,
        "within 5 % of that": RULE,
        "numbers of 4 bytes are 1,843,200 bytes": "the count that the table of ten has, times four",
        "`bf16-mixed` stores in 32 and casts to 16": DEFINITION,
    },
    "02_placement": {
        "`v` have 192 outputs where `q` has 576": "the model's shapes, printed in notebook 01",
        "what rank 8 costs on each of the seven, over all 30 layers": "in the next cell's code",
        "runs from 0.7 (`q`) to 6.4 (most of all; 8 for `down`)": "32 over ranks of studies.placement.PLACES",
        "±0.5 (WikiSQL) and ±0.1 points (MNLI)": PUBLISHED,
        "stand -4, 5 and 3": "the toy, in the next cell's code",
        "its 18 million parameters": PUBLISHED,
        "Weights of 1 are large: in the lesson, two adapters at 0.7 and 0.3 did": "both in the code",
        "PEFT 0.21 names": "the version in requirements.txt",
        "next to 1 is 1/256 or 1/128 away": DEFINITION,
        "positions that start at 0 again": DEFINITION,
    },
    "03_qlora": {
        "there are 16 indexes. Here are eight weights, and 15 evenly spaced levels between -1 and 1": DEFINITION,
        "at most 16 different values": DEFINITION,
        "let the first one be 3.0": DEFINITION,
        "For i from 0 to 16": DEFINITION,
        "its models had up to 11 and 65 billion parameters": PUBLISHED,
        "share the same 46 test conversations": "the test trees of data/conversations.jsonl",
        "on top of the 18": PUBLISHED,
        "67 kB each": "4 layers of 64 x 65 numbers of 4 bytes",
        "(the plans take 0.41.1)": "the version that memory.frameworks names for litgpt",
        "0 if nothing": DEFINITION,
        "0 if both give the next token the same": DEFINITION,
        "a little smaller at 2 bits": COUNTED,
        "the largest excess is above 20": COUNTED,
        "Inside a block of 64 the excess is below 1.6": COUNTED,
        "takes 8 quantiles on the positive side and 7 on the negative side": DEFINITION,
        "(929/960, halfway between 1 - 1/30 and 1 - 1/32)": DEFINITION,
        "if all 16 numbers are equal": RULE,
        "takes one of 16 indexes and leaves 15, an odd number, for two sides: 7 and 8": DEFINITION,
        "with 15 values: +0 and -0 are one": COUNTED,
        "The two spikes at -1 and 1": DEFINITION,
        "lands there: 1 in 64": DEFINITION,
        "Q(0) and Q(1)": DEFINITION,
        "if there are 16 of them": RULE,
        "if all 16 are 1/16": DEFINITION,
        "cut into blocks of 64": DEFINITION,
        "normal numbers in blocks of 64": DEFINITION,
        "for every 64 weights": DEFINITION,
        "(powers of ten) below 1": DEFINITION,
        "8 for each absmax of 64 weights, 32 for each second absmax of 64 · 256": DEFINITION,
        "all 64 weights of its block": DEFINITION,
        "on all 60 passages": "the passages of data/passages.jsonl",
        "of the 46 test conversations": "the test trees of data/conversations.jsonl",
        "a round trip, in blocks of 64, and 15 passages are scored": "every fourth of 60",
        "from 16 into 32 bits": DEFINITION,
        "Expect 210 adapter matrices": "printed just below",
        "one of the 210 packed weights": "printed just below",
        "That makes 32 trained runs": "the title of the picture",
        "an adapter of 0.2 % of the weights takes 26 MB": PUBLISHED,
        "if 0.2 % of 6.738 billion weights in 16 bits are 26 MB": RULE,
        "four layers of 64 × 64": DEFINITION,
        "The card has 600 kB": DEFINITION,
        "the states (133 kB) and a batch of 64 rows": "4 layers of 64 x 65 numbers, two states of 4 bytes; a batch",
        "the long batch alone (524 kB)": "512 rows of 1 kB",
        "at a batch size of 16": PUBLISHED,
        "16 to an update": PUBLISHED,
        "a card of 16, 24, 48 or 80 GB": DEFINITION,
        "its version 0.43.2": PUBLISHED,
        "each group of 32 inputs": DEFINITION,
        "can 16 of 576 directions": DEFINITION,
        "expect more at 2 bits": DEFINITION,
        "expect 1/64, or 1.56 %": DEFINITION,
        "a multiple of 16, but no whole": "where the test of restored weights found the fault, see loading.restored",
        "in blocks of 32 NF4 had 0.0873": "the table of bits and errors",
        "now with r = 16": "the default of memory.plan",
        "0.37 bits a weight": "the difference of the two numbers of [Q6]",
        "--gpu-gb 24": "an example",
    },
    "04_guanaco_sft": {
        "about 80 % to train on, 10 % for choices on the way (validation), 10 % for": DEFINITION,
        "a small profile might cut at 96": DEFINITION,
        "`max_length=96`": DEFINITION,
        "(its issue 6668)": "its number",
        "TRL 1.16 sends every position": "the version that is pinned",
        "`warmup_ratio=0.03`": PUBLISHED,
        "if the first rate of that schedule is 0": RULE,
        "within 64 tokens": "the default of evaluation.generate",
        "is multiplied with: 0.25 there, 2 here": "lora_alpha / r, printed by the next cells",
        "2e-4 for 7 and 13 billion parameters, 1e-4 for 33 and 65": PUBLISHED,
        "(Popović 2015)": "a source",
        "counts 9,209, out of 161,443 messages": PUBLISHED,
        "after 10 steps (the look nearest to ours) and 40": "the looks of studies.forgetting.SCORING",
        "gradients clipped at 1.": "studies.guanaco.THREADS",
        "46 test trees are few": "printed in the second section",
        "the planner fits a model of 7 billion parameters on 12 GB": RULE,
        "the last row needs 48 GB": "printed by the cell before",
        "in 5 GB outperforms a 26 GB Alpaca by more than 20 points": PUBLISHED,
        "an Alpaca-13B of 26 GB, more than 20 points lower": RULE,
        "adds up if table 6 (in percent": PUBLISHED,
        "fell by more than 0.2 nats": RULE,
        "is so in 97.5 % of the recorded draws": RULE,
        "how many answers end within 96 tokens": "studies.guanaco.SCORING",
        "within 0.02 nats, since other machines": "a limit that the cell prints",
        "`r = 16`, one row of 512 tokens a step": DEFINITION,
        "Notebook 03's larger plans have Guanaco's `r = 64`": "memory.PRESETS",
        "with its 96 % interval": "the second smallest and the second largest of nine",
        "`steps` (100 of 8 are two passes over ours)": "the recipe, printed by the next cell",
        "Over the 7B Alpaca (64.4), the lead is larger": PUBLISHED,
        "only 80 % of their 7B runs": PUBLISHED,
        "on 80 prompts. If the place": "printed by the next cell",
        "`r = 16`, `lora_alpha = 32`, 5e-4 (the recipe, two passes) to 1e-3 (the edge of notebook 01's": DEFINITION,
        "Guanaco: `r = 64`, `lora_alpha = 16`, 2e-4 up to 13 billion parameters, 1e-4 at 33 and 65. Rate": PUBLISHED,
    },
    "04_judging": {
        "to stay at 3000": "three times the start",
        "For each of the 28 pairs of models": "eight models, each with seven others",
        "73 % of the decided ones went to the longer": "recorded, from the published answers",
        "Is 4 the only one?": "the K of the verdict",
        "drawing the 80 prompts again": "printed at the beginning",
        "The other changes, 18 % of the pairs": "counted in the table before",
        "Recorded of 20 rows: pooling gives the printed digit in 18, the mean of the orders in 7": PUBLISHED,
        "the keys 1, 2 and 0": DEFINITION,
        "in 97.5 % of the draws": RULE,
        "found 27 of them for one model. If all 27": PUBLISHED,
        "has 135 million parameters": "the size of the default model",
        "p · hit + (1 - p) · false_alarm": "a formula",
        "sees 62 % wins": "the toy of the next cell",
        "a win counts 1": DEFINITION,
    },
    "03_memory": {
        "What transformers do is `s = 1`": DEFINITION,
        "for each block of 64": DEFINITION,
        "its adapter of r = 8": PUBLISHED,
        "33 billion parameters on 24 GB": "the model and the card, in the next cell's code as LLaMA-33B and gpu_gb=24",
        "41, 21, 10 and 5 GB for 65, 33, 13 and 7 billion parameters": PUBLISHED,
    },
    "README.md": {
        "in about 11 minutes": "added up in test_readme.py",
        "8 GB of memory, 7 GB of disk": "twice a lesson's peak; what follows, and the model",
        "a model of up to 15 GB": "7.6 billion parameters of two bytes, see test_profiles.py",
        "3 GB to download, 6 GB on disk; elsewhere about 2 GB": "measured once, with pip, on Linux",
        "makes 2.6 times the tokens per second of TRL's defaults in fp32 and 2.6 times with QLoRA": "see test_bench.py",
    },
    "data/README.md": {
        "both end between 30 and 90 %": "the rule, set before the pilot",
        "scores above 5 % after eight": "the rule, set before the pilot",
        "the untrained model had 20 right answers, LoRA 47 and full fine-tuning 33": "of a file that is gone",
        "it was only `484 + 112 =`": "an example",
        "60 steps of 8 conversations of at most 320 tokens": "the recipe in records",
        "(both with seeds 0, 1 and 2), and TRL's trainer with its defaults (seed 0)": "the recipes in the records",
        "none above 0.01 nats is left possible": "a bound that test_data computes",
        "ended 0.007 nats (1e-4) higher than the plain loop": "the records before the rule, no longer here",
        "Intervals of 95 % (Wilson)": DEFINITION,
        "Random samples of 60 trees": "what was done once",
        "427 worst replies": "what was done once",
        "60 of 60 still leaves room: the 95 % interval (Wilson) is 94 to 100 %": "computed in test_data.py",
        "(after 5, 10, 20, 40 and 80 steps, or 40, 80 and 160)": "the checkpoints of studies.forgetting.SCORING",
        '"210 matrices" is full fine-tuning': "the name of a row: seven layers in each of 30 blocks",
        "80 steps of 8, fp32, AdamW, a warm-up of 4 steps and a linear decay": "studies.methods.ADDITION",
        "methods with virtual tokens 20 of them": "studies.methods.VIRTUAL",
        "LoRA with 1,520,640 trained parameters": "computed in test_data.py",
        "P-tuning has a network of width 128": "studies.methods.METHODS",
        "(44 on `q`, 5 on all seven; single layers have one more or one less)": "studies.placement.PLACES",
        "a warm-up of 8 steps": "the recipes in the records",
        "10 of 60 questions of `dates` and 10 of 200 questions of `addition`": "computed in test_data.py",
        "on the other 50 passages": "the passages without every sixth, which test_forgetting.py counts",
        "seeds 0, 1 and 2": "those of the study, which is complete by test_studies.py",
    },
}


def outputs(cells: list[nbformat.NotebookNode]) -> str:
    """Code and its printed outputs; nbval compares those."""
    code = [cell for cell in cells if cell.cell_type == "code"]
    shown = [str(o.get("text") or o.get("data", {}).get("text/plain", "")) for cell in code for o in cell.outputs]
    return "\n".join([*(cell.source for cell in code), *shown])


def sections(cells: list[nbformat.NotebookNode]) -> Iterator[list[nbformat.NotebookNode]]:
    """The cells of a notebook, divided at its level-2 headings."""
    part: list[nbformat.NotebookNode] = []
    for cell in cells:
        if cell.cell_type == "markdown" and re.search(r"^## ", cell.source, re.M) and part:
            yield part
            part = []
        part.append(cell)
    yield part


def of_studies(*names: str) -> str:
    """What the records of some studies say of their runs."""
    lines = []
    for name in names:
        runs = studies.table(name)
        trained, seeds = runs[runs["steps"] > 0], ", ".join(map(str, sorted(runs["seed"].unique())))
        lines.append(f"{len(trained)} runs, {len(trained)} training runs, {runs['seed'].nunique()} seeds, seed {seeds}")
        for column in ("steps", "batch_size", "lr", "r", "lora_alpha", "max_length", "examples"):
            if column in runs:
                lines += [f"{column} {n:g}, {n:g} {column}" for n in runs[column].dropna().unique()]
        lines += [f"steps of {n} examples" for n in runs["batch_size"].unique()]
        lines += [f"at most {n:g} tokens" for n in runs["max_length"].dropna().unique()]
        if limit := STUDIES[name].scoring.get("max_new_tokens"):
            lines += [f"within {limit} tokens"]
    return "\n".join(lines)


def of_the_default_model() -> str:
    """Its configuration (`num_hidden_layers` and the like), its size, and what the cache says of fetching it."""
    folder, source = loading.default_model_dir(), inspect.getsource(cache)
    size = sum(path.stat().st_size for path in folder.iterdir())
    parameters = (folder / cache.WEIGHTS).stat().st_size / 4  # fp32
    config = (folder / "config.json").read_text(encoding="utf-8")
    return f"{config} {source} {round(parameters / 1e6)} million parameters, {size / 1e9:.2f} GB"


def of_the_profile() -> str:
    size = machine.profile("cpu").batch_size
    return f"steps of {size} examples, {size} at a time"


def of_the_replies() -> str:
    """How long the replies are that the study of their ranks learned from, in tokens with their end."""
    tokenizer, recipe = loading.load_tokenizer(), STUDIES["reply_ranks"].recipes[0]
    trees = datafiles.load_conversations(split="train")
    pairs = [[chat.encode(chat.top_thread(t, worst=w)[:2], tokenizer) for w in (False, True)] for t in trees]
    fitting = [pair for pair in pairs if max(len(example["input_ids"]) for example in pair) <= recipe.max_length]
    labeled = [[sum(label != chat.IGNORE for label in example["labels"]) for example in pair] for pair in fitting]
    best, worst = (fmean(column) for column in zip(*labeled, strict=True))
    return f"{len(fitting)} first questions; the best replies are {best:.0f} tokens long, the worst {worst:.0f} tokens"


def of_the_trained_conversations() -> str:
    text = outputs(NOTEBOOKS["04_guanaco_sft"].cells)
    examples = int(re.search(r'threads\["train"\], tokenizer\), (\d+)\)', text)[1])
    size = machine.profile("cpu").batch_size
    asked = re.search(r"asked_trees = .*\[:(\d+)\]", text)[1]
    limit = inspect.signature(evaluation.generate).parameters["max_new_tokens"].default
    return f"{-(-examples // size)} steps; a sample of {examples} threads; {asked} questions; within {limit} tokens"


FACTS = {
    "01_lora": lambda: (
        of_studies("dates", "forgetting", "ranks")
        + of_the_default_model()
        + f"{len(datafiles.load_task('dates', 'test'))} test questions"
    ),
    "01_why_lora": lambda: of_studies("dates") + of_the_default_model(),
    "02_peft": lambda: of_studies("methods") + of_the_default_model(),
    "02_placement": lambda: of_studies("placement") + of_the_default_model(),
    "03_qlora": lambda: of_the_profile() + of_the_default_model(),
    "03_memory": lambda: (
        f"{parts.ACTIVATIONS} bytes allocated for each byte kept, {parts.WORKSPACE / 1e6} MB for what libraries take"
    ),
    "04_guanaco_sft": lambda: f"{of_the_profile()}\n{of_the_trained_conversations()}",
    "04_judging": lambda: of_studies("answers"),
}


def without(text: str, name: str) -> str:
    for passage in EXEMPT[name]:
        text = text.replace(passage, " ")
    return text


def of_a_notebook(name: str) -> Iterator[tuple[str, str, str]]:
    """The prose of each section; what is printed in it, with verdicts and facts; and what the whole notebook prints.

    The last section looks back on all of them.
    """
    cells, facts = NOTEBOOKS[name].cells, f"{VERDICTS[name]}\n{FACTS[name]()}"
    for part in sections(cells):
        prose = "\n\n".join(cell.source for cell in part if cell.cell_type == "markdown")
        yield without(prose, name), f"{facts}\n{outputs(part) or outputs(cells)}", outputs(cells)


def of_the_readme() -> Iterator[tuple[str, str, str]]:
    everything = "\n".join(outputs(notebook.cells) for notebook in NOTEBOOKS.values())
    titles = " ".join(notebook.cells[0].source for notebook in NOTEBOOKS.values())
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = re.search(r"<!-- claims -->.*<!-- /claims -->", text, re.DOTALL)[0]  # written by the press, and compared
    facts = [*VERDICTS.values(), titles, pins, datasheet_text(), *(fact() for fact in FACTS.values())]
    yield without(text.replace(table, ""), "README.md"), "\n".join([*facts, everything]), ""


def datasheet_text() -> str:
    others = sum(tree.lang != "en" for tree in datafiles.load_conversations())
    return f"{datasheet.describe(loading.load_tokenizer())}\nEnglish but for {others} trees"


def of_the_datasheet() -> Iterator[tuple[str, str, str]]:
    """Its tables of studies are computed again in `test_data.py`, and its statistics in `datasheet`."""
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"<!-- statistics -->.*<!-- /statistics -->", "", text, flags=re.DOTALL)
    text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    quoted = of_studies(*(name for name in STUDIES if f"`{name}`" in text))
    yield without(text, "data/README.md"), "\n".join([datasheet_text(), quoted, of_the_replies()]), ""


DOCUMENTS = {
    **{name: lambda name=name: of_a_notebook(name) for name in NOTEBOOKS},
    "README.md": of_the_readme,
    "data/README.md": of_the_datasheet,
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_numbers_in_prose_were_measured_or_cited(name):
    assert [around for part in DOCUMENTS[name]() for around in unknown_numbers(*part)] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_wrong_number_is_found_out(name):
    """Each number of a document is made wrong, one at a time: few wrong ones happen to have been measured elsewhere."""
    passed, of = (sum(column) for column in zip(*(unnoticed(*part) for part in DOCUMENTS[name]()), strict=True))
    assert of > 0
    assert passed / of <= 0.2


@pytest.mark.parametrize("name", EXEMPT)
def test_every_exemption_is_needed(name):
    """A passage that is not there, or whose numbers were measured after all, goes off the list."""
    if name in NOTEBOOKS:
        text = "\n\n".join(cell.source for cell in NOTEBOOKS[name].cells if cell.cell_type == "markdown")
    else:
        text = (ROOT / name).read_text(encoding="utf-8")
    assert [passage for passage in EXEMPT[name] if passage not in text] == []


def test_a_small_number_needs_its_own_company():
    near = "steps=40, batch_size=8\nthe loss of 12 runs"
    assert unknown_numbers("It takes 40 steps, and 12 runs.", near) == []
    assert unknown_numbers("It takes 12 steps.", near) == ["It takes 12 steps."]
    assert unknown_numbers("It takes 41 steps.", near) == ["It takes 41 steps."]
    assert unknown_numbers("There are 4,884,480 of them, 0.967 each.", near, "4,884,480 x 0.967") == []
    assert unknown_numbers("2 + 2 + 8 = 12 bytes", near) == []
    assert len(unknown_numbers("2 + 2 + 8 = 13 bytes", near)) == 4

"""The solutions of lesson 04 against transformers, TRL, scipy, autograd, the course's checks, all paths, and chance."""

import copy
import itertools
import math
import random

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from scipy import optimize, stats
from transformers import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq, get_scheduler
from transformers.loss.loss_utils import ForCausalLMLoss
from trl import SFTConfig, pack_dataset

from course_utils import batches, chat, datafiles, loading, tournament
from course_utils.exercises.guanaco.accepts_collate import accepts_collate
from course_utils.exercises.guanaco.after_a_day import after_a_day
from course_utils.exercises.guanaco.answer_labels import answer_labels
from course_utils.exercises.guanaco.both_orders_asked import both_orders_asked
from course_utils.exercises.guanaco.fewest_rows import cases as conversations
from course_utils.exercises.guanaco.fewest_rows import fewest_rows
from course_utils.exercises.guanaco.gap_and_place import gap_and_place, said
from course_utils.exercises.guanaco.preferred import preferred
from course_utils.exercises.guanaco.rate_of_step import rate_of_step
from course_utils.exercises.guanaco.second_best_thread import second_best_thread
from course_utils.exercises.guanaco.step_loss import step_loss
from course_utils.exercises.guanaco.unnoticed import looked, unnoticed

SYSTEM = {"role": "system", "content": "Answer briefly."}
MARKED = """{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}\
{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}\
{% endfor %}"""


@pytest.fixture(scope="module")
def tokenizer():
    return loading.load_tokenizer()


@pytest.fixture(scope="module")
def trees():
    return datafiles.load_conversations(split="test")


def test_the_labels_are_those_that_a_template_marks(tokenizer, trees):
    end, how = (
        tokenizer.convert_tokens_to_ids("<|im_end|>"),
        {"return_dict": True, "return_assistant_tokens_mask": True},
    )
    head = tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    assert len(head) == 4
    for tree in trees:
        thread = [SYSTEM, *chat.top_thread(tree)]
        marked = tokenizer.apply_chat_template(thread, chat_template=MARKED, **how)
        ids, mask = marked["input_ids"], marked["assistant_masks"]
        wanted = [token if learned else -100 for token, learned in zip(ids, mask, strict=True)]
        assert answer_labels(ids, head, end) == wanted
        ours = chat.encode(thread, tokenizer, "chatml")
        assert answer_labels(ours["input_ids"], head, end) == ours["labels"]


def _threads(message: datafiles.Message, places: tuple = ()) -> list[tuple[tuple, list[str]]]:
    """Every path to a last message, with its places among the replies, which a file's reader puts in order."""
    if not message.replies:
        return [(places, [message.text] if message.role == "assistant" else [])]
    below = [path for n, reply in enumerate(message.replies) for path in _threads(reply, (*places, n))]
    return [(where, [message.text, *texts]) for where, texts in below]


def test_the_second_best_thread_is_that_of_all_paths(trees):
    found = 0
    for tree in copy.deepcopy(trees):
        paths = [texts for _, texts in sorted(_threads(tree))]
        different = [texts for n, texts in enumerate(paths) if texts not in paths[:n]]
        assert different[0] == [turn["content"] for turn in chat.top_thread(tree)]
        for message in tree.walk():  # unranked ones first, in their order, then the worst
            message.replies.sort(key=lambda reply: -math.inf if reply.rank is None else -reply.rank)
        assert second_best_thread(tree) == (different[1] if len(different) > 1 else None)
        found += len(different) > 1
    assert found > 20


def test_the_loss_of_a_step_and_its_gradient_are_those_of_transformers():
    torch.manual_seed(0)
    made = []
    for rows, first in ((1, 6), (3, 0), (2, 3)):
        labels = torch.randint(9, (rows, 8))
        labels[:, :first] = -100
        made.append((torch.randn(rows, 8, 9, requires_grad=True), labels))
    items = sum((labels[:, 1:] != -100).sum() for _, labels in made)  # as `Trainer._get_num_items_in_batch` counts
    theirs = sum(ForCausalLMLoss(logits, labels, 9, num_items_in_batch=items) for logits, labels in made)
    ours, tensors = step_loss(made), [logits for logits, _ in made]
    torch.testing.assert_close(ours, theirs)
    gradients = (torch.autograd.grad(loss, tensors) for loss in (ours, theirs))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("schedule", ["constant", "constant_with_warmup", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 7, 0.03, 0.31])
def test_the_rates_are_those_of_transformers(schedule, warmup, tmp_path):
    args = SFTConfig(str(tmp_path), bf16=False, report_to="none", warmup_steps=warmup)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2e-4)
    rates = get_scheduler(schedule, optimizer, args.get_warmup_steps(45), 45)
    for step in range(45):
        assert rate_of_step(step, schedule, warmup, 45, 2e-4) == pytest.approx(rates.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        rates.step()


def test_what_the_check_does_not_notice_is_what_it_was_seen_not_to_notice():
    assert unnoticed() == looked()


def test_the_collators_of_the_libraries_are_judged(tokenizer):
    def padded(collator):
        return lambda examples, pad: collator([dict(row) for row in examples])

    end = tokenizer.pad_token_id
    assert end == tokenizer.eos_token_id == 2, "the test of the collators pads with this token"
    assert accepts_collate(batches.collate)
    assert accepts_collate(padded(DataCollatorForSeq2Seq(tokenizer)))
    assert accepts_collate(padded(DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=16)))
    assert not accepts_collate(padded(DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=end)))
    usual = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    assert not accepts_collate(lambda examples, pad: usual([{"input_ids": row["input_ids"]} for row in examples]))


def test_packing_takes_as_few_rows_as_trls():
    rng = random.Random(3)
    for _ in range(5):
        lengths = [rng.randint(1, 60) for _ in range(40)]
        rows = Dataset.from_dict({"input_ids": [[0] * length for length in lengths]})
        assert len(fewest_rows(lengths, 64)) <= len(pack_dataset(rows, seq_length=64, strategy="bfd"))
    for lengths, room in conversations().values():
        rows = fewest_rows(lengths, room)
        assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
        assert len(rows) == math.ceil(sum(lengths) / room), "the task says that this is enough"


@pytest.mark.parametrize("count", [6, 17, 30])
def test_of_equal_models_one_is_preferred_by_luck_in_a_twentieth_at_most_whatever_place_is_liked(count):
    """The exact chance, from all ways in which so many prompts can be won; with one prompt less nobody is preferred."""

    def decided(a: int) -> bool:
        rows = a * [("A", "A")] + (count - a) * [("B", "B")] + 40 * [("A", "B")] + 5 * [("tie", "tie")]
        table = pd.DataFrame(rows, columns=["a_first", "b_first"]).assign(a="A", b="B")
        return preferred(table) != "not decided"

    chances = stats.binom.pmf(range(count + 1), count, 0.5)
    by_luck = [a for a in range(count + 1) if decided(a)]
    nearest = min(max(a, count - a) for a in by_luck)
    assert by_luck == [a for a in range(count + 1) if max(a, count - a) >= nearest]
    assert chances[by_luck].sum() < 0.05 <= chances[by_luck].sum() + 2 * chances[nearest - 1]


def test_a_day_is_a_step_uphill_on_the_likelihood_of_bradley_and_terry():
    names, rng = ["A", "B", "C", "D"], random.Random(0)
    matches = [(*rng.sample(names, 2), rng.choice(["first", "second", "tie"])) for _ in range(60)]
    start = {name: 1000.0 + 60 * place for place, name in enumerate(names)}
    ratings = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in start.items()}
    likelihood = 0
    for first, second, outcome in matches:
        chance = torch.sigmoid((ratings[first] - ratings[second]) * math.log(10) / 400)
        score = {"first": 1, "tie": 0.5, "second": 0}[outcome]
        likelihood = likelihood + score * chance.log() + (1 - score) * (1 - chance).log()
    likelihood.backward()
    after = after_a_day(start, matches, 8.0)
    for name in names:
        assert after[name] - start[name] == pytest.approx(8 * 400 / math.log(10) * ratings[name].grad.item())
    for _ in range(300):
        start = after_a_day(start, matches, 8.0)
    fitted = tournament.bradley_terry(pd.DataFrame(matches, columns=["first", "second", "winner"]))
    mean = sum(start.values()) / 4
    assert {name: value - mean + 1000 for name, value in start.items()} == pytest.approx(dict(fitted), abs=0.01)


@pytest.mark.parametrize("pair", [("Guanaco-65B", "ChatGPT-3.5"), ("GPT-4", "Vicuna-13B"), ("Bard", "Guanaco-7B")])
def test_gap_and_place_are_the_likeliest(pair):
    counts = said(*pair)

    def unlikely(points: np.ndarray) -> float:
        total = 0.0
        for place, each in zip((1, -1), counts, strict=True):
            odds = (points[0] + place * points[1]) * math.log(10) / 400
            won, lost = each["a"] + each["tie"] / 2, each["b"] + each["tie"] / 2
            total += won * np.log1p(np.exp(-odds)) + lost * np.log1p(np.exp(odds))
        return total

    best = optimize.minimize(unlikely, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-10}).x
    assert list(gap_and_place(*counts).values()) == pytest.approx(best.tolist(), abs=0.05)


@pytest.mark.parametrize(("hit", "bias"), [(0.8, 0.3), (0.6, 0.0), (0.7, 0.9)])
def test_a_judge_that_is_made_says_what_was_predicted(hit, bias):
    rng, count = np.random.default_rng(0), 200_000
    looks, sees = rng.random((2, count)) >= bias, rng.random((2, count)) < hit
    named = np.where(looks, sees, np.array([[True], [False]]))  # the better one, shown first and shown second
    same = named[0] == named[1]
    seen = {"right": named.mean(), "changed": 1 - same.mean(), "right if kept": named[0][same].mean()}
    assert both_orders_asked(hit, bias) == pytest.approx(seen, abs=0.005)

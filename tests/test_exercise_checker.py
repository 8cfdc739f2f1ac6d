"""The checker: what it says of answers that nobody foresaw, on a made exercise."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch

from course_utils.exercises import checker
from course_utils.exercises.checker import check, say
from course_utils.exercises.exercise import Exercise, load
from course_utils.exercises.outcomes import observe


def product(x: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
    """x W."""
    return x @ W


def cases():
    torch.manual_seed(0)
    return {
        "a small one": (torch.randn(2, 3), torch.randn(3, 3).requires_grad_()),
        "a large one": (100 * torch.randn(4, 3), torch.randn(3, 3).requires_grad_()),
    }


def doubled(x, W):
    return 2 * (x @ W)


def negative(x, W):
    return -(x @ W)


def made(**changes) -> Exercise:
    fields = {
        "answer": product,
        "kind": "write it",
        "difficulty": 1,
        "minutes": 1,
        "cases": cases,
        "mistakes": {doubled: "{ratio:.1f} times too large.", negative: "Turned around."},
        "hints": (),
        "alternatives": (),
    }
    return Exercise(**fields | changes)


def test_right_wrong_in_a_known_way_and_not_attempted():
    assert say(made(), lambda x, W: (W.T @ x.T).T) == "Correct."
    assert say(made(), lambda x, W: x @ W + x @ W) == "2.0 times too large."
    assert say(made(), lambda x, W: ...) == "Not attempted yet."


def test_of_two_recorded_mistakes_that_are_the_same_neither_is_named():
    both = {doubled: "{ratio:.1f} times too large.", lambda x, W: x @ W * 2: "The other one."}
    assert "is 2 times what is expected, everywhere" in say(made(mistakes=both), doubled)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x, W: (x @ W)[:1], r"Your result has shape \(1, 3\), expected \(2, 3\)\."),
        (lambda x, W: (x @ W).T, r"Your result is the transpose of what is expected, which has shape \(2, 3\)\."),
        (lambda x, W: 3 * (x @ W), r"Your result is 3 times what is expected, everywhere\."),
        (lambda x, W: x @ W + 0.5, r"Your result is too large by 0\.5 everywhere\."),
        (lambda x, W: x @ W - 0.5, r"Your result is too small by 0\.5 everywhere\."),
        (lambda x, W: 0 * (x @ W), r"Your result is zero everywhere\."),
        (lambda x, W: (x @ W).double(), r"the right values in torch\.float64, expected torch\.float32\."),
        (lambda x, W: (x @ W).bfloat16(), r"the right values in torch\.bfloat16, expected torch\.float32\."),
        (lambda x, W: x @ W / torch.tensor([1.0, 1.0, 0.0]), r"Your result is NaN or infinite in 2 of 6 places\."),
        (lambda x, W: (x @ W).detach(), r"the right values, but no gradient can flow back from it: was it detached\?"),
        (
            lambda x, W: x @ W.abs(),
            r"differs in \d of 6 places, most at \(\d, \d\): there -?[\d.]+, expected -?[\d.]+",
        ),
        (lambda x, W: None, r"Your result is None: is there no `return`\?"),
        (lambda x, W: 3.0, r"Your result is the float 3\.0; expected is a tensor of shape \(2, 3\)\."),
        (lambda x, W: {"y": x @ W}, r"Your result is a dict with the keys y; expected is a tensor of shape \(2, 3\)\."),
        (lambda x, W: (x, W), r"Your result is a tuple of 2; expected is a tensor of shape \(2, 3\)\."),
        (lambda x, W: pd.DataFrame([1]), r"Your result is a DataFrame; expected is a tensor of shape \(2, 3\)\."),
    ],
)
def test_what_differs_is_said_in_a_sentence(answer, said):
    text = say(made(mistakes={}), answer)
    assert text.startswith("Not right yet for any of the 2 inputs. For the first, a small one:\n")
    assert re.search(said, text)


def test_the_opposite_sign_and_a_square_transpose_are_seen():
    square = made(mistakes={}, cases=lambda: {"one": (torch.eye(3), torch.arange(9.0).view(3, 3))})
    assert "Your result has the opposite sign everywhere." in say(square, negative)
    assert "Your result is the transpose of what is expected" in say(square, lambda x, W: (x @ W).T)


def test_a_gradient_that_is_lost_or_wrong_on_the_way_is_seen():
    def half(x, W):
        return x @ (W / 2 + W.detach() / 2)

    two = made(mistakes={}, answer=lambda x, W, V: x @ W + x @ V, cases=lambda: {"one": (torch.eye(2), *_two())})
    assert "The part 'gradient of W' is 0.5 times what is expected, everywhere." in say(made(mistakes={}), half)
    assert "No gradient reaches V: something on its way is detached." in say(
        two, lambda x, W, V: x @ W + x @ V.detach()
    )


def _two():
    return tuple(torch.full((2, 2), float(n)).requires_grad_() for n in (1, 2))


def test_an_input_that_is_changed_is_named_even_if_the_result_is_right():
    def spoils(x, W):
        x *= 2
        return x @ W / 2

    text = say(made(mistakes={}), spoils)
    assert "It changes its input x in place: make a new one instead." in text
    assert "Your result" not in text
    table = made(mistakes={}, answer=lambda t: t["a"].sum(), cases=lambda: {"one": (pd.DataFrame({"a": [1, 2]}),)})
    assert say(table, lambda t: t.assign(b=1)["a"].sum()) == "Correct."
    assert "It changes its input t in place" in say(table, lambda t: (t.__setitem__("b", 1), t["a"].sum())[1])


def test_an_error_is_told_with_its_line_and_without_a_trace():
    def broken(x, W):
        y = x + 1
        return W @ y

    text = say(made(), broken).splitlines()
    assert text[0].startswith("Not right yet")
    assert re.fullmatch(r"line \d+: return W @ y", text[1])
    assert text[2].startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert len(text) == 3
    inside_numpy = say(made(), lambda x, W: torch.tensor(np.linalg.inv(np.zeros((2, 2))))).splitlines()
    assert re.fullmatch(r"line \d+: inside_numpy = .*", inside_numpy[1])
    assert inside_numpy[2:] == ["LinAlgError: Singular matrix"]


def test_an_assert_in_a_test_is_told_how_to_say_no():
    def asserts(x, W):
        if len(x) != 2:
            raise AssertionError  # as an assert does, which pytest would put words to
        return x @ W

    tests = made(kind="test it", mistakes={})
    assert say(tests, asserts).splitlines()[2:] == [
        "AssertionError",
        "An assert stops your test. It says no by returning False.",
    ]
    assert say(made(mistakes={}), asserts).splitlines()[2:] == ["AssertionError"]


def test_a_recorded_mistake_may_be_an_error():
    def turned(x, W):
        return W @ x

    assert say(made(mistakes={turned: "Turned: {error}"}), lambda x, W: W @ x).startswith("Turned: mat1 and mat2")


def test_an_error_in_one_input_alone_is_told_for_that_one():
    text = say(made(), lambda x, W: x @ W if len(x) == 2 else x @ x)
    assert text.startswith("Not right yet for 1 of 2 inputs: a large one.\n")


def test_what_is_unfinished_is_named():
    keys = made(mistakes={}, answer=lambda n: {"a": n, "b": 2 * n}, cases=lambda: {"one": (1,), "two": (2,)})
    assert say(keys, lambda n: {"a": n, "b": ...}) == "Not finished yet. There is still a `...` in: b"
    assert say(keys, lambda n: ... if n == 2 else {"a": 1, "b": 2}).endswith("still a `...` in: two")
    assert say(keys, lambda n: {"a": ..., "b": ...}) == "Not finished yet. There is still a `...` in: a, b"


def test_parts_are_compared_one_by_one():
    keys = made(mistakes={}, answer=lambda n: {"a": n, "b": (2 * n, "x")}, cases=lambda: {"one": (10,)})
    assert say(keys, lambda n: {"b": [np.int64(20), "x"], "a": torch.tensor(10)}) == "Correct."
    wrong = say(keys, lambda n: {"a": n, "b": (15, "y")}).splitlines()
    assert wrong[0] == "Not right yet."
    assert wrong[1] == "The part 'b, item 0' is 15, expected 20: 5 too small, 0.75 times."
    assert wrong[2] == "Also different: b, item 1."
    fewer = "Your result is a dict with the keys b; expected is a dict with the keys a, b."
    assert fewer in say(keys, lambda n: {"b": (20, "x")})
    nothing = "Your result is None: is there no `return`? Expected is a dict with the keys a, b."
    assert nothing in say(keys, lambda n: None)
    nested = "Missing in your result: b, item 0, b, item 1; not asked for: b."
    assert nested in say(keys, lambda n: {"a": 10, "b": 20})
    assert "The part 'b, item 1' is 'y', expected 'x'." in say(keys, lambda n: {"a": 10, "b": (20, "y")})
    assert "The part 'a' is the str '10'; expected is the int 10." in say(keys, lambda n: {"a": "10", "b": (20, "x")})


def test_whole_numbers_are_exact_and_others_nearly():
    count = made(mistakes={}, answer=lambda n: n, cases=lambda: {"one": (4_884_480,)})
    assert say(count, lambda n: float(n)) == "Correct."
    assert "is 4,884,481, expected 4,884,480" in say(count, lambda n: n + 1)
    share = made(mistakes={}, answer=lambda n: n / 3, cases=lambda: {"one": (2,)})
    assert say(share, lambda n: 0.666667) == "Correct."
    assert say(share, lambda n: 0.667).startswith("Not right yet.")


def test_answers_get_copies_and_a_fixed_seed_and_leave_the_readers_random_numbers_alone():
    noisy = made(answer=lambda x: x + torch.randn(3), cases=lambda: {"one": (torch.zeros(3),)}, mistakes={})
    assert say(noisy, lambda x: x + torch.randn(3)) == "Correct."
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    observe(noisy, noisy.answer, (torch.zeros(3),))
    assert torch.rand(1) == expected


def test_a_solution_that_fails_is_no_answer():
    """Otherwise whoever fails in the same way would be right."""
    with pytest.raises(ZeroDivisionError):
        say(made(answer=lambda x, W: 1 / 0), product)


def test_what_is_said_depends_on_nothing_but_the_answer():
    assert len({say(made(mistakes={}), lambda x, W: x @ W.abs()) for _ in range(3)}) == 1


def test_check_prints_and_never_raises(capsys, monkeypatch):
    monkeypatch.setattr(checker, "names", lambda: ["product"])
    monkeypatch.setattr(checker, "load", lambda name: made())
    for given in (product, product(*cases()["a small one"]), doubled):
        assert check(given) is None
    right, called, renamed = capsys.readouterr().out.splitlines()
    assert right == "Correct."
    assert called.startswith("Give the function itself to the checker")
    assert renamed == "There is no exercise 'doubled'; the function has to keep the name of its stub: product."


def test_of_a_prediction_with_several_faults_a_known_cause_is_told_and_nothing_that_is_right():
    one = load("first_noticed")
    right = one.answer()
    two = right | {"StartsAtOne": "outputs", "NoScaling": "parameters"}
    said = say(one, lambda: two)
    assert said.startswith("2 of 5 wrong: m starts at another value in StartsAtOne")
    assert said.endswith("There is another cause as well.")
    unknown = right | {"StartsAtOne": "parameters", "NoScaling": "nothing"}
    assert say(one, lambda: unknown) == "2 of 5 wrong: NoScaling, StartsAtOne."


def test_of_a_setup_with_several_faults_each_is_told_in_its_own_sentence():
    said = say(load("fitting_33b"), lambda: {"method": "qlora", "r": 16, "micro_batch": 8})
    assert said.splitlines()[0] == "Not right yet. rules: an update sees 8 texts, not 16; r is 16, the lowest is 64."
    assert re.fullmatch(r"Not right yet. memory: [\d.]+ GB, of which [\d.]+ GB are [a-z ]+\.", said.splitlines()[1])
    with_commas = {"rank_pattern": {"gate_proj,up_proj,down_proj": 2}, "lora_alpha": 16, "target_modules": "all-linear"}
    assert "rank_pattern: matches no layer." in say(load("fitting_places"), lambda: with_commas)
    both = with_commas | {"alpha_pattern": {"gate_proj,up_proj,down_proj": 4}}
    assert "names with commas between them are one" in say(load("fitting_places"), lambda: both)
    assert "is no regular expression" in say(load("fitting_places"), lambda: with_commas | {"rank_pattern": {"*": 2}})


def test_an_answer_that_changes_its_input_is_told_so_and_of_which_places_differ():
    def in_place(ids, head, end):
        ids[:] = [-100] * len(ids)
        return ids

    said = say(load("answer_labels"), in_place)
    assert "It changes its input ids in place" in said
    assert "keys" not in said


def test_a_number_is_not_said_to_be_so_many_times_infinity():
    never = made(mistakes={}, answer=lambda n: math.inf, cases=lambda: {"one": (2,)})
    assert say(never, lambda n: 12.0).endswith("Your result is 12, expected inf.")


def test_a_renamed_function_is_told_the_names_it_may_have_meant(capsys):
    def preferred_one(orders):
        return orders

    check(preferred_one)
    assert "its stub: preferred" in capsys.readouterr().out


def test_a_mistake_that_makes_nan_is_known_again():
    def lost(x, W):
        return x @ W * math.nan

    def again(x, W):
        return torch.full((len(x), W.shape[1]), math.nan)

    known = made(
        mistakes={lost: "{wrong} of {cases} are NaN."}, cases=lambda: {"one": (torch.ones(2, 3), torch.ones(3, 3))}
    )
    assert say(known, again) == "1 of 1 are NaN."
    number = made(mistakes={lambda n: math.nan: "{yours} for 1."}, answer=lambda n: n / 3, cases=lambda: {"one": (2,)})
    assert say(number, lambda n: math.inf - math.inf) == "nan for 1."

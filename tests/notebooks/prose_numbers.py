"""Which numbers in a text were measured? A small one has to stand beside the same word as where it was measured.

A large or broken number is found by its value alone: that 4,884,480 stands in two places is no chance. That 3 does, is
one, so a whole number below 100 needs company: one of the three words before or behind it, as in "40 steps" and
`steps=40`. A sum or product that is written out is worked out instead.
"""

import functools
import re

NUMBER = re.compile(r"(?<![\w.,^/-])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?![\w/])")
NOT_QUOTED = re.compile(
    "|".join(
        [
            r"\(http[^)]*\)|\]\([^)]*\)|^#.*$|\[[\w ·]+\]|==[\d.]+",  # addresses, headings, ids of claims, pins
            r"arXiv[: ]\d+\.\d+|et al\.,? \d{4}|Machines \d{4}|\b[A-Z]\w+ and [A-Z]\w+ \d{4}",  # sources
            r"(?:[Nn]otebook|section|Table)s? \d+(?:\.\d+)?(?: (?:and|to) \d+)?|\*\*\d\d · [^*]*\*\*",  # places
            r"ISO 8601|\d+-bit|\b(?:4|8|16|32) bits\b|95 %|Llama-[\d.]+\w*|SmolLM2-\w+|Apache-2\.0|CC BY 4\.0",  # names
            r"^\*Measured.*$",  # written by the runner
        ]
    ),
    re.MULTILINE,
)
EQUATION = re.compile(r"(\d[\d,.]*(?: [+x×-] \d[\d,.]*)+) = (\d[\d,.]*\d|\d)")
TOKEN = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?|[a-zA-Zα-ω√%]+")
SMALL, WINDOW = 100, 3
COMMON = set(
    "a an the of in on to and or is are was were be by for with as at it its that this than then so not no from each "
    "every all but if into per only we you they which what has have had can x e s t i d n self print f".split()
)


def value(text: str) -> float:
    return float(text.replace(",", "").rstrip("."))


@functools.cache
def values(text: str) -> frozenset[float]:
    """All numbers in a text, `1,234.5` and `1e-3` alike."""
    return frozenset(value(found) for found in NUMBER.findall(text.replace("_", "")))


@functools.cache
def company(text: str) -> frozenset[tuple[float, str]]:
    """Each number of a text with each word near it; a plural is its singular, and `batch_size` is two words."""
    tokens = TOKEN.findall(re.sub(r"[_²]", " ", text))
    found = set()
    for place, token in enumerate(tokens):
        if token[0].isdigit():
            near = tokens[max(0, place - WINDOW) : place] + tokens[place + 1 : place + 1 + WINDOW]
            words = {word.lower().removesuffix("s") for word in near if not word[0].isdigit()}
            found |= {(value(token), word) for word in words - COMMON}
    return frozenset(found)


def true_equations(text: str) -> str:
    """The sums and products in a text that are right; their numbers need no other source."""
    right = []
    for found in EQUATION.finditer(text):
        written = re.sub(r"[x×]", "*", found[1].replace(",", ""))
        if eval(written, {"__builtins__": {}}) == value(found[2]):  # digits and signs only
            right.append(found[0])
    return " ".join(right)


def quoted(prose: str) -> list[tuple[float, str, str]]:
    """The numbers of a text: the value, what stands before it, and behind."""
    text = NOT_QUOTED.sub(" ", prose)
    worked_out = values(true_equations(text))
    found = [
        (value(n[0]), text[max(0, n.start() - 40) : n.start()], text[n.end() :][:40]) for n in NUMBER.finditer(text)
    ]
    return [each for each in found if each[0] not in worked_out]


def is_recorded(number: float, before: str, behind: str, near: str, far: str) -> bool:
    """Whether a number was measured: a small one in the text `near` and in company, others there or in `far`."""
    if number != int(number) or number >= SMALL:
        return number in values(near) or number in values(far)
    own = {pair for pair in company(f"{before} {number:g} {behind}") if pair[0] == number}
    return bool(own & company(near))


def unknown_numbers(prose: str, near: str, far: str = "") -> list[str]:
    """The numbers of a text that were not measured, each with the words around it."""
    return [
        " ".join(f"{before}{number:g}{behind}".split())
        for number, before, behind in quoted(prose)
        if not is_recorded(number, before, behind, near, far)
    ]


def unnoticed(prose: str, near: str, far: str = "") -> tuple[int, int]:
    """How many numbers could be one larger (or, if broken, a tenth) without being found out, and of how many."""
    numbers = [(n + 1 if n == int(n) else round(1.1 * n, 6), before, behind) for n, before, behind in quoted(prose)]
    return sum(is_recorded(*each, near, far) for each in numbers), len(numbers)

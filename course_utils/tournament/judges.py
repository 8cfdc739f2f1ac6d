"""Which of two answers is better? A judge is any function of a question and two answers; here are three.

What a judge returns is one of `verdicts.OUTCOMES`. It is told no model's name.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping

import pandas as pd
import torch
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HTTPError
from sacrebleu import sentence_chrf
from torch import nn
from tqdm import tqdm
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils.chat import TEMPLATES, encode_prompt, question
from course_utils.core.mode import evaluating
from course_utils.tournament.verdicts import Tournament

Judge = Callable[[str, str, str], str]  # (question, first answer, second answer) -> one of OUTCOMES

LETTERS = {"A": "first", "B": "second", "C": "tie"}
ASK = """Question:
{question}

Answer A:
{first}

Answer B:
{second}

Which answer is better? Reply with one letter: A, B, or C if they are equally good."""
LETTER = re.compile(r"\W*(?:(?:the )?(?:best|better|final)? ?(?:answer|choice|verdict)(?: is)?\W+)?([ABC])\W*", re.I)

KEY = "COURSE_JUDGE_KEY"  # the variable of the environment that holds the endpoint's key
PAUSES = (1, 4)  # seconds before a failed request is made again; then it is given up


def play(tournament: Tournament, judge: Judge) -> pd.DataFrame:
    """Let a judge decide all matches that wait for a verdict; returns all verdicts.

    Each is on the disk before the next match is judged: after an error or a kill, the same call goes on.

    Raises:
        ValueError: the judge said something else than `verdicts.OUTCOMES`; and what the judge itself raises.
    """
    for match in tqdm(tournament.waiting(), unit="match", ncols=78, mininterval=1.0):
        tournament.record(match, judge(*tournament.seen(match)))
    return tournament.verdicts()


def by_reference(prompts: Iterable[Mapping[str, str]], margin: float = 1.0) -> Judge:
    """Whoever is closer to the reference answer of the prompt, by chrF (Popović 2015), wins; no order can matter.

    Args:
        prompts: rows with `text` and `reference`, as `datafiles.load_prompts` returns them.
        margin: in points of chrF, of 100; up to so many apart, it is a tie.

    The judge raises a ValueError for a question that is none of the prompts.
    """
    references = {prompt["text"]: prompt["reference"] for prompt in prompts}

    def judge(asked: str, first: str, second: str) -> str:
        if asked not in references:
            raise ValueError(f"There is no reference answer to {asked[:60]!r}; pass the prompts of the tournament.")
        ahead = sum(
            sign * sentence_chrf(answer, [references[asked]]).score for sign, answer in ((1, first), (-1, second))
        )
        return "tie" if abs(ahead) <= margin else "first" if ahead > 0 else "second"

    return judge


def by_model(model: nn.Module, tokenizer: PreTrainedTokenizerBase, template: str = "chatml") -> Judge:
    """A local causal model is asked, and the likeliest of the three letters counts; so no verdict is unparsed.

    Raises:
        ValueError: in this template, the letters begin with the same token.
    """
    words = [TEMPLATES[template].space + letter for letter in LETTERS]
    letters = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
    if len(set(letters)) < len(letters):
        raise ValueError(f"With this tokenizer, {words} begin with the same token; choose another template.")

    @torch.no_grad()
    def judge(asked: str, first: str, second: str) -> str:
        text = ASK.format(question=asked, first=first, second=second)
        with evaluating(model) as device:
            ids = torch.tensor([encode_prompt(question(text), tokenizer, template)], device=device)
            logits = model(input_ids=ids, use_cache=False).logits[0, -1, letters]
        return list(LETTERS.values())[int(logits.argmax())]

    return judge


def by_endpoint(base_url: str, model: str, *, send: bool = False, timeout: float = 60.0) -> Judge:
    """A chat model behind an address that speaks OpenAI's protocol: a local server, or a paid service.

    Args:
        base_url: up to the part before `/chat/completions`, such as "http://localhost:8000/v1".
        model: its name there.
        send: False sends nothing, and the judge raises a PermissionError that says what would be sent where.
        timeout: seconds for a reply.

    The key is read from the environment, `COURSE_JUDGE_KEY`; without one the word "none" is sent. A reply that names no
    winner is "unparsed". A request that fails is made again, twice, unless the server says that it is the request's
    fault; then the judge raises a ConnectionError.
    """
    key = os.environ.get(KEY) or "none"  # with an empty one the client would send the key of the hub, to anybody
    client = InferenceClient(base_url=base_url, api_key=key, timeout=timeout)

    def judge(asked: str, first: str, second: str) -> str:
        if not send:
            raise PermissionError(
                f"Nothing was sent. This judge would send questions and answers to {base_url}; if they may go there, "
                "make it with send=True."
            )
        text = ASK.format(question=asked, first=first, second=second)
        return parsed(_reply(client, model, text, base_url))

    return judge


def parsed(reply: str) -> str:
    """The outcome that a reply names: a line of it is a letter, or says which the better answer is.

    A reply that names none, or two different ones, is "unparsed": what it means is not guessed.
    """
    found = {match[1].upper() for line in reply.splitlines() if (match := LETTER.fullmatch(line))}
    return LETTERS[found.pop()] if len(found) == 1 else "unparsed"


def _reply(client: InferenceClient, model: str, text: str, base_url: str) -> str:
    """What the model answers; a failed request is made again after each of `PAUSES`."""
    messages, pauses = [{"role": "user", "content": text}], iter(PAUSES)
    while True:
        try:
            reply = client.chat_completion(messages, model=model, temperature=0.0, max_tokens=512)
            return reply.choices[0].message.content or ""
        except (OSError, HTTPError) as error:
            status, pause = getattr(getattr(error, "response", None), "status_code", None), next(pauses, None)
            at_fault = status is not None and 400 <= status < 500 and status != 429
            if at_fault or pause is None:
                what = f"{base_url} failed ({str(error).splitlines()[0]})"
                raise ConnectionError(f"{what}. Check address, model and {KEY}; the same call goes on here.") from error
            time.sleep(pause)
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise ConnectionError(
                f"{base_url} replied, but with no chat completion; base_url has to end before /chat/completions."
            ) from error

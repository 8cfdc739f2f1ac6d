"""What does it answer, does it stop, and is it right?"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby

import torch
from peft import PeftModel
from torch import nn
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils.batches import Batch, collate_prompts
from course_utils.chat import TEMPLATES, Turn, encode_prompt, end_id, normalized
from course_utils.core import noise
from course_utils.core.mode import evaluating
from course_utils.evaluation.plain_layers import plain_layers


@dataclass(frozen=True)
class Answer:
    """A generated answer; `stopped` says whether the model ended it itself, rather than the length limit."""

    text: str
    stopped: bool


@torch.no_grad()
def generate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    threads: Sequence[list[Turn]],
    *,
    template: str = "guanaco",
    max_new_tokens: int = 64,
    batch_size: int = 64,
) -> list[Answer]:
    """The model's greedy answer to each thread (turns that end with the user's); none to no threads.

    Prompts of like length share a batch, and are padded on the left, so that every answer starts right behind its
    prompt; behind virtual tokens, only prompts of equal length do. Where there is memory for it, the weights are
    unpacked and added up once (`plain_layers`). The model is left in the mode it was in, the tokenizer is not changed.

    Raises:
        ValueError: as `chat.encode`, naming the thread.
    """
    end, answers = end_id(tokenizer, template), {}
    checked = [normalized(thread, TEMPLATES[template].heads, index) for index, thread in enumerate(threads)]
    prompts = [encode_prompt(thread, tokenizer, template) for thread in checked]
    pad = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    lengths = [len(prompt) for prompt in prompts]
    with evaluating(model) as device, plain_layers(model), _head_sees_one_piece(model), noise.of_unpadded_prompts():
        for chosen in _batches(lengths, batch_size, padded=not _has_virtual_tokens(model)):
            batch = collate_prompts([prompts[index] for index in chosen], pad)
            asked = {name: tensor.to(device) for name, tensor in batch.items()}
            answers |= zip(chosen, _continued(model, asked, end, pad, max_new_tokens), strict=True)
    return [_answer(answers[index], end, tokenizer) for index in range(len(prompts))]


def _batches(lengths: Sequence[int], batch_size: int, padded: bool) -> Iterator[list[int]]:
    """The places of the prompts of each batch, by length."""
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    for _, alike in groupby(by_length, key=lambda place: 0 if padded else lengths[place]):
        places = list(alike)
        yield from (places[start : start + batch_size] for start in range(0, len(places), batch_size))


def _continued(model: nn.Module, asked: Batch, end: int, pad: int, max_new_tokens: int) -> list[list[int]]:
    """The tokens that follow each prompt; whenever a quarter of the rows have ended, those leave the batch."""
    ids, mask, cache = asked["input_ids"], asked["attention_mask"], None
    start, answers, open_rows = ids.shape[1], [[] for _ in ids], list(range(len(ids)))
    while open_rows:
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=start + max_new_tokens - ids.shape[1],
            do_sample=False,
            num_beams=1,
            use_cache=True,
            repetition_penalty=1.0,  # some models bring other settings for these four
            eos_token_id=end,
            pad_token_id=pad,
            stopping_criteria=StoppingCriteriaList([_QuarterEnded(start, end)] if _rows_can_leave(model) else []),
            return_dict_in_generate=True,
        )
        for row, tokens in zip(open_rows, output.sequences[:, start:].tolist(), strict=True):
            answers[row] = tokens
        going = (output.sequences[:, start:] != end).all(dim=1).nonzero().squeeze(1)
        if output.sequences.shape[1] >= start + max_new_tokens or not len(going):
            break
        cache = output.past_key_values
        cache.batch_select_indices(going)
        open_rows = [open_rows[index] for index in going.tolist()]
        ids = output.sequences[going]
        mask = torch.cat([mask[going], mask.new_ones(len(ids), ids.shape[1] - mask.shape[1])], dim=1)
    return answers


def _head_sees_one_piece(model: nn.Module) -> AbstractContextManager:
    """While it lasts, the output layer's input is contiguous.

    transformers hands it the last position of each prompt, a slice of all. For a slice and a frozen weight, as below an
    adapter, torch multiplies row by row, and copies the weight for each: 64 times the largest matrix of a small model.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if head is None:
        return nullcontext()
    return head.register_forward_pre_hook(lambda _, seen: (seen[0].contiguous(), *seen[1:]))


class _QuarterEnded(StoppingCriteria):
    """Stops all rows of a batch as soon as a quarter of them have ended."""

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        ended = (input_ids[:, self.start :] == self.end).any(dim=1)
        return (4 * ended.sum() >= len(ended)).expand(len(ended))


def _rows_can_leave(model: nn.Module) -> bool:
    """Whether what the model remembers is one entry a row; prompt tuning and its kin prepare a cache of their own."""
    if _has_virtual_tokens(model):
        return False
    if model.generation_config.cache_implementation:
        return False
    return not model.config.is_encoder_decoder and not model._is_stateful and model._supports_default_dynamic_cache()


def _has_virtual_tokens(model: nn.Module) -> bool:
    """Whether PEFT puts virtual tokens in front of a row, padding and all; it then counts padding as places, too."""
    return isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning


def _answer(ids: list[int], end: int, tokenizer: PreTrainedTokenizerBase) -> Answer:
    stopped = end in ids
    return Answer(tokenizer.decode(ids[: ids.index(end)] if stopped else ids).strip(), stopped)


def stop_rate(answers: Sequence[Answer]) -> float:
    """Share of answers that the model ended by itself.

    Raises:
        ValueError: no answers.
    """
    if not answers:
        raise ValueError("The list of answers is empty: pass what evaluation.generate returns for one thread or more.")
    return sum(answer.stopped for answer in answers) / len(answers)


def accuracy(answers: Sequence[Answer], references: Sequence[str]) -> float:
    """Share of answers that equal their reference, character by character.

    Raises:
        ValueError: no answers, or not one reference for each.
    """
    if not answers or len(answers) != len(references):
        raise ValueError(
            f"The numbers of answers ({len(answers)}) and references ({len(references)}) have to be equal and not 0: "
            "pass one reference for each answer."
        )
    return sum(a.text == reference for a, reference in zip(answers, references, strict=True)) / len(references)

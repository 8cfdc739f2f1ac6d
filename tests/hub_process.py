"""Reads from the hub that `HF_ENDPOINT` names, through the course's own code; prints what came, or what was said.

A process of its own, because the hub's libraries read their environment once, when they are imported.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import torch

from course_utils import datafiles, loading, machine, memory
from tests.hub_server import TOKEN


def model(model_id: str, revision: str | None = None) -> str:
    """A digest of all weights."""
    found = loading.load_model(model_id, "fp32", revision=revision, device="cpu").state_dict()
    return hashlib.sha256(b"".join(found[name].numpy().tobytes() for name in sorted(found))).hexdigest()


def tokenizer(model_id: str) -> list[int]:
    return loading.load_tokenizer(model_id)("he: the")["input_ids"]


def data(source: str) -> list[str]:
    return [tree.text for tree in datafiles.load_conversations(source)]


def with_token(model_id: str) -> str:
    os.environ["HF_TOKEN"] = TOKEN
    try:
        return model(model_id)
    finally:
        del os.environ["HF_TOKEN"]


def of_profile(model_id: str) -> str:
    """The model that a profile ends up with whose own is this one; as on a GPU with room for it."""
    machine.device = lambda: "cuda"
    torch.cuda.get_device_properties = lambda: SimpleNamespace(total_memory=16e9)
    return loading.with_model(replace(machine.PROFILES["t4"], model=model_id)).model


def parameters(model_id: str) -> int:
    """By the planner, which reads the configuration alone."""
    return memory.plan(model_id, length=8).costs.parameters


CASES: dict[str, Callable[[], object]] = {
    "model": lambda: model("own/small"),
    "tokenizer": lambda: tokenizer("own/small"),
    "older model": lambda: model("own/small", "v1"),
    "no such revision": lambda: model("own/small", "v9"),
    "no such model": lambda: model("own/nothing"),
    "no such tokenizer": lambda: tokenizer("own/nothing"),
    "no weights": lambda: model("own/empty"),
    "pickled weights": lambda: model("own/pickled"),
    "gated 401": lambda: model("own/gated401"),
    "gated 403": lambda: model("own/gated403"),
    "gated tokenizer": lambda: tokenizer("own/gated401"),
    "gated, with the token": lambda: with_token("own/gated401"),
    "cut once": lambda: model("own/cut"),
    "cut for good": lambda: model("own/broken"),
    "cut for good, later": lambda: model("own/broken"),
    "data": lambda: data("hub:own/talk"),
    "older data": lambda: data("hub:own/talk@v1"),
    "no such data": lambda: data("hub:own/nothing"),
    "no such revision of data": lambda: data("hub:own/talk@v9"),
    "planned": lambda: parameters("own/small"),
    "profile": lambda: of_profile("own/whole"),
    "profile, gated": lambda: of_profile("own/gated403"),
    "gated data": lambda: data("hub:own/gated"),
}


def answer(case: Callable[[], object]) -> dict[str, object]:
    try:
        return {"value": case()}
    except Exception as error:
        return {"error": str(error), "kind": [kind.__name__ for kind in type(error).__mro__]}


if __name__ == "__main__":
    chosen = sys.argv[1:] or CASES
    json.dump({name: answer(CASES[name]) for name in chosen}, sys.stdout)

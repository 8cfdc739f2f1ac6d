"""Is the model of this machine's profile to be had? If not, the default one takes its place, and a sentence says so."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub import snapshot_download

from course_utils import machine
from course_utils.core import hub
from course_utils.loading import cache

FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.model")


def with_model(profile: machine.Profile) -> machine.Profile:
    """The profile, with its model fetched from the hub; or with the default model, and a sentence on stderr.

    The default model takes the place of one that the hub does not give, or that the GPU has no room for. A model that
    `COURSE_MODEL` names is the user's own wish: nothing takes its place, and loading it says what is wrong.
    """
    if profile.model == cache.NAME or os.environ.get("COURSE_MODEL", "").strip():
        return profile
    wrong = _no_room(profile)
    if not wrong:
        try:
            folder = snapshot_download(profile.model, allow_patterns=FILES)
            if any(Path(folder).glob("*.safetensors")):
                return profile
            wrong = "no weights of it came: the hub was not asked, and the cache has none."
        except Exception as error:
            if not hub.failed(error):
                raise
            wrong = f"the hub does not give it: {hub.reason(error)}.{hub.closed()}"
    print(
        f"The profile {profile.name!r} has the model {profile.model}, but {wrong} {cache.NAME} takes its place, which "
        "needs no hub.",
        file=sys.stderr,
    )
    return replace(profile, model=cache.NAME)


def _no_room(profile: machine.Profile) -> str:
    """Why the model does not fit into the GPU; nothing if it does."""
    if machine.device() != "cuda":
        return f"no GPU is in use here, and it is made for one of {profile.gpu_gb:g} GB."
    there = torch.cuda.get_device_properties().total_memory / 1e9
    if there >= profile.gpu_gb:
        return ""
    return f"its training takes up to {profile.gpu_gb:g} GB, and the GPU has {there:.1f} GB."

"""The hub, for real: the libraries and the course's own code against a server that speaks the download protocol."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import datafiles
from course_utils.core import files
from course_utils.core.files import ROOT
from course_utils.core.rows import read_rows
from course_utils.loading import cache
from tests import hub_process, hub_server
from tests.conftest import toy_tokenizer
from tests.hub_server import Repository

pytestmark = pytest.mark.slow
BREAKS = 6  # the hub's library asks once and five times more
CHUNK = constants.DOWNLOAD_CHUNK_SIZE  # what is less than one is lost with the connection
WEIGHTS = "model.safetensors"


def contents(folder: Path) -> hub_server.Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def made(seed: int, folder: Path) -> hub_server.Files:
    """A random model with a tokenizer, as `save_pretrained` writes them; of its weights, half is more than a chunk."""
    torch.manual_seed(seed)
    tokenizer = toy_tokenizer(end="</s>", eos_token="</s>", pad_token="<s>")
    shape = {"hidden_size": 512, "intermediate_size": 3072, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return contents(folder)


def rows(*trees: int) -> bytes:
    """Some of the course's own conversations, as a file of JSON lines."""
    every = [row for _, row in read_rows(files.data_dir() / "conversations.jsonl")]
    ids = list(dict.fromkeys(row["message_tree_id"] for row in every))
    chosen = {ids[number] for number in trees}
    return "".join(f"{json.dumps(row)}\n" for row in every if row["message_tree_id"] in chosen).encode()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> hub_server.Files:
    return made(0, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def answers(small, tmp_path_factory):
    """What each case of `hub_process` got, and what the server was asked for."""
    older = made(1, tmp_path_factory.mktemp("older"))
    bare = {name: content for name, content in small.items() if name != WEIGHTS}
    talk = {"main": {"talk.jsonl": rows(0, 1)}, "v1": {"talk.jsonl": rows(2)}}
    repositories = {
        "models/own/small": Repository({"main": small, "v1": older}),
        "models/own/whole": Repository({"main": small}),
        "models/own/empty": Repository({"main": bare}),
        "models/own/pickled": Repository({"main": bare | {"pytorch_model.bin": b""}}),
        "models/own/gated401": Repository({"main": small}, gated=401),
        "models/own/gated403": Repository({"main": small}, gated=403),
        "models/own/cut": Repository({"main": small}, breaks={WEIGHTS: 1}),
        "models/own/broken": Repository({"main": small}, breaks={WEIGHTS: BREAKS}),
        "datasets/own/talk": Repository(talk),
        "datasets/own/gated": Repository(talk, gated=403),
    }
    with hub_server.serve(repositories) as (address, asked):
        environment = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "PYTHONPATH")}
        environment |= {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT)}
        environment |= {"HF_HOME": str(tmp_path_factory.mktemp("home")), "COURSE_CACHE": str(cache.cache_dir())}
        command = [sys.executable, "-m", "tests.hub_process"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), asked


@pytest.fixture(scope="module")
def digest(small, tmp_path_factory) -> str:
    """Of the weights as they were made, without the course's code."""
    folder = tmp_path_factory.mktemp("digest")
    for name, content in small.items():
        (folder / name).write_bytes(content)
    found = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    return hashlib.sha256(b"".join(found[name].numpy().tobytes() for name in sorted(found))).hexdigest()


def test_every_case_is_looked_at(answers):
    assert set(answers[0]) == set(hub_process.CASES)


def test_a_model_comes_by_its_id_and_by_its_revision(answers, digest):
    found = answers[0]
    assert found["model"] == {"value": digest}
    assert found["older model"]["value"] not in (digest, None)


def test_a_tokenizer_comes_by_its_id(answers):
    assert answers[0]["tokenizer"]["value"][-1] == toy_tokenizer().convert_tokens_to_ids("</s>")


def test_a_gated_model_comes_with_the_token(answers, digest):
    assert answers[0]["gated, with the token"] == {"value": digest}


def test_the_planner_reads_the_configuration_alone(answers, small):
    shape = json.loads(small["config.json"])
    width, mlp, vocabulary = shape["hidden_size"], shape["intermediate_size"], shape["vocab_size"]
    assert answers[0]["planned"] == {"value": 4 * width**2 + 3 * width * mlp + 2 * vocabulary * width + 3 * width}


def test_a_profile_s_model_is_fetched_whole_or_the_default_one_takes_its_place(answers):
    found, asked = answers
    assert found["profile"] == {"value": "own/whole"}
    assert {WEIGHTS, "config.json", "tokenizer.json"} <= {
        each.path.rpartition("/")[2] for each in asked if each.method == "GET" and "own/whole/resolve" in each.path
    }
    assert found["profile, gated"] == {"value": cache.NAME}


def ranges(asked: list[hub_server.Asked], model: str, file: str) -> list[str | None]:
    """Which bytes of a file were asked for, each time; None: all."""
    mine = [each for each in asked if each.method == "GET" and each.path.startswith(f"own/{model}/resolve/")]
    return [each.range for each in mine if each.path.endswith(f"/{file}")]


def test_a_broken_download_goes_on_where_it_stopped(answers, digest, small):
    found, asked = answers
    assert found["cut once"] == {"value": digest}
    assert CHUNK < len(small[WEIGHTS]) // 2 < 2 * CHUNK
    assert ranges(asked, "cut", WEIGHTS) == [None, f"bytes={CHUNK}-"]


def test_after_a_download_that_stays_broken_the_next_call_fetches_that_file_anew_and_no_other(answers, digest):
    """Within a call the hub's library goes on where the connection broke; half a file does not outlast the call."""
    found, asked = answers
    assert found["cut for good, later"] == {"value": digest}
    assert ranges(asked, "broken", WEIGHTS) == [None, *[f"bytes={CHUNK}-"] * (BREAKS - 1), None]
    assert ranges(asked, "broken", "config.json") == [None]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no such revision", "'own/small'.*no such revision; name a branch"),
        ("no such model", "'own/nothing'.*none of that name, or it is private; check the id"),
        ("no such tokenizer", "'own/nothing'.*none of that name"),
        ("no weights", "'own/empty' has no weights .*but .*config.json"),
        ("pickled weights", "'own/pickled' has its weights in pytorch_model.bin only.*pickle"),
        ("gated 401", "'own/gated401'.*is gated: ask for access.*hf auth login"),
        ("gated 403", "'own/gated403'.*is gated: ask for access.*hf auth login"),
        ("gated tokenizer", "'own/gated401'.*is gated"),
        ("cut for good", "'own/broken'.*the connection broke several times .*run it again"),
        ("no such data", "'own/nothing'.*leave out `source`"),
        ("no such revision of data", "'own/talk@v9'.*no such revision"),
        ("gated data", "'own/gated'.*is a gated dataset.*ask for access"),
    ],
)
def test_each_failure_is_a_sentence_that_names_the_way_out(answers, case, words):
    found = answers[0][case]
    assert "error" in found, found
    assert "OSError" in found["kind"]
    assert re.search(words, found["error"]), found["error"]
    assert "\n" not in found["error"]


def test_a_data_set_comes_by_its_id_and_by_its_revision(answers):
    texts = [tree.text for tree in datafiles.load_conversations()]
    assert set(answers[0]["data"]["value"]) <= set(texts)
    assert len(answers[0]["data"]["value"]) == 2
    assert len(answers[0]["older data"]["value"]) == 1
    assert answers[0]["data"] != answers[0]["older data"]

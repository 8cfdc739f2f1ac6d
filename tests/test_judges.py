"""Judges: by reference, by a model, and over HTTP against a small server that also fails and answers nonsense."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import constants
from transformers import LlamaForCausalLM

from course_utils import chat, datafiles, tournament
from course_utils.tournament import judges
from tests.conftest import tiny, toy_tokenizer
from tests.test_tournament import held

ASKED = ("Which way is up?", "Up.", "Down.")
PROMPTS = datafiles.load_prompts()


def test_whoever_is_closer_to_the_reference_wins_in_either_order():
    judge = tournament.by_reference(PROMPTS)
    for prompt in PROMPTS[::10]:
        close, far = prompt["reference"][:-20], "I am not sure about that at all."
        assert judge(prompt["text"], close, far) == "first"
        assert judge(prompt["text"], far, close) == "second"
        assert judge(prompt["text"], far, far) == judge(prompt["text"], "", "") == "tie"


def test_a_margin_makes_ties():
    reference = PROMPTS[0]["reference"]
    first, second = reference[:-5], reference[:-6]
    assert tournament.by_reference(PROMPTS, margin=0.0)(PROMPTS[0]["text"], first, second) == "first"
    assert tournament.by_reference(PROMPTS, margin=5.0)(PROMPTS[0]["text"], first, second) == "tie"


def test_a_question_without_a_reference_is_named():
    with pytest.raises(ValueError, match="no reference answer to 'Who goes there"):
        tournament.by_reference(PROMPTS)("Who goes there?", "a", "b")


def test_a_model_names_its_likeliest_letter():
    tokenizer, model = toy_tokenizer(eos_token="<|im_end|>"), tiny(512)
    judge, ids = tournament.by_model(model, tokenizer), []
    text = judges.ASK.format(question=ASKED[0], first=ASKED[1], second=ASKED[2])
    ids = chat.encode_prompt(chat.question(text), tokenizer, "chatml")
    with torch.no_grad():
        logits = model.eval()(torch.tensor([ids])).logits[0, -1]
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in "ABC"]
    likeliest = max(range(3), key=lambda place: logits[letters[place]].item())
    assert judge(*ASKED) == ("first", "second", "tie")[likeliest]


@pytest.mark.parametrize(("letter", "outcome"), [("A", "first"), ("B", "second"), ("C", "tie")])
def test_each_letter_has_its_outcome(letter, outcome):
    tokenizer, model = toy_tokenizer(eos_token="<|im_end|>"), tiny(512)
    model.lm_head = torch.nn.Linear(32, 512, bias=True)
    with torch.no_grad():
        model.lm_head.bias[tokenizer.convert_tokens_to_ids(letter)] += 100
    judge = tournament.by_model(model.train(), tokenizer)
    assert judge(*ASKED) == outcome
    assert model.training, "left in the mode it was in"


def test_letters_that_cannot_be_told_apart_are_named():
    with pytest.raises(ValueError, match="begin with the same token; choose another template"):
        tournament.by_model(tiny(512), toy_tokenizer(eos_token="</s>"), "guanaco")


@pytest.mark.parametrize("template", ["chatml", "guanaco"])
def test_the_default_tokenizer_tells_the_letters_apart(tokenizer, template):
    judge = tournament.by_model(tiny(49152), tokenizer, template)
    assert judge(*ASKED) in ("first", "second", "tie")


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ("A", "first"),
        ("b.", "second"),
        ("**C**", "tie"),
        ("A is longer, but B is right.\n\nAnswer: B", "second"),
        ("The better answer is: A\nIt says more.", "first"),
        ("", "unparsed"),
        ("Best answer: 2", "unparsed"),
        ("I cannot choose between A and B", "unparsed"),
        ("A\nOr rather\nB", "unparsed"),
        ("A good question. D", "unparsed"),
    ],
)
def test_a_reply_is_read_and_not_guessed(reply, outcome):
    assert judges.parsed(reply) == outcome


class Server(ThreadingHTTPServer):
    """Speaks OpenAI's protocol: takes (status, body) from `replies`, then says "A"; remembers what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[tuple[int, str]] = []
        self.requests: list[tuple[str, dict, dict]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, dict(self.headers), body))
        status, reply = self.server.replies.pop(0) if self.server.replies else (200, says("A"))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(reply.encode())

    def log_message(self, *_: object) -> None:
        pass


def says(text: str | None) -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # it closes this machine's own addresses, too
    monkeypatch.setattr(judges, "PAUSES", (0, 0))
    monkeypatch.delenv(judges.KEY, raising=False)
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_nothing_is_sent_without_being_asked(server):
    judge = tournament.by_endpoint(server.url, "some-model")
    with pytest.raises(PermissionError, match=f"Nothing was sent.*{server.url}.*send=True"):
        judge(*ASKED)
    assert server.requests == []


def test_the_question_and_both_answers_are_sent_and_no_name(server):
    assert tournament.by_endpoint(server.url, "some-model", send=True)(*ASKED) == "first"
    ((path, _, body),) = server.requests
    assert (path, body["model"], body["temperature"]) == ("/v1/chat/completions", "some-model", 0.0)
    (message,) = body["messages"]
    assert all(text in message["content"] for text in ASKED)
    assert message["content"].index(ASKED[1]) < message["content"].index(ASKED[2])


@pytest.mark.parametrize(("key", "sent"), [(None, "Bearer none"), ("", "Bearer none"), ("secret", "Bearer secret")])
def test_the_key_is_the_environment_s_and_never_the_hub_s(server, monkeypatch, key, sent):
    """The client would otherwise send the token of the hub to any address."""
    monkeypatch.setenv("HF_TOKEN", "hf_private")
    if key is not None:
        monkeypatch.setenv(judges.KEY, key)
    tournament.by_endpoint(server.url, "m", send=True)(*ASKED)
    headers = {name.lower(): value for name, value in server.requests[0][1].items()}
    assert headers["authorization"] == sent
    assert "hf_private" not in json.dumps(server.requests)


def test_a_reply_that_names_no_winner_is_unparsed(server):
    server.replies = [(200, says("As a language model I like both.")), (200, says(None)), (200, says("Answer: B"))]
    judge = tournament.by_endpoint(server.url, "m", send=True)
    assert [judge(*ASKED) for _ in range(3)] == ["unparsed", "unparsed", "second"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failure_that_may_pass_is_tried_again(server, status):
    server.replies = [(status, "{}"), (status, "{}")]
    assert tournament.by_endpoint(server.url, "m", send=True)(*ASKED) == "first"
    assert len(server.requests) == 3


@pytest.mark.parametrize(("status", "requests"), [(500, 3), (401, 1), (404, 1)])
def test_a_failure_that_stays_is_named(server, status, requests):
    server.replies = [(status, "{}")] * 3
    with pytest.raises(ConnectionError, match=f"{server.url} failed .*{status}.*Check address, model and COURSE_JUDGE"):
        tournament.by_endpoint(server.url, "m", send=True)(*ASKED)
    assert len(server.requests) == requests


def test_a_server_that_is_not_there_is_named(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match=f"{server.url} failed"):
        tournament.by_endpoint(server.url, "m", send=True)(*ASKED)


@pytest.mark.parametrize("nonsense", ["<html>Welcome</html>", "[]", "{}", '{"choices": []}', '{"choices": [{}]}'])
def test_what_is_no_chat_completion_is_no_verdict(server, nonsense):
    server.replies = [(200, nonsense)]
    with pytest.raises(ConnectionError, match="replied, but with no chat completion"):
        tournament.by_endpoint(server.url, "m", send=True)(*ASKED)


def test_a_tournament_over_http_goes_on_after_a_failure(server, tmp_path):
    """Six verdicts, then the server is down; the same call later asks for the rest alone."""
    path = tmp_path / "verdicts.jsonl"
    server.replies = [(200, says("A"))] * 5 + [(200, says("who knows"))] + [(401, "{}")]
    judge = tournament.by_endpoint(server.url, "m", send=True)
    with pytest.raises(ConnectionError):
        tournament.play(held(path), judge)
    assert len(held(path).done) == 6
    verdicts = tournament.play(held(path), judge)
    assert len(server.requests) == 6 + 1 + 12
    assert (len(verdicts), (verdicts["winner"] == "unparsed").sum()) == (18, 1)
    tournament.play(held(path), judge)
    assert len(server.requests) == 19


def test_a_judge_sees_no_name_of_a_model(tmp_path):
    """Answers here are numbers, so that a name could only come from outside of them."""
    answers = {name: ["1", "2", "3"] for name in ("base", "lora", "full")}
    seen = []
    tournament.play(held(tmp_path / "v.jsonl", answers=answers), lambda *texts: seen.append(texts) or "tie")
    assert len(seen) == 18
    assert not any(name in text for texts in seen for text in texts for name in answers)


def test_what_a_judge_says_stands_by_the_side_that_it_was_shown(tmp_path):
    """A judge that likes "lora on ..." wins matches for it from both sides."""
    found = tournament.play(
        held(tmp_path / "v.jsonl"),
        lambda _, first, second: "first" if "lora" in first else "second" if "lora" in second else "tie",
    )
    orders = tournament.both_orders(found)
    with_lora = orders[(orders[["a", "b"]] == "lora").any(axis=1)]
    assert len(with_lora) == 6
    assert (with_lora[["a_first", "b_first"]] == "lora").all(axis=None)


def test_a_judge_that_says_something_else_is_stopped(tmp_path):
    path = tmp_path / "v.jsonl"
    with pytest.raises(ValueError, match="the judge 'made' said 'A'"):
        tournament.play(held(path), lambda *_: "A")
    assert not path.exists()


def test_the_shared_model_judges(model: LlamaForCausalLM, tokenizer):
    assert tournament.by_model(model, tokenizer)(*ASKED) in ("first", "second", "tie")

"""The errors of the hub's library, however deep they lie, become words; without a network and without a server."""

import re

import pytest
from huggingface_hub import errors

from course_utils.core import hub


def error(kind: type[Exception], words: str = "said") -> Exception:
    """An error of the hub, which wants to know the response that it came from."""
    made = kind.__new__(kind)
    made.args = (words,)
    return made


def raised(cause: Exception, outer: Exception) -> Exception:
    """`outer`, as a library raises it because of `cause`."""
    try:
        raise outer from cause
    except type(outer) as found:
        return found


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (errors.GatedRepoError, "it is gated"),  # which is a RepositoryNotFoundError as well
        (errors.RepositoryNotFoundError, "none of that name"),
        (errors.RevisionNotFoundError, "no such revision"),
        (hub.HTTPError, "the connection broke several times .said."),
    ],
)
def test_the_reason_is_what_the_hub_said_first(cause, words):

    found = raised(error(cause), OSError("Can't load it.\nMore."))
    assert re.search(words, hub.reason(found))
    assert re.search(words, hub.reason(raised(found, ValueError("again"))))


def test_an_unknown_reason_is_the_first_line_of_the_error():
    assert hub.reason(OSError("No disk:\nmore")) == "No disk"
    assert hub.reason(ValueError()) == "ValueError"


def test_no_network_at_all_is_no_broken_connection():
    refused = type("ConnectError", (hub.HTTPError,), {})
    assert hub.reason(raised(refused("refused"), OSError("Can't load"))) == "it cannot be reached (refused)"


XET = "Task error: File reconstruction error: CAS Client Error: error sending request"


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (OSError("x"), True),
        (hub.HTTPError("x"), True),
        (RuntimeError(XET), True),
        (RuntimeError("CUDA out of memory"), False),
        (ValueError("x"), False),
    ],
)
def test_a_download_that_breaks_below_hf_xet_is_the_hubs_failure(error, failed):
    assert hub.failed(error) is failed
    if "CAS" in str(error):
        assert hub.reason(error).startswith("the connection broke several times (Task error")


@pytest.mark.parametrize("name", hub.CLOSING)
def test_each_variable_that_closes_the_hub_is_named(monkeypatch, name):
    for each in hub.CLOSING:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "1")
    assert hub.closed().startswith(f" {name} is set")


@pytest.mark.parametrize(("value", "said"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_a_closed_hub_is_named(monkeypatch, value, said):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert ("HF_HUB_OFFLINE is set" in hub.closed()) is said

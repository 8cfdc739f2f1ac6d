"""Why did the hub not give what was asked for? In words, with the way out."""

import os
import re

from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

HTTPError = HfHubHTTPError.__bases__[0]  # of the client that the hub's library uses, httpx2 or, in older ones, httpx
FAILURES = (OSError, HTTPError)  # a connection that breaks is not an OSError
XET = re.compile(r"\bCAS\b|reconstruction|\bxet\b", re.IGNORECASE)  # what breaks below hf_xet is a bare RuntimeError
CLOSING = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
SAID = (
    (GatedRepoError, "it is gated: ask for access on its page, then run `hf auth login`"),
    (RevisionNotFoundError, "it has no such revision; name a branch, a tag or a commit that its page lists"),
    (RepositoryNotFoundError, "there is none of that name, or it is private; check the id"),
)


def failed(error: BaseException) -> bool:
    """Whether it is the hub, or the way to it, that an error speaks of."""
    return isinstance(error, FAILURES) or (type(error) is RuntimeError and bool(XET.search(str(error))))


def reason(error: BaseException) -> str:
    """What went wrong, by the error that the hub's library raised first; if that is unknown, the error's first line."""
    causes = _causes(error)
    for kind, words in SAID:
        if any(isinstance(cause, kind) for cause in causes):
            return words
    broken = next((each for each in causes if failed(each) and not isinstance(each, OSError)), None)
    if broken is not None and type(broken).__name__ == "ConnectError":
        return f"it cannot be reached ({broken})"
    if broken is not None:
        return f"the connection broke several times ({broken}); run it again: what came whole is not fetched again"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".:")


def closed() -> str:
    """A sentence, with a blank before it, where the environment forbids the hub; else nothing."""
    found = [name for name in CLOSING if os.environ.get(name, "").strip().upper() in ("1", "ON", "YES", "TRUE")]
    return f" {found[0]} is set: to use the network, unset it and start Python again." if found else ""


def _causes(error: BaseException | None) -> list[BaseException]:
    """An error and what led to it, the last first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found

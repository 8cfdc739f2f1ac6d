"""Why did the hub not give what was asked for? In words, with the way out."""

import os

from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

HTTPError = HfHubHTTPError.__bases__[0]  # of the client that the hub's library uses, httpx2 or, in older ones, httpx
FAILURES = (OSError, HTTPError)  # a connection that breaks is not an OSError
SAID = (
    (GatedRepoError, "it is gated: ask for access on its page, then run `hf auth login`"),
    (RevisionNotFoundError, "it has no such revision; name a branch, a tag or a commit that its page lists"),
    (RepositoryNotFoundError, "there is none of that name, or it is private; check the id"),
)


def reason(error: BaseException) -> str:
    """What went wrong, by the error that the hub's library raised first; if that is unknown, the error's first line."""
    causes = list(_causes(error))
    for kind, words in SAID:
        if any(isinstance(cause, kind) for cause in causes):
            return words
    broken = next((each for each in causes if isinstance(each, HTTPError) and not isinstance(each, OSError)), None)
    if broken is not None:
        return f"the connection broke several times ({broken}); run it again: what came whole is not fetched again"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".:")


def closed() -> str:
    """A sentence, with a blank before it, where the environment forbids the hub; else nothing."""
    if os.environ.get("HF_HUB_OFFLINE", "").strip().upper() not in ("1", "ON", "YES", "TRUE"):
        return ""
    return " HF_HUB_OFFLINE is set: to use the network, unset it and start Python again."


def _causes(error: BaseException | None) -> list[BaseException]:
    """An error and what led to it, the last first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found

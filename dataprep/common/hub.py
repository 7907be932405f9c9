"""What reading from the Hub and writing to it share: bad moments are waited for, and a refusal keeps its reason.

`huggingface_hub` is imported only when one of these functions is called.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from dataprep.common.errors import DataprepError

WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try
LONGEST_WAIT = 60.0  # seconds that a Hub may ask us to wait
BUSY = (429, 500, 502, 503, 504)
_LONGEST_REASON = 300  # characters

Found = TypeVar("Found")


def retried(call: Callable[[], Found]) -> Found:
    """What `call` gives, tried again after a while where the Hub is busy or the line was cut; five times at most."""
    for wait in WAITS:
        try:
            return call()
        except Exception as fault:
            asked = _asked_to_wait(fault)
            if asked is None:
                raise
            time.sleep(min(max(wait, asked), LONGEST_WAIT))
    return call()


def _asked_to_wait(fault: BaseException) -> float | None:
    """Seconds that the Hub wants us to wait; None where another try would not help."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    fault = cause(fault)
    if isinstance(fault, HfHubHTTPError):
        asked = fault.response.headers.get("Retry-After", "")
        return None if fault.response.status_code not in BUSY else float(asked) if asked.isdigit() else 0.0
    return 0.0 if isinstance(fault, HTTPError) else None  # the line, not the Hub


def cause(fault: BaseException) -> BaseException:
    """What is behind a fault of the client: it wraps those of an upload's threads, and of a file that it looks for."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    behind = fault.__cause__ if isinstance(fault, RuntimeError | LocalEntryNotFoundError) else None
    return cause(behind) if behind else fault


def reason(fault: BaseException) -> str:
    """What the client or the Hub says of a fault, on one line and without a full stop; empty where it says nothing.

    Of an answer of the Hub only its message is told: the client adds addresses, and the answer may be a page.
    """
    from huggingface_hub.errors import HfHubHTTPError

    told = fault.server_message or "" if isinstance(fault, HfHubHTTPError) else str(fault) or type(fault).__name__
    line = " ".join(told.split())
    return (line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}…").rstrip(".")


def token(error: type[DataprepError]) -> str | None:
    """The token that the client would send, from where it finds it; None where there is none.

    Raises:
        error: it cannot be sent; a client would tell of its characters, or repeat it.
    """
    import huggingface_hub

    found = huggingface_hub.get_token()
    if found and not (found.isascii() and found.isprintable()):
        raise error(
            "The token of the Hub holds characters that no token has: copy it anew to HF_TOKEN or `hf auth login`."
        )
    return found

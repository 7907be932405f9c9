"""What reading from and writing to the Hugging Face Hub share: retries, error messages, and the token.

`huggingface_hub` is imported only when one of these functions is called.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from dataprep.common.errors import DataprepError, PublishError
from dataprep.common.text import excerpt

WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further attempt
MAX_WAIT = 60.0  # seconds, however long the Hub asks us to wait
BUSY = (429, 500, 502, 503, 504)  # HTTP statuses that a later attempt may not get

LOGIN = "set HF_TOKEN to a token with write access, or run `hf auth login`"

T = TypeVar("T")


def retried(call: Callable[[], T]) -> T:
    """Return the result of `call`, retried up to four times while the Hub is busy or the connection breaks."""
    for wait in WAITS:
        try:
            return call()
        except Exception as fault:
            requested = _requested_wait(fault)
            if requested is None:
                raise
            time.sleep(min(max(wait, requested), MAX_WAIT))
    return call()


def _requested_wait(fault: BaseException) -> float | None:
    """Return the seconds that the Hub asks us to wait; None where another attempt would not help."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    fault = cause(fault)
    if isinstance(fault, HfHubHTTPError):
        header = fault.response.headers.get("Retry-After", "")
        return None if fault.response.status_code not in BUSY else float(header) if header.isdigit() else 0.0
    return 0.0 if isinstance(fault, HTTPError) else None  # the connection, not the Hub


def cause(fault: BaseException) -> BaseException:
    """Return the exception behind one of the client: it wraps those of upload threads and of downloads."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    behind = fault.__cause__ if isinstance(fault, RuntimeError | LocalEntryNotFoundError) else None
    return cause(behind) if behind else fault


def reason(fault: BaseException) -> str:
    """Return the message of the client or the Hub on one line, without a full stop; empty where there is none.

    Of the Hub's response only its message is used: the client adds addresses, and the body may be a whole page.
    """
    from huggingface_hub.errors import HfHubHTTPError

    message = fault.server_message or "" if isinstance(fault, HfHubHTTPError) else str(fault) or type(fault).__name__
    return excerpt(message).rstrip(".")


def token(error: type[DataprepError]) -> str | None:
    """Return the token that the client would send; None where there is none.

    Raises:
        error: the token cannot be sent. (The client's own error would repeat it.)
    """
    import huggingface_hub

    value = huggingface_hub.get_token()
    if value and not (value.isascii() and value.isprintable()):
        raise error(
            "The token of the Hub has characters that no token has: copy it again to HF_TOKEN or `hf auth login`."
        )
    return value


def check_repository(name: str, otherwise: str = "") -> str:
    """Return `name` if it is a valid name of a repository on the Hub.

    Args:
        name: org/name.
        otherwise: what else would work, for the message.

    Raises:
        PublishError: it is not.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
        if "/" not in name:
            raise HFValidationError("it names no user or organization")
    except HFValidationError as fault:
        raise PublishError(
            f"'{name}' is no valid name on the Hub ({str(fault).rstrip('.')}): write org/name{otherwise}."
        ) from None
    return name


def explanation(fault: BaseException) -> str:
    """Return why the Hub did not accept a publication, and what would work, without the full stop."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    fault = cause(fault)
    if isinstance(fault, HfHubHTTPError):
        status, message = fault.response.status_code, reason(fault)
        if status == 401:
            return f"the Hub refused the token; {LOGIN}"
        if status in (403, 404):
            quoted = f" (the Hub's message: {message})" if message else ""
            return f"the token has no write access, or there is no such user or organization{quoted}; {LOGIN}"
        if status in (409, 412):
            return "another commit changed the repository meanwhile, and nothing was written; publish again"
        if status in BUSY:
            return f"the Hub answered with status {status} {len(WAITS) + 1} times, and nothing was written; try later"
        return f"the Hub refused it with status {status} ({message or 'without a message'}), and nothing was written"
    if isinstance(fault, HTTPError | ConnectionError):
        return f"{constants.ENDPOINT} cannot be reached, or the connection broke; nothing was written; try again"
    return reason(fault)

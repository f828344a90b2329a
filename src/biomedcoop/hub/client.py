"""The client of the Hugging Face hub: without telemetry, and its many errors as one line."""

from __future__ import annotations

import logging
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from biomedcoop.errors import UserError
from biomedcoop.progress import bars_shown


def client(progress: bool = True) -> ModuleType:
    """The module ``huggingface_hub``, imported on first use; what it logs about each attempt is left out.

    Args:
        progress: show the client's progress bars on stderr, unless :func:`biomedcoop.progress.show_bars` says otherwise.
    """
    # the client reads this when it is imported; it would send the version of torch and the kind of its caller
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub
    from huggingface_hub.utils.tqdm import disable_progress_bars

    huggingface_hub.utils.logging.set_verbosity(logging.ERROR)
    if not (progress and bars_shown()):
        disable_progress_bars()
    return huggingface_hub


@contextmanager
def without_bars() -> Iterator[None]:
    """Let the client show no progress bars inside the block; $HF_HUB_DISABLE_PROGRESS_BARS=0 goes over it."""
    bars = client().utils
    if bars.are_progress_bars_disabled() or client().constants.HF_HUB_DISABLE_PROGRESS_BARS is False:
        yield
        return
    bars.disable_progress_bars()
    try:
        yield
    finally:
        bars.enable_progress_bars()


def endpoint() -> str:
    """Address of the hub: $HF_ENDPOINT, else https://huggingface.co.

    Raises:
        UserError: the variable holds no address.
    """
    given = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    if not given.startswith(("https://", "http://")):
        raise UserError(
            f"HF_ENDPOINT is '{given}'; give it an address that begins with https:// or http://, or unset it"
        )
    return given


def check_repository(name: str) -> None:
    """Refuse a name, "owner/name", that breaks the hub's own rules, before anything is asked or sent.

    Raises:
        UserError: it does.
    """
    hub = client()
    try:
        hub.utils.validate_repo_id(name)
    except hub.utils.HFValidationError:
        raise UserError(
            f"'{name}' is not a name that the Hugging Face hub allows: owner and name have at most 96 characters each (letters, "
            "digits, '-', '_', '.'), no '--' or '..', no '-' or '.' at an end, and no .git at the end; choose another name"
        ) from None


def route(url: str) -> str:
    """The variables that decide where a request goes, for the error line: "HF_ENDPOINT=… HTTPS_PROXY=…"; "" if none does.

    Example:
        >>> import os
        >>> os.environ["HF_ENDPOINT"] = "http://mirror.invalid"
        >>> from biomedcoop.hub.client import route
        >>> route("http://mirror.invalid/owner/name")
        'HF_ENDPOINT=http://mirror.invalid'
        >>> del os.environ["HF_ENDPOINT"]
    """
    address = urllib.parse.urlsplit(url)
    mirror = os.environ.get("HF_ENDPOINT", "")
    named = [f"HF_ENDPOINT={mirror}"] if mirror and url.startswith(mirror.rstrip("/") + "/") else []
    if not urllib.request.proxy_bypass(address.hostname or ""):
        proxies = {name.lower(): name for name, value in os.environ.items() if value}
        variable = proxies.get(f"{address.scheme}_proxy") or proxies.get("all_proxy")
        if variable:
            without_password = re.sub("//[^/@]*@", "//", os.environ[variable])
            named.append(f"{variable}={without_password}")
    return " ".join(named)


@contextmanager
def one_line_errors(fault: str, remedy: str | Callable[[], str], url: str = "") -> Iterator[None]:
    """Turn errors of the hub, the network and the disk inside the block into one line: fault, reason, remedy.

    Args:
        fault: what failed.
        remedy: what the user can do; a function is called when the error has come.
        url: where the request goes; the line then names the variables that decide it.

    Raises:
        UserError: any such error.
    """
    known = client().utils  # early versions have no module for errors alone
    try:
        yield
    except Exception as error:
        # the errors of the hub's HTTP library come through as they are, and it is another one from version to version
        library = type(error).__module__.partition(".")[0]
        if not isinstance(error, known.HfHubHTTPError | OSError) and library not in ("requests", "httpx", "httpx2"):
            raise
        cause = error.__cause__ if isinstance(error, known.LocalEntryNotFoundError) and error.__cause__ else error
        reason = without_token(" ".join(str(cause).split()).rstrip(".")) or type(cause).__name__
        of_disk = isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError)
        if url and not of_disk and (by := route(url)):
            reason += f" ({by})"
        raise UserError(f"{fault}: {reason}; {remedy if isinstance(remedy, str) else remedy()}") from error


def without_token(text: str) -> str:
    """A text from a server without the user's token, should the server have sent it back."""
    token = client().get_token()
    return text.replace(token, "…") if token else text

"""Publishing a model in a repository of the Hugging Face hub: all of its files in one commit, or none."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from biomedcoop.errors import UserError, notify
from biomedcoop.hub.client import client, endpoint, one_line_errors, without_bars, without_token
from biomedcoop.hub.files import is_offline

if TYPE_CHECKING:
    from huggingface_hub import ModelHubMixin

_OF_THE_HUB = ".gitattributes"
"""The file that the hub writes into a new repository."""


class Uploaded(NamedTuple):
    """Where files are.

    Attributes:
        commit: the commit that holds them.
        private: whether only the owner and those whom the owner lets in can read them.
    """

    commit: str
    private: bool


def upload(
    model: ModelHubMixin, repository: str, *, mark: str, private: bool, overwrite: bool, message: str
) -> Uploaded:
    """Publish a model in one commit; the repository is made if it is not there, and its other files stay.

    The hub's address is $HF_ENDPOINT, where it is set. The token is the user's own: of ``hf auth login``, or $HF_TOKEN.

    Args:
        model: the model; ``save_pretrained`` writes its files.
        repository: "owner/name".
        mark: name of the file that marks an earlier upload.
        private: who can read a repository that is made now.
        overwrite: add a commit to a repository with an earlier upload.
        message: title of the commit.

    Raises:
        UserError: the network is off, there is no token, it is wrong or may not write there; the repository holds other files, an
            earlier upload without ``overwrite``, or is public though ``private``; or the upload breaks off.
    """
    hub = client()
    place = f"the Hugging Face model {repository}"
    if is_offline():
        raise UserError(f"{place} cannot be written: the network is off (HF_HUB_OFFLINE); unset it")
    token = hub.get_token()
    if token is None:
        raise UserError(f"{place} cannot be written without your token; run 'hf auth login', or set HF_TOKEN")
    if not (token.isascii() and token.isprintable()):
        raise UserError("HF_TOKEN is not a token of the hub: it holds other characters than ASCII; copy it again")
    api = hub.HfApi()
    if api.endpoint != endpoint():
        raise UserError(
            f"{place} cannot be written: HF_ENDPOINT became {endpoint()} after huggingface_hub was imported with "
            f"{api.endpoint}; set it before Python starts"
        )
    with _one_line(place):
        try:
            found = api.model_info(repository)
        except hub.utils.RepositoryNotFoundError:
            found = None
        if found is None:
            # the mixin would also take a repository that is there but hidden, whoever can read it
            api.create_repo(repository, private=private, repo_type="model")
        else:
            _check(found, repository, mark, private, overwrite)
        with _over_http(hub.constants), without_bars():
            done: Any = model.push_to_hub(repository, private=private, commit_message=message)
        return Uploaded(str(done.oid), private if found is None else bool(found.private))


@contextmanager
def _over_http(constants: Any) -> Iterator[None]:
    """Upload by HTTP: Xet is a second protocol, with logs of its own, which mirrors do not speak, and of use for large files."""
    before = getattr(constants, "HF_HUB_DISABLE_XET", False)  # early versions have no Xet
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def _check(found: Any, repository: str, mark: str, private: bool, overwrite: bool) -> None:
    """Refuse a repository whose content or readers are not those that the user expects."""
    page = f"{endpoint()}/{repository}"
    names = {file.rfilename for file in found.siblings or ()} - {_OF_THE_HUB}
    if mark in names and not overwrite:
        raise UserError(f"{page} exists already; choose another name or pass --overwrite")
    if names and mark not in names:
        raise UserError(f"{page} holds other files (there is no {mark}) and is not overwritten; choose another name")
    if private and not found.private:
        raise UserError(f"{page} is public; pass --public, choose another name, or make it private there")


@contextmanager
def _one_line(place: str) -> Iterator[None]:
    """Turn whatever goes wrong in the hub's client into one line, and its warnings into notes.

    Raises:
        UserError: any such error.
    """
    HfHubHTTPError = client().utils.HfHubHTTPError
    fault, remedy = f"{place} cannot be written", "try again; nothing is visible there before all of it has arrived"
    with warnings.catch_warnings(record=True) as said, one_line_errors(fault, remedy, f"{endpoint()}/"):
        warnings.simplefilter("always")
        try:
            yield
        except UserError:
            raise
        except HfHubHTTPError as error:
            answers = {
                401: "the hub does not know your token; run 'hf auth login', or set HF_TOKEN to a valid one",
                403: "your token may not write there; give it the right to write at the hub, or choose another owner",
                409: "the name is taken by a repository that you may not read; choose another name",
                412: "it was changed meanwhile; try again",
            }
            if error.response is None or error.response.status_code not in answers:
                raise
            raise UserError(f"{fault}: {answers[error.response.status_code]}") from error
        except RuntimeError as error:  # around what happens in the client's threads
            raise OSError(str(error.__cause__ or error)) from error
        except (ValueError, LookupError, TypeError) as error:
            if isinstance(error.__cause__, HfHubHTTPError):  # what the hub has against the model card
                raise OSError(str(error)) from error
            # else the client has taken an answer apart that it did not look at
            words = without_token(" ".join(str(error).split()))[:200]
            raise UserError(
                f"{fault}: the answer of {endpoint()} is not that of a Hugging Face hub ({words}), perhaps of a proxy or a login "
                "page; check HF_ENDPOINT and the proxy, and try again"
            ) from error
    own = [str(one.message) for one in said if one.category is UserWarning]
    notify(" ".join(words.split()) for words in own)

"""Classifiers on the Hugging Face hub: published from here, and downloaded by their names, ``hf://owner/name``.

A repository holds the artefact's own three files. Only two of them are downloaded, and :func:`biomedcoop.load` checks them as it
checks any artefact.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from biomedcoop.backbones.catalogue import HubFiles
from biomedcoop.backbones.fetch import get_files, place_files
from biomedcoop.classifier.artefact import DESCRIPTION, TENSORS
from biomedcoop.data.catalogue import find, medmnist_class_names
from biomedcoop.errors import UserError, notify
from biomedcoop.hub import check_repository, endpoint
from biomedcoop.hub.files import HubFile, find_hub_file, in_words, is_offline
from biomedcoop.hub.upload import upload
from biomedcoop.output import cache_root

if TYPE_CHECKING:
    from biomedcoop.classifier.classifier import Classifier

PREFIX = "hf://"
MOST_BYTES = {DESCRIPTION: 64 * 2**20, TENSORS: 4 * 2**30}
"""Largest files that are downloaded; the towers of the largest known backbone fit."""

_PREFIX = re.compile("hf:[/\\\\]{1,2}")  # a path folds two slashes into one, and Windows turns them


class HubName(NamedTuple):
    """A repository of the hub, "owner/name", and a branch, tag or commit of it."""

    repository: str
    revision: str

    @classmethod
    def of(cls, text: str) -> HubName:
        """Read "hf://owner/name" or "hf://owner/name@revision"; the prefix may be left out.

        Raises:
            UserError: another form of name, or one that the hub does not allow.

        Example:
            >>> from biomedcoop.classifier.on_hub import HubName
            >>> HubName.of("hf://owner/name@v1")
            HubName(repository='owner/name', revision='v1')
        """
        words = _PREFIX.sub("", text, count=1).replace("\\", "/")
        part = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
        found = re.fullmatch(rf"(?P<repository>{part}/{part})(?:@(?P<revision>[\w.-]+(?:/[\w.-]+)*))?", words, re.ASCII)
        if found is None:
            typed = f"{PREFIX}{words}" if is_hub_name(text) else text
            raise UserError(
                f"'{typed}' names no model of the Hugging Face hub; write it as {PREFIX}owner/name or {PREFIX}owner/name@revision"
            )
        check_repository(found["repository"])
        return cls(found["repository"], found["revision"] or "main")


def is_hub_name(name: str | os.PathLike[str]) -> bool:
    """Whether a name asks for a classifier on the hub."""
    return _PREFIX.match(os.fspath(name)) is not None


def from_hub(name: str | os.PathLike[str], read: Callable[[str], Classifier]) -> Classifier:
    """Download a classifier and read its folder.

    Args:
        name: see :func:`downloaded`.
        read: reads a folder.

    Raises:
        UserError: see :func:`downloaded`, and what ``read`` raises.
    """
    # of a repository, the mixin would first fetch a config.json, of any size and unverified; a folder it passes on
    folder = downloaded(name)
    from biomedcoop.classifier.hub_mixin import HubClassifier

    return HubClassifier.from_pretrained(folder, read=read).classifier


def downloaded(name: str | os.PathLike[str]) -> Path:
    """The folder of a classifier on the hub, downloaded and compared with the hub's checksums; what is here already stays.

    $HF_ENDPOINT names a mirror, $HF_TOKEN gives access to private repositories, and the proxy variables of the system count. With
    $HF_HUB_OFFLINE only a copy on this machine is used.

    Args:
        name: "hf://owner/name" or "hf://owner/name@revision".

    Raises:
        UserError: no such repository or revision, no right to read it, no classifier in it, no connection, or too little space.
    """
    hub_name = HubName.of(os.fspath(name))
    owner, own = hub_name.repository.split("/")
    folder = cache_root() / "models" / owner / f"{own}@{quote(hub_name.revision, safe='')}"
    if is_offline():
        source = HubFiles(hub_name.repository, (DESCRIPTION, TENSORS), revision=hub_name.revision)
        return get_files((source,), folder, offline=True)
    description = _ask(hub_name, DESCRIPTION, hub_name.revision, folder)
    return place_files([description, _ask(hub_name, TENSORS, description.commit, folder)], folder)


def _ask(name: HubName, file: str, revision: str, folder: Path) -> HubFile:
    """What the hub says of a file of a classifier.

    Raises:
        UserError: see :func:`downloaded`.
    """
    here = (folder / DESCRIPTION).is_file() and (folder / TENSORS).is_file()
    remedy = "set HF_HUB_OFFLINE=1 to use the copy on this machine" if here else "try again"
    found = find_hub_file(name.repository, file, remedy, kind="model", revision=revision)
    page = f"{endpoint()}/{name.repository}"
    if found is None:
        raise UserError(
            f"{page} holds no classifier of biomedcoop: there is no {file} at revision '{name.revision}'; give a repository that "
            "'biomedcoop publish' wrote"
        )
    if found.size > MOST_BYTES[file]:
        raise UserError(
            f"{file} of {page} is larger ({in_words(found.size)}) than that of any classifier ({in_words(MOST_BYTES[file])}) and "
            "is not downloaded; check the name"
        )
    return found


def publish(classifier: Classifier, name: str, *, private: bool = True, overwrite: bool = False) -> str:
    """Publish a classifier on the Hugging Face hub: its artefact's three files, in one commit.

    What they say of the training images is in ``docs/hub.md``. The name of a dataset that is not published, often the name of a
    folder, and that of a file of sentences are left out.

    Args:
        name: "owner/name" of the repository, which is made if it is not there.
        private: make a repository that only its owner, or its organisation, can read.
        overwrite: add a commit to a repository that holds a classifier already; its history keeps the earlier one.

    Returns:
        "hf://owner/name@commit", which :func:`biomedcoop.load` takes.

    Raises:
        UserError: see :func:`biomedcoop.hub.upload.upload`; or the name is none.
    """
    if not isinstance(name, str):
        raise UserError(f"{name!r} is not a name; give the repository as owner/name")
    repository = HubName.of(name).repository
    if "@" in name:
        raise UserError(f"'{name}' names a revision, and a classifier is published as a new one; leave '@…' out")
    from biomedcoop.classifier.hub_mixin import HubClassifier

    done = upload(
        HubClassifier.of(_shared(classifier), PREFIX + repository),
        repository,
        mark=DESCRIPTION,
        private=private,
        overwrite=overwrite,
        message=f"{classifier.method} classifier of biomedcoop",
    )
    if done.private and not private:
        notify([f"{endpoint()}/{repository} is private, as it was before; its page can make it public"])
    return f"{PREFIX}{repository}@{done.commit}"


def _shared(classifier: Classifier) -> Classifier:
    """The same classifier without names of the user's folders and files."""
    facts = dict(classifier.facts)
    dataset = facts.get("dataset") or ""
    known = find(dataset, classifier.class_names) or medmnist_class_names(dataset) or dataset.startswith("simulated:")
    if not known:
        facts["dataset"] = None
    if (facts.get("sentences") or "").startswith("file: "):
        facts["sentences"] = "the publisher's own"
    return replace(classifier, facts=facts)

"""Download of a named backbone: resumed, verified, of one pinned commit, and whole in its folder or not at all.

Files arrive in a hidden folder beside the backbone's own, ``.NAME.download``, and move when all are verified.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from biomedcoop.backbones import open_clip_names
from biomedcoop.backbones.catalogue import (
    ANY_CONFIG,
    ANY_WEIGHTS,
    BACKBONES,
    BESIDE_WEIGHTS,
    HUB,
    HubFiles,
    converted_name,
    local_name,
    repository,
)
from biomedcoop.backbones.registry import by_hand, folder_of, locate, missing_files
from biomedcoop.backbones.source import read_source, write_source
from biomedcoop.errors import UserError, nearest, notify
from biomedcoop.hub import client, endpoint
from biomedcoop.hub.files import (
    HubFile,
    bytes_left,
    check_space,
    fetch,
    find_hub_file,
    in_cache,
    in_words,
    is_offline,
    matches,
    sha256,
)
from biomedcoop.output import check_writable, explain
from biomedcoop.progress import Progress

OTHER_PLACE = "set BIOMEDCOOP_CACHE to another folder"


def download(
    name: str, *, revision: str | None = None, offline: bool = False, progress: Progress | None = None
) -> Path:
    """Download a backbone from the Hugging Face hub into the cache folder, or export it there from open_clip.

    $HF_ENDPOINT names a mirror, $HF_TOKEN gives access to restricted repositories, and the proxy variables of the system count.
    What the hub's own cache ($HF_HOME) holds is copied from there.

    Args:
        name: of the catalogue, "hub:<owner>/<name>" or "open_clip:<model>/<pretrained>".
        revision: branch, tag or commit of the repository; by default the entry's.
        offline: use no network, only what is on this machine; $HF_HUB_OFFLINE does the same.
        progress: reports the comparison with checksums; the hub's client shows the download itself.

    Returns:
        The folder that holds the files.

    Raises:
        UserError: unknown name, no connection, a wrong checksum, a file in the folder that is not the hub's, too little space.
    """
    if name.startswith(open_clip_names.PREFIX):
        return _exported(name, revision, offline)
    if name.startswith(HUB):
        source = _of_repository(repository(name), revision or "main", offline, folder_of(name))
        return get_files((source,), folder_of(name), offline=offline, progress=progress)
    entry = BACKBONES.get(name)
    if entry is None or not entry.sources:
        if entry is not None:
            raise UserError(f"'{name}' is part of this package, so there is nothing to download; it is ready for use")
        have = [n for n, e in BACKBONES.items() if e.sources]
        raise UserError(
            f"no backbone '{name}' to download; {nearest(name, have)}; {HUB}OWNER/NAME takes any repository of the hub"
        )
    sources = entry.sources
    if revision is not None:
        if len(sources) > 1:
            raise UserError(
                f"'{name}' comes from {len(sources)} repositories, so it has no single revision; leave it out"
            )
        sources = (replace(sources[0], revision=revision),)
    return get_files(sources, folder_of(name), offline=offline, progress=progress)


def _of_repository(repo: str, revision: str, offline: bool, folder: Path) -> HubFiles:
    """The files of a repository of the hub that a backbone can be loaded from.

    Raises:
        UserError: it has no configuration or no weights of a known name.
    """
    here = read_source(folder)
    local = is_offline(offline)
    put = f"put the files of {HubFiles(repo, (), revision=revision).page} into {folder}"

    def has(file: str) -> bool:
        if local:
            there = file in here or (folder / file).is_file()
            return there or in_cache(repo, "model", file, revision) is not None
        return find_hub_file(repo, file, f"try again, or {put}", kind="model", revision=revision) is not None

    configs = tuple(filter(has, ANY_CONFIG))
    weights = next(filter(has, ANY_WEIGHTS), None)
    for what, lacking, names in (("configuration", not configs, ANY_CONFIG), ("weights", weights is None, ANY_WEIGHTS)):
        if lacking:
            if local:
                raise UserError(
                    f"{HUB}{repo} is not complete on this machine, and the network is off: there is no {what} "
                    f"({' or '.join(names)}); {put}, or leave --offline and HF_HUB_OFFLINE out"
                )
            raise UserError(
                f"the hub has, of the repository {repo} at revision '{revision}', no {what} of a known layout "
                f"({', '.join(names)}); give a repository in the layout of open_clip, transformers or timm whose weights are one "
                "file"
            )
    assert weights is not None
    return HubFiles(repo, (*configs, weights, *filter(has, BESIDE_WEIGHTS)), revision=revision)


def _exported(name: str, revision: str | None, offline: bool) -> Path:
    """The folder of a model of open_clip, whose package fetches the weights itself."""
    if revision is not None:
        raise UserError(f"'{name}' has no revision, because the package open_clip chooses the files; leave it out")
    folder = folder_of(name)
    if locate(name) is None:
        if offline:
            open_clip_names.open_clip(name)
            raise UserError(
                f"'{name}' is not on this machine; run 'biomedcoop backbones download {name}' without --offline"
            )
        open_clip_names.export(name, folder)
    return folder


def get_files(
    sources: Sequence[HubFiles], folder: Path, *, offline: bool = False, progress: Progress | None = None
) -> Path:
    """Make the files of the hub be in a folder, verified; arguments and errors as for :func:`download`."""
    ask = _cached if is_offline(offline) else _published
    return place_files(list(ask(sources, folder)), folder, progress=progress)


def place_files(files: Sequence[HubFile], folder: Path, *, progress: Progress | None = None) -> Path:
    """Make files that the hub has told of be in a folder, verified; see :func:`get_files`."""
    if not _all_here(files, folder, progress):
        try:
            check_writable(folder.parent)
        except UserError as error:
            raise UserError(f"{error} with BIOMEDCOOP_CACHE") from error
        # of two processes the second finds all that the first has downloaded
        with client().utils.WeakFileLock(folder.parent / f".{folder.name}.lock"):
            _place(files, folder, progress)
    return folder


def _published(sources: Sequence[HubFiles], folder: Path) -> Iterator[HubFile]:
    """What the hub says about each file; all files of a repository are of one commit."""
    missing = missing_files(sources, folder)
    remedy = (
        f"try again, or {by_hand(missing, folder)}" if missing else "try again, or use --offline: all files are here"
    )
    for source in sources:
        revision = source.revision
        for name in source.files:
            file = find_hub_file(source.repo, name, remedy, kind=source.kind, revision=revision)
            if file is None:
                raise UserError(
                    f"the Hugging Face {source.kind} {source.repo} has no {name} (404) at revision '{revision}'; an earlier "
                    "commit may have it ('backbones download --revision COMMIT'), or set HF_ENDPOINT to another mirror"
                )
            revision = file.commit
            yield file


def _cached(sources: Sequence[HubFiles], folder: Path) -> Iterator[HubFile]:
    """The files that are not in the folder, from the hub's cache.

    Raises:
        UserError: some are in neither.
    """
    known, incomplete = read_source(folder), []
    for source in sources:
        lacking = {name for missing in missing_files([source], folder) for name in missing.files}
        absent = []
        for name in source.files:
            here = known.get(local_name(name))
            other = here is not None and len(source.revision) == 40 and here.commit != source.revision
            if not other and name not in lacking:
                continue
            path = in_cache(source.repo, source.kind, name, source.revision)
            if path is None:
                absent.append(name)
                continue
            yield _cached_file(source, name, path)
        incomplete.append(replace(source, files=tuple(absent)))
    if any(source.files for source in incomplete):
        put = by_hand((source for source in incomplete if source.files), folder)
        raise UserError(f"{folder.name} is not complete on this machine, and the network is off; {put}")


def _cached_file(source: HubFiles, name: str, path: Path) -> HubFile:
    """A file of the hub's cache, where the checksum is the name of the file that the cache's link leads to."""
    commit = path.parents[name.count("/")].name
    url = client().hf_hub_url(source.repo, name, repo_type=source.kind, revision=commit, endpoint=endpoint())
    named = path.resolve().name
    checksum = named if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", named) else sha256(path)
    file = HubFile(source.repo, source.kind, name, url, commit, path.stat().st_size, checksum)
    if not matches(path, file):
        raise UserError(f"{path} in the hub's cache is damaged; remove it and {path.resolve()}, and download again")
    return file


def _all_here(files: Sequence[HubFile], folder: Path, progress: Progress | None) -> bool:
    known = read_source(folder)
    return all(known.get(file.base) == file and _is_here(file, folder, progress) for file in files)


def _is_here(file: HubFile, folder: Path, progress: Progress | None) -> bool:
    """Whether a folder holds a file, as published or converted.

    Raises:
        UserError: there is a file of this name that is neither the hub's nor one of an earlier download.
    """
    path, known = folder / file.base, read_source(folder).get(file.base)
    if not path.is_file():
        same = known is None or known.checksum == file.checksum
        return same and path.name != (converted := converted_name(path.name)) and (folder / converted).is_file()
    if matches(path, file, progress):
        return True
    if known is None or not matches(path, known, progress):
        raise UserError(
            f"{path} is not the file at {file.url} ({path.stat().st_size:,} bytes, expected {file.size:,}, or other content); "
            "remove it and try again"
        )
    return False


def _place(files: Sequence[HubFile], folder: Path, progress: Progress | None) -> None:
    wanted = [file for file in files if not _is_here(file, folder, progress)]
    arrivals = folder.with_name(f".{folder.name}.download")
    try:
        arrivals.mkdir(parents=True, exist_ok=True)
        left = sum(bytes_left(file, arrivals / file.base) for file in wanted)
        check_space(arrivals, left, f"{folder.name} needs", OTHER_PLACE)
        if left:
            notify([f"{folder.name} needs {in_words(left)} in {folder}"])
        for file in wanted:
            _get(file, arrivals / file.base, folder, progress)
        folder.mkdir(exist_ok=True)
        known = read_source(folder)
        for file in wanted:
            (arrivals / file.base).replace(folder / file.base)
            converted = converted_name(file.base)
            if converted != file.base and converted in known:  # made of an earlier revision
                del known[converted]
                (folder / converted).unlink(missing_ok=True)
        write_source(folder, {**known, **{file.base: file for file in files}})
        shutil.rmtree(arrivals)
    except OSError as error:
        raise explain(folder, error) from error


def _get(file: HubFile, target: Path, folder: Path, progress: Progress | None) -> None:
    if target.is_file() and matches(target, file, progress):
        return
    cached = in_cache(file.repository, file.kind, file.name, file.commit)
    if cached is not None and matches(cached, file, progress):
        shutil.copyfile(cached, target)
        return
    fetch(file, target, progress, f"put the file into {folder}")

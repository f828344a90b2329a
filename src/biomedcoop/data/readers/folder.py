"""Reader for a folder of class folders, with or without ``train``/``val``/``test`` folders above them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from biomedcoop.data import archives
from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import SPLITS, Dataset
from biomedcoop.data.images.stacks import Reading
from biomedcoop.data.names import check_class_names, clean_class_name, difference, fold, same_class
from biomedcoop.data.readers.folder_levels import Parts, are_aspects, check_levels
from biomedcoop.data.readers.folder_names import is_image_folder, split_word
from biomedcoop.data.readers.rows import Row, build_dataset, unknown_split
from biomedcoop.data.readers.walk import ZIP_RULE, Walk, lacking
from biomedcoop.errors import UserError


def read_folder(folder: Path, for_training: bool = True, reading: Reading | None = None) -> Dataset:
    """Read ``<class>/…/image`` or ``<split>/<class>/…/image`` below ``folder``; a folder ``images`` may stand between.

    Class names are the folders' names with ``_`` as space, sorted; a benchmark dataset gets the label order of the
    catalogue. Files within a class are sorted by path. Hidden files and files of the operating system are skipped. Masks
    and files that are not images are left out; notes say so.

    Args:
        folder: the folder.
        for_training: False for test data: one class is enough.
        reading: how files with windows and frames are read.

    Raises:
        UserError: there is no image, an image is in no class folder, or the splits or classes are not valid.
    """
    folder = folder.absolute()
    walk = Walk()
    listed: list[tuple[str, Path, Path]] = []  # split, class folder, image
    empty: list[Path] = []
    loose: list[Path] = []
    named: dict[str, Path] = {}  # folded class name -> the folder that gives the class its name
    notes: list[str] = []
    for split, split_folder in _split_folders(walk, folder):
        in_split: dict[str, Path] = {}
        loose += [split_folder / name for name in walk.contents(split_folder).images]
        for class_folder in walk.folders(split_folder):
            name = fold(class_folder.name)
            images = sorted(walk.images(class_folder, f"{split}/{name}"))
            if not images:
                empty.append(class_folder)
                continue
            if name in in_split:
                raise same_class(split_folder, in_split[name].name, class_folder.name)
            in_split[name] = class_folder
            first = named.setdefault(name, class_folder)
            if clean_class_name(class_folder.name) != clean_class_name(first.name):
                notes.append(
                    f"the folders {first.parent.name}/{first.name} and {class_folder.parent.name}/{class_folder.name} are read "
                    f"as one class ({difference(first.name, class_folder.name)})"
                )
            listed += [(split, class_folder, path) for path in images]
    if walk.dangling:
        raise UserError(f"{walk.dangling[0]}: a link that leads nowhere; correct or remove it")
    if not listed:
        raise UserError(_no_image_message(walk, folder, loose))

    class_folders = sorted({path.name for path in named.values()})
    if len(class_folders) == 1 and for_training:
        first_image = listed[0][2].relative_to(folder)
        raise UserError(
            f"{folder}: one class ({class_folders[0]!r}, e.g. {first_image}), but a classifier needs at least two; "
            f"{lacking(folder) or 'give the folder that holds one folder per class'}"
        )
    without = next((path for path in empty if fold(path.name) not in named), None)
    if without is not None and for_training:
        mend = lacking(without) or "add some or remove the folder"
        raise UserError(f"{without}: this class folder holds no image that can be read; {mend}")
    check_class_names(class_folders, folder, for_training)
    below: dict[str, set[Parts]] = {path.name: set() for path in named.values()}
    for class_folder, holder in {(class_folder, path.parent) for _, class_folder, path in listed}:
        below[named[fold(class_folder.name)].name].add(holder.relative_to(class_folder).parts)
    check_levels(below, folder)
    notes += _notes_on_splits(class_folders)
    class_names = _label_order(folder.name, [clean_class_name(name) for name in class_folders])
    number = {fold(name): label for label, name in enumerate(class_names)}
    label_of = {class_folder: number[fold(class_folder.name)] for class_folder in {place for _, place, _ in listed}}
    rows = [
        Row(path.relative_to(folder).as_posix(), path, label_of[class_folder], split)
        for split, class_folder, path in listed
    ]
    notes += walk.notes(folder.name, named=False)  # reports hold them
    if loose:
        notes.append(f"{len(loose)} images in {folder.name} lie outside the class folders and were ignored")
    name = folder.stem if archives.is_archive(folder) else folder.name
    data = build_dataset(name, class_names, rows, folder, folder, notes, for_training, reading, listed=False)
    if data.groups is not None:
        return data
    return replace(
        data, notes=(*data.notes, *_notes_on_patients({parts[0] for held in below.values() for parts in held if parts}))
    )


def _split_folders(walk: Walk, folder: Path) -> list[tuple[str, Path]]:
    """Split and path of each folder that holds class folders; without folders of splits, ``folder`` alone as train."""
    folder = _skip_images_folder(walk, folder)
    by_split: dict[str, Path] = {}
    others = []
    for child in walk.folders(folder):
        split = split_word(child.name)
        if split is None:
            others.append(child)
        elif split in by_split:
            raise UserError(f"{folder}: {by_split[split].name!r} and {child.name!r} both mean {split}; merge them")
        else:
            by_split[split] = child
    others = [child for child in others if by_split and _holds_image(child)]
    if not by_split or ("train" not in by_split and others):
        return [("train", folder)]  # "Test" and "Control" may be class names
    if others:
        raise unknown_split(others[0].name, folder)
    return [(split, _skip_images_folder(walk, by_split[split])) for split in SPLITS if split in by_split]


def _skip_images_folder(walk: Walk, folder: Path) -> Path:
    """The folder ``images`` in ``folder`` if no other folder in it holds images, else ``folder``."""
    children = walk.folders(folder)
    named = [child for child in children if is_image_folder(child.name) and split_word(child.name) is None]
    if len(named) != 1 or any(_holds_image(child) for child in children if child != named[0]):
        return folder
    return named[0]


def _holds_image(folder: Path) -> bool:
    return any(Walk().images(folder))


def _notes_on_splits(class_folders: Sequence[str]) -> list[str]:
    """Notes on class folders with the name of a split."""
    return [
        f"the folder {name} is read as a class; if it is a split, put class folders into it"
        for name in class_folders
        if split_word(name)
    ]


def _notes_on_patients(inner: Collection[str]) -> list[str]:
    """A note on folders below the class folders that may be patients, where nothing else tells the patients apart."""
    if len(inner) < 2 or are_aspects(inner):
        return []
    some = ", ".join(sorted(inner)[:2])
    return [
        f"folders below the class folders ({some}, …: {len(inner)}) are not used; if they are patients, "
        "give a table with the columns path,label,group, which keeps the images of a patient together"
    ]


def _label_order(name: str, class_names: Sequence[str]) -> list[str]:
    """The catalogue's names and order if ``name`` is a benchmark dataset with exactly these classes, else sorted names."""
    entry = find(name)
    if entry and sorted(map(fold, entry.class_names)) == sorted(map(fold, class_names)):
        return list(entry.class_names)
    return sorted(class_names)


def _no_image_message(walk: Walk, folder: Path, loose: Sequence[Path]) -> str:
    if loose:
        return (
            f"{folder}: its {len(loose)} images are in no class folder; "
            "put them into one folder per class, or give a table with the columns path,label"
        )
    if needed := lacking(folder):
        return f"{folder}: no image in it that can be read here: {needed}"
    packed = [name for name in walk.contents(folder).others if name.lower().endswith(archives.SUFFIX)]
    if packed:
        return f"{folder}: no image in it outside {packed[0]}; unpack that archive"
    if walk.others:
        suffix, count = walk.others.most_common(1)[0]
        mend = ZIP_RULE if suffix == archives.SUFFIX else "convert them to PNG or JPEG"
        return f"{folder}: no image in it ({suffix or 'no suffix'}: {count}); {mend}"
    return f"{folder}: no image in it; expected one folder per class with PNG, JPEG or TIFF files"

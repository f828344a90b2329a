"""The meaning of folder and file names: a split, masks, images, or a folder of the operating system."""

from __future__ import annotations

import re

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "valset"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "testset"), "test"),
}
# too short to mean a split alone: TR and TS also mean tricuspid regurgitation and stenosis
_SHORT_SPLITS = {"tr": "train", "va": "val", "vl": "val", "ts": "test"}
_FILLERS = frozenset({"set", "data", "dataset", "folder", "files", "split"})
_IMAGES = frozenset(
    {"image", "images", "img", "imgs", "frame", "frames", "photo", "photos", "picture", "pictures", "scan", "scans"}
    | {"jpeg", "jpg", "png", "original", "originals", "raw"}
)
_MASKS = frozenset(
    {"mask", "masks", "seg", "segs", "segmentation", "segmentations", "annotation", "annotations", "label", "labels"}
    | {"gt", "gts", "groundtruth", "groundtruths"}
)

_SYSTEM_FOLDERS = frozenset(
    {"__macosx", "network trash folder", "temporary items"}  # macOS
    | {"$recycle.bin", "recycler", "recycled", "system volume information"}  # Windows
    | {"lost+found", "__pycache__"}
    | {"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp"}  # Synology, QNAP
)
_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"})

_MASK_WORD = "masks?|segs?|segmentations?|gts?|ground[ _-]?truths?|labels?|annotations?"
_MASK_STEM = re.compile(
    rf"(?P<before>.+?)[ _.-]+\(?(?:{_MASK_WORD})\)?(?:[ _.-]*\(?\d+\)?){{0,2}}|(?:{_MASK_WORD})[ _.-]+(?P<after>.+)"
)
_MASK_HINT = re.compile("mask|seg|gt|truth|label|annotation")
_IMAGE_STEM = re.compile(r"(?P<stem>.+?)[ _.-]+(?:image|img|original|orig|raw)")


def split_word(word: str) -> str | None:
    """ "train", "val" or "test" for a word that means it ("Validation", "TEST", "Train Set", "test_images"), else None."""
    words = _words(word)
    remaining = [name for name in words if name not in _FILLERS and name not in _IMAGES]
    if len(remaining) != 1:
        return None
    return _SPLITS.get(remaining[0]) or (_SHORT_SPLITS.get(remaining[0]) if len(words) > 1 else None)


def is_visible(name: str) -> bool:
    """Whether a file or folder is the user's own: neither hidden nor made by the operating system."""
    return not name.startswith(".") and name.casefold() not in _SYSTEM_FOLDERS | _SYSTEM_FILES


def is_mask_folder(name: str) -> bool:
    """Whether a folder's name says that it may hold masks: "masks", "labelsTr", "train_masks", "Ground Truth"."""
    remaining = [word for word in _words_without_split(name) if word not in _IMAGES]
    return bool(remaining) and all(word in _MASKS for word in remaining)


def may_be_class(name: str) -> bool:
    """Whether the name of a mask folder may also be a class: "mask", e.g. for people with and without a face mask."""
    return _words(name) in (["mask"], ["label"])


def is_image_folder(name: str) -> bool:
    """Whether a folder's name says no more than that it holds images: "images", "imagesTr", "JPEGImages"."""
    remaining = _words_without_split(name)
    return bool(remaining) and all(word in _IMAGES for word in remaining)


def mask_folders(names: list[str]) -> list[str]:
    """The folders among ``names`` whose name says that they hold masks of the images in the folders beside them.

    Examples: "masks" and "lung masks" beside "images", "masks" beside "train", "ISIC_GroundTruth" beside "ISIC_Data". Without such
    a neighbour, "mask" may be a class.
    """
    named = [name for name in names if not _MASKS.isdisjoint(_words(name))]
    others = [name for name in names if name not in named]
    if any(map(is_image_folder, others)):
        return named
    training = any(split_word(name) == "train" for name in others)
    subjects = {_subject(name) for name in others}
    return [
        name for name in named if (training and is_mask_folder(name)) or (_subject(name) and _subject(name) in subjects)
    ]


def masks_of(stems: list[str]) -> set[str]:
    """The stems in a folder that name a mask of another stem: "benign (1)_mask" beside "benign (1)"."""
    return {mask for masks in masks_by_image(stems).values() for mask in masks}


def masks_by_image(stems: list[str]) -> dict[str, list[str]]:
    """The stems in a folder that have masks, each with the stems of its masks: "1" or "1_image" -> ["1_mask", "1_mask_1"]."""
    image_of = {stem: image_of_mask(stem) for stem in stems}
    if not any(image_of.values()):
        return {}
    images: dict[str, list[str]] = {}
    for stem in (stem for stem, image in image_of.items() if image is None):
        found = _IMAGE_STEM.fullmatch(stem.casefold())
        for name in {stem.casefold(), found["stem"] if found else stem.casefold()}:
            images.setdefault(name, []).append(stem)
    masks: dict[str, list[str]] = {}
    for mask, name in image_of.items():
        for stem in images.get(name or "", ()):
            masks.setdefault(stem, []).append(mask)
    return masks


def mirrored(stems: list[str], images: list[str]) -> bool:
    """Whether most of ``stems`` equal the stem of an image or name a mask of one."""
    known = {stem.casefold() for stem in images}
    return 2 * sum(stem.casefold() in known or image_of_mask(stem) in known for stem in stems) > len(stems)


def image_of_mask(stem: str) -> str | None:
    """The stem of the image whose mask ``stem`` names: "1_mask" -> "1"; None if it names no mask."""
    stem = stem.casefold()
    # a quick search first: most names need no match of the long pattern
    found = _MASK_STEM.fullmatch(stem) if _MASK_HINT.search(stem) else None
    return (found["before"] or found["after"]) if found else None


def _words(name: str) -> list[str]:
    """The words of a name, in lower case; a capital begins a word: "imagesTr" -> ["images", "tr"]."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W_a-zA-Z]+", name)
    text = " ".join(words).lower()
    return text.replace("ground truth", "groundtruth").split()


def _subject(name: str) -> tuple[str, ...]:
    """The words of a folder's name without those for images, masks and data."""
    return tuple(word for word in _words(name) if word not in _IMAGES | _MASKS | _FILLERS)


def _words_without_split(name: str) -> list[str]:
    """The words of a name without those for a split."""
    words = _words(name)
    short = set(_SHORT_SPLITS) if len(words) > 1 else set()
    return [word for word in words if word not in _SPLITS and word not in _FILLERS and word not in short]

"""The meaning of folder and file names: a split, masks, images, or a folder of the operating system."""

from __future__ import annotations

import re

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "valset"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "testset"), "test"),
}
# too short to stand alone: TR and TS are tricuspid regurgitation and stenosis
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
    telling = [name for name in words if name not in _FILLERS and name not in _IMAGES]
    if len(telling) != 1:
        return None
    return _SPLITS.get(telling[0]) or (_SHORT_SPLITS.get(telling[0]) if len(words) > 1 else None)


def is_visible(name: str) -> bool:
    """Whether a file or folder is the user's own, neither hidden nor made by a system for itself."""
    return not name.startswith(".") and name.casefold() not in _SYSTEM_FOLDERS | _SYSTEM_FILES


def is_mask_folder(name: str) -> bool:
    """Whether a folder's name says that it may hold masks: "masks", "labelsTr", "train_masks", "Ground Truth"."""
    telling = [word for word in _unsplit(name) if word not in _IMAGES]
    return bool(telling) and all(word in _MASKS for word in telling)


def may_be_class(name: str) -> bool:
    """Whether a folder of masks, by its name, may be a class too: "mask", as people with and without one are told apart."""
    return _words(name) in (["mask"], ["label"])


def is_image_folder(name: str) -> bool:
    """Whether a folder's name says no more than that it holds images: "images", "imagesTr", "JPEGImages"."""
    telling = _unsplit(name)
    return bool(telling) and all(word in _IMAGES for word in telling)


def mask_folders(names: list[str]) -> list[str]:
    """Those of the folders beside each other that hold masks of the images in the others, as far as names say so.

    Beside "images" these are "masks" and "lung masks", beside "train" "masks", beside "ISIC_Data" "ISIC_GroundTruth". Alone, "mask"
    may be a class.
    """
    named = [name for name in names if not _MASKS.isdisjoint(_words(name))]
    others = [name for name in names if name not in named]
    if any(map(is_image_folder, others)):
        return named
    training = any(split_word(name) == "train" for name in others)
    about = {_about(name) for name in others}
    return [name for name in named if (training and is_mask_folder(name)) or (_about(name) and _about(name) in about)]


def masks_of(stems: list[str]) -> set[str]:
    """Those of the files' stems in a folder that name a mask of another of them: "benign (1)_mask" beside "benign (1)"."""
    described = {stem: _described(stem) for stem in stems}
    if not any(described.values()):
        return set()
    images = {stem.casefold() for stem, image in described.items() if image is None}
    images |= {found["stem"] for stem in images if (found := _IMAGE_STEM.fullmatch(stem))}
    return {stem for stem, image in described.items() if image in images}


def mirrored(stems: list[str], images: list[str]) -> bool:
    """Whether most of the stems in a folder are those of images, or name masks of them."""
    known = {stem.casefold() for stem in images}
    return 2 * sum(stem.casefold() in known or _described(stem) in known for stem in stems) > len(stems)


def _described(stem: str) -> str | None:
    """The stem of the image of which a stem names a mask."""
    stem = stem.casefold()
    found = (
        _MASK_STEM.fullmatch(stem) if _MASK_HINT.search(stem) else None
    )  # the hint spares most names the long pattern
    return (found["before"] or found["after"]) if found else None


def _words(name: str) -> list[str]:
    """The words of a name, in lower case; capitals begin a word: "imagesTr" is "images", "tr"."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W_a-zA-Z]+", name)
    text = " ".join(words).lower()
    return text.replace("ground truth", "groundtruth").split()


def _about(name: str) -> tuple[str, ...]:
    """What a folder's name says beside images, masks and data."""
    return tuple(word for word in _words(name) if word not in _IMAGES | _MASKS | _FILLERS)


def _unsplit(name: str) -> list[str]:
    words = _words(name)
    short = set(_SHORT_SPLITS) if len(words) > 1 else set()
    return [word for word in words if word not in _SPLITS and word not in _FILLERS and word not in short]

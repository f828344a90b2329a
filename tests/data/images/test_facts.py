"""What is told of images: once for all of them, with the first, and nothing where there is nothing to tell."""

from __future__ import annotations

from collections.abc import Iterable

from biomedcoop.data.images.facts import ImageFacts, Tally


def notes_on_images(named: Iterable[tuple[str, ImageFacts]]) -> list[str]:
    tally = Tally()
    for key, facts in named:
        tally.add(key, facts)
    return tally.notes()


def test_ordinary_images_and_one_guessed_depth_need_no_word() -> None:
    assert notes_on_images([("a", ImageFacts()), ("b", ImageFacts())]) == []
    assert notes_on_images([("a", ImageFacts(12, True)), ("b", ImageFacts(12, True)), ("c", ImageFacts())]) == []
    assert notes_on_images([("a", ImageFacts(12)), ("b", ImageFacts(10))]) == []  # stated, so nothing is guessed


def test_depths_that_differ_are_told_with_number_and_first_image() -> None:
    named = [("a", ImageFacts(12, True)), ("b", ImageFacts(10, True)), ("c", ImageFacts(10, True))]
    (note,) = notes_on_images(named)
    assert "2 at 10 bits (first b), 1 at 12 bits (first a)" in note
    assert "save them as 8-bit images with one scale" in note


def test_a_black_image_says_nothing_of_the_depth() -> None:
    (note,) = notes_on_images([("a", ImageFacts(12, True)), ("b", ImageFacts(8, True, one_colour=True))])
    assert note.startswith("images of a single colour: 1, first b;")


def test_each_kind_is_one_sentence() -> None:
    notes = notes_on_images(
        [
            ("ct", ImageFacts(0, True)),
            ("clear", ImageFacts(one_colour=True, transparent=True)),
            ("black", ImageFacts(one_colour=True)),
            ("film", ImageFacts(several_frames=True)),
            ("film 2", ImageFacts(several_frames=True)),
        ]
    )
    starts = (
        "signed, 32-bit or float images, each scaled by its own smallest and largest value: 1, first ct;",
        "fully transparent images, which are read as black: 1, first clear;",
        "images of a single colour: 1, first black;",
        "files with several frames or pages: 2, first film;",
    )
    assert len(notes) == len(starts)
    assert all(note.startswith(start) for note, start in zip(notes, starts, strict=True))


def test_training_images_are_told_by_their_content() -> None:
    tally = Tally.after({"training_images": ["ab" * 8, "cd" * 8]})
    for key, content in (("a", "ab"), ("b", "cd"), ("c", "ef")):
        tally.add(key, ImageFacts(), bytes.fromhex(content * 32))
    tally.add("d", ImageFacts())
    assert tally.notes() == [
        "training images of this model: 2, first a; the answers for them say nothing about new images"
    ]


def test_a_depth_that_training_did_not_have_is_told() -> None:
    tally = Tally(trained_on=(12,))
    tally.add("a", ImageFacts(12, True))
    assert tally.notes() == []
    other = Tally(trained_on=(12,))
    other.add("b", ImageFacts(10, True))
    (note,) = other.notes()
    assert "1 at 10 bits (first b), in training 12 bits;" in note

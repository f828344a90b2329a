"""Maps against masks, by known answers."""

from __future__ import annotations

import numpy as np
import pytest

from biomedcoop.explain.localisation import centre_blob, localise


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((20, 30), dtype=bool)
    mask[4:8, 10:15] = True
    return mask


def test_a_map_equal_to_the_mask_is_perfect(mask: np.ndarray) -> None:
    found = localise(mask.astype(np.float32), mask, tolerance=0)
    assert found == (1, 1, 1, 1, 20 / 600)


def test_a_map_beside_the_mask_has_nothing_in_common(mask: np.ndarray) -> None:
    found = localise(np.roll(mask, 10, axis=0).astype(np.float32), mask, tolerance=0)
    assert found is not None
    assert found[:4] == (0, 0, 0, 0)


def test_half_of_the_mask_by_hand(mask: np.ndarray) -> None:
    values = np.zeros(mask.shape, dtype=np.float32)
    values[6:10, 10:15] = 1  # two of the mask's four rows
    found = localise(values, mask, tolerance=0)
    assert found is not None
    assert (found.iou, found.dice, found.energy, found.pointing) == (10 / 30, 0.5, 0.5, 0.5)


@pytest.mark.parametrize(("tolerance", "hit"), [(2, 0), (3, 1)])
def test_the_tolerance_is_in_pixels_of_the_image(mask: np.ndarray, tolerance: int, hit: float) -> None:
    values = np.zeros(mask.shape, dtype=np.float32)
    values[10, 12] = 1  # three rows below the mask
    found = localise(values, mask, tolerance)
    assert found is not None
    assert found.pointing == hit


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_even_map_is_chance(mask: np.ndarray, value: float) -> None:
    found = localise(np.full(mask.shape, value, dtype=np.float32), mask, tolerance=0)
    assert found is not None
    assert found.dice == pytest.approx(found.area)
    assert found.energy == pytest.approx(found.area)
    assert found.pointing == pytest.approx(found.area)


def test_only_the_crop_counts(mask: np.ndarray) -> None:
    values = mask.astype(np.float32)
    values[:, :12] = np.nan  # two of the mask's five columns
    found = localise(values, mask, tolerance=0)
    assert found == (1, 1, 1, 1, 12 / (20 * 18))
    values[:, :15] = np.nan
    assert localise(values, mask) is None


def test_sizes_must_agree(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a map \[20, 29\] and a mask \[20, 30\]"):
        localise(np.zeros((20, 29), dtype=np.float32), mask)


def test_the_blob_lies_in_the_middle_of_the_crop() -> None:
    values = np.full((20, 40), np.nan, dtype=np.float32)
    values[:, 10:31] = 0
    blob = centre_blob(values)
    assert np.array_equal(np.isnan(blob), np.isnan(values))
    assert np.unravel_index(np.nanargmax(blob), blob.shape)[1] == 20
    assert np.allclose(blob[:, 10:31], blob[::-1, 10:31])

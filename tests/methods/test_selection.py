"""The statistics-based selection of sentences, at its edges; that it is the published one is shown in test_parity.py."""

from __future__ import annotations

import pytest
import torch

from biomedcoop.methods.selection import select_sentences, sentence_scores, z_scores


def test_the_score_of_a_sentence_is_its_best_class() -> None:
    similarities = torch.tensor(
        [[[1.0, 5.0, -3.0], [4.0, 2.0, -1.0]], [[0.0, 0.0, 0.0], [-1.0, 1.0, 0.5]]]
    )  # [B, C, P]
    assert sentence_scores(similarities).tolist() == [[4.0, 5.0, -1.0], [0.0, 1.0, 0.5]]


def test_z_scores_are_standardised() -> None:
    scores = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * 7 + 3
    z = z_scores(scores)
    torch.testing.assert_close(z.mean(-1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(-1), torch.ones(3))
    torch.testing.assert_close(z, z_scores(0.01 * scores - 9), atol=1e-3, rtol=0)  # neither scale nor offset counts


def test_the_published_standardisation_by_the_median_changes_nothing() -> None:
    scores = torch.randn(50, generator=torch.Generator().manual_seed(0))
    centre = scores.median()
    robust = (scores - centre) / (scores - centre).abs().median()
    torch.testing.assert_close(z_scores(robust), z_scores(scores), atol=1e-5, rtol=0)


def test_outliers_on_both_sides_go() -> None:
    scores = torch.tensor([10.0, 10.1, 9.9, 10.05, 9.95, 20.0, 0.0])
    assert select_sentences(scores, 1.5).tolist() == [True] * 5 + [False] * 2


def test_the_threshold_itself_is_within() -> None:
    scores = torch.tensor([-1.0, 0.0, 1.0])  # z = -1, 0, 1
    assert select_sentences(scores, 1.0).tolist() == [True, True, True]
    assert select_sentences(scores, 0.999).tolist() == [False, True, False]


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e6, 1e-30])
@pytest.mark.parametrize("threshold", [1e-9, 1.5])
def test_equal_scores_are_all_kept(value: float, threshold: float) -> None:
    """Also where their mean is not equal to them, by rounding. The published code divides by zero here."""
    for n in (1, 2, 3, 50):
        scores = torch.full((2, n), value)
        assert torch.isfinite(z_scores(scores)).all()
        assert select_sentences(scores, threshold).all()


def test_most_scores_equal() -> None:
    """A median absolute deviation of zero, at which the published code breaks down."""
    scores = torch.tensor([2.0] * 9 + [5.0])
    assert select_sentences(scores, 1.5).tolist() == [True] * 9 + [False]


def test_one_sentence_is_kept() -> None:
    assert z_scores(torch.tensor([[3.0], [-2.0]])).tolist() == [[0.0], [0.0]]
    assert select_sentences(torch.tensor([[3.0], [-2.0]]), 1e-6).all()


def test_a_tiny_threshold_keeps_the_most_typical_sentence() -> None:
    scores = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    kept = select_sentences(scores, 1e-9)
    assert kept.sum(-1).tolist() == [1, 1, 1, 1]
    assert kept.float().argmax(-1).equal((scores - scores.mean(-1, keepdim=True)).abs().argmin(-1))


def test_a_large_threshold_keeps_all() -> None:
    assert select_sentences(torch.randn(3, 50, generator=torch.Generator().manual_seed(2)), 50.0).all()


def test_rows_do_not_see_each_other() -> None:
    scores = torch.randn(5, 50, generator=torch.Generator().manual_seed(3))
    together = select_sentences(scores, 1.2)
    for row, kept in zip(scores, together, strict=True):
        assert select_sentences(row, 1.2).equal(kept)

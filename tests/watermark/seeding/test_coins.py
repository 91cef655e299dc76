from __future__ import annotations

from scipy import stats

from watermark.seeding import coin_bits


def test_coins_are_fair_and_a_shorter_run_is_the_beginning_of_a_longer_one() -> None:
    coins = coin_bits(b"k" * 16, 100_000)
    assert coins.dtype == bool
    assert stats.binomtest(int(coins.sum()), len(coins)).pvalue > 1e-3
    assert coin_bits(b"k" * 16, 130).tolist() == coins[:130].tolist()
    assert coin_bits(b"K" * 16, 130).tolist() != coins[:130].tolist()
    assert len(coin_bits(b"k" * 16, 0)) == 0

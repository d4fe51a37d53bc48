from __future__ import annotations

import string
from concurrent.futures import ThreadPoolExecutor

from emotion_service.random_digits import RandomDigits


def test_digits_are_given_once_also_to_several_threads() -> None:
    """Many ids over several refills of the stock, asked for at once, are hexadecimal and all differ."""
    digits = RandomDigits()

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda _: digits.take(24), range(3000)))

    assert len(set(taken)) == len(taken)
    assert all(len(name) == 24 and set(name) <= set(string.hexdigits.lower()) for name in taken)


def test_two_stocks_differ() -> None:
    """Each worker has digits of its own."""
    assert RandomDigits().take(40) != RandomDigits().take(40)

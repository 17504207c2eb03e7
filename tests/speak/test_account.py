"""Which of several candidates is taken, from what is stored of them."""

from typing import Any

import numpy as np

from llasa.speak.account import Candidate, best


def candidate(number: int, total: float = 0.0, **changes: Any) -> Candidate:
    return Candidate(0, number, **({"codes": np.zeros(9, np.uint16), "finished": True, "key": (1, 0, total)} | changes))


def test_the_best_sound_candidate_is_taken() -> None:
    found = [
        candidate(0, 0.3),
        candidate(1, 0.7),
        candidate(2, 0.9, condemned="repeats itself"),
        candidate(3, 0.95, finished=False),
    ]
    assert best(found) is found[1]
    assert best(found[2:]) is found[2]
    assert best(found[3:]) is None
    assert best([]) is None


def test_more_stages_come_first_then_thresholds_then_totals() -> None:
    found = [candidate(0, key=(1, 0, 9.0)), candidate(1, key=(1, 1, 2.0)), candidate(2, key=(2, 0, 0.1))]
    assert [best(found[:n]) for n in (1, 2, 3)] == found


def test_of_equals_the_likeliest_length_and_then_the_first() -> None:
    found = [candidate(0, distance=0.2), candidate(1, distance=0.1), candidate(2, distance=0.1)]
    assert best(found) is found[1]
    condemned = [candidate(i, 9.0 - i, distance=one.distance, condemned="silent") for i, one in enumerate(found)]
    assert best(condemned) is condemned[1]
    nothing = candidate(3, condemned="stops at once", codes=np.empty(0, np.uint16))
    assert best([nothing, condemned[0]]) is condemned[0]

"""Searches with best-of-n: samples whole utterances from one prefill and scores them.

This is the outcome verification of Llasa, section 3.3.
"""

from llasa.search.pool import Pool


def best_of(pool: Pool, count: int) -> None:
    """Samples `count` candidates, or as many as time allows, into the pool."""
    pool.finish(pool.prefill(), [0] * count)

"""Turns: no client waits behind another's pile."""

import pytest

from llasa.serve.turns import Turns


def test_clients_take_turns() -> None:
    turns: Turns[int] = Turns()
    for number in range(4):
        turns.put("greedy", number)
    turns.put("modest", 10)
    turns.put("late", 20)
    assert len(turns) == 6
    assert [turns.next(()) for _ in range(4)] == [("greedy", 0), ("modest", 10), ("late", 20), ("greedy", 1)]


def test_whoever_has_least_under_way_is_next() -> None:
    turns: Turns[int] = Turns()
    turns.put("busy", 1)
    turns.put("idle", 2)
    assert turns.next(["busy", "busy", "idle"]) == ("idle", 2)
    assert turns.next(["busy"]) == ("busy", 1)
    with pytest.raises(IndexError):
        turns.next(())


def test_what_is_removed_has_no_turn() -> None:
    turns: Turns[int] = Turns()
    turns.put("a", 1)
    turns.put("a", 2)
    turns.remove("a", 1)
    turns.remove("b", 1)
    turns.remove("a", 7)
    assert turns.next(()) == ("a", 2)
    assert not turns

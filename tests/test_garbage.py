"""The cycle collector of a daemon: what it finds, and what it need not look through."""

from __future__ import annotations

import gc
import weakref

from polcad.garbage import NEW_OBJECTS, little_to_collect


class Knot:
    """An object that only the cycle collector can free."""

    def __init__(self) -> None:
        self.itself = self


def test_a_cycle_made_while_a_daemon_runs_is_found_without_anybody_asking() -> None:
    with little_to_collect():
        knot = weakref.ref(Knot())
        assert knot() is not None
        kept = [[n] for n in range(2 * NEW_OBJECTS)]  # lists are tracked; they live, so the count grows
        assert len(kept) == 2 * NEW_OBJECTS
        assert knot() is None


def test_a_cycle_that_grew_old_before_it_was_let_go_is_found_too() -> None:
    with little_to_collect():
        old = [Knot() for _ in range(NEW_OBJECTS)]
        knots = [weakref.ref(each) for each in old]
        gc.collect(1)
        old.clear()
        kept = []
        for _ in range(10 * gc.get_threshold()[1] * gc.get_threshold()[2]):
            kept.append([[n] for n in range(NEW_OBJECTS + 1)])
            if not any(knot() for knot in knots):
                break
        assert not any(knot() for knot in knots)


def test_what_was_there_before_is_not_looked_through_until_the_daemon_ends() -> None:
    knot = Knot()
    told = weakref.ref(knot)
    with little_to_collect():
        del knot
        gc.collect()
        assert told() is not None
    gc.collect()
    assert told() is None


def test_a_daemon_that_ended_leaves_the_collector_as_it_was() -> None:
    before = gc.get_threshold()
    with little_to_collect():
        assert gc.get_freeze_count() > 0
    assert gc.isenabled()
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)

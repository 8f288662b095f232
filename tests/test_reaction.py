"""How long the loop takes, counted at the daemon's end."""

from polcad.model import FREE, Event, EventKind, LeaseState, Obedience, Plan, Rule, Setpoint, Why
from polcad.ports import Heard, Output, Tick
from polcad.reaction import Reactions
from polcad.testing import telemetry

TIGHTEN = Event(0.0, EventKind.TIGHTEN, "row")


def plan(seq: int, epoch: int = 1) -> Plan:
    return Plan("row", epoch, seq, 0.0, 5.0, FREE, (Rule("row", Setpoint(0.8), Why.T1),))


def heard(t: float, node: str, seq: int, epoch: int = 1) -> Heard:
    return Heard(t, telemetry(node, plan=Obedience(epoch, seq, LeaseState.HELD), setpoint=Setpoint(0.8)))


Step = tuple[Heard | Tick, list[Output]]


def watched(*steps: Step, loose: set[str]) -> list[float]:
    reactions = Reactions()
    for event, outputs in steps:
        reactions.watch(event, outputs, lambda: set(loose))
    return list(reactions.seconds)


def test_a_reaction_ends_with_the_read_back_of_the_last_node_that_had_to_change() -> None:
    assert watched(
        (heard(10.0, "n1", 4), [TIGHTEN, plan(5)]),
        (heard(10.25, "n1", 5), []),
        (heard(10.5, "n3", 5), []),
        (heard(10.75, "n2", 5), []),
        (heard(11.0, "n2", 5), []),
        loose={"n1", "n2"},
    ) == [0.75]


def test_a_read_back_of_an_older_plan_ends_nothing() -> None:
    start: Step = (heard(10.0, "n1", 4), [TIGHTEN, plan(5)])
    assert watched(start, (heard(10.1, "n1", 4), []), loose={"n1"}) == []
    assert watched(start, (heard(10.1, "n1", 99, epoch=0), []), loose={"n1"}) == []


def test_a_newer_plan_counts_as_the_one_waited_for() -> None:
    steps: list[Step] = [
        (heard(10.0, "n1", 4), [TIGHTEN, plan(5)]),
        (Tick(10.5), [plan(6)]),
        (heard(10.6, "n1", 6), []),
    ]
    assert [round(taken_s, 3) for taken_s in watched(*steps, loose={"n1"})] == [0.6]


def test_a_plan_that_loosens_or_repeats_is_not_timed() -> None:
    loosen = Event(0.0, EventKind.LOOSEN, "row")
    steps: list[Step] = [(Tick(1.0), [loosen, plan(5)]), (Tick(2.0), [plan(6)]), (heard(2.1, "n1", 6), [])]
    assert watched(*steps, loose={"n1"}) == []


def test_a_row_that_obeys_already_has_no_reaction() -> None:
    assert watched((Tick(1.0), [TIGHTEN, plan(5)]), (heard(1.1, "n1", 5), []), loose=set()) == []


def test_quantiles_are_of_the_reactions_kept_and_none_before_the_first() -> None:
    reactions = Reactions()
    assert reactions.quantile_s(0.99) is None
    reactions.seconds.extend(number / 100 for number in range(100))
    assert (reactions.quantile_s(0.5), reactions.quantile_s(0.99), reactions.quantile_s(1.0)) == (0.5, 0.99, 0.99)

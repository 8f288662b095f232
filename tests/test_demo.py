"""The demo's plan of itself; that it runs to its end is tried with the commands."""

from collectors.synthetic import load_at
from polcad.curve import dynamic_frac
from polcad.demo import GPU_MAX_W, GPUS, HOST_W, DemoSpec, guard_of, row_of, schedule, summary
from polcad.model import Priority, RowStatus

SPEC = DemoSpec(for_s=60.0)
ROW = row_of(SPEC)


def row_frac(elapsed_s: float, low_clock_frac: float = 1.0) -> float:
    """What the row draws of its budget at a time of the course, the low priority locked or not."""
    load = load_at(schedule(ROW, SPEC), elapsed_s)
    row_w = 0.0
    for node in ROW.nodes:
        clock_frac = low_clock_frac if node.priority is Priority.LOW else 1.0
        row_w += HOST_W + GPUS * (68.0 + (GPU_MAX_W - 68.0) * load * dynamic_frac(node.role, clock_frac))
    return row_w / ROW.budget_w


def test_the_row_is_of_twelve_nodes_in_two_racks_half_of_them_of_low_priority() -> None:
    assert len(ROW.nodes) == 12
    assert {node.gpus for node in ROW.nodes} == {8}
    assert {rack.name for rack in ROW.racks} == {node.rack for node in ROW.nodes} == {"rack1", "rack2"}
    assert sum(node.priority is Priority.LOW for node in ROW.nodes) == 6


def test_the_budget_is_less_than_the_row_can_draw_and_more_than_it_must() -> None:
    full_w = 12 * (HOST_W + GPUS * GPU_MAX_W)
    assert 12 * (HOST_W + GPUS * 68.0) < ROW.budget_w < full_w


def test_the_load_begins_below_t1_passes_t2_even_with_the_low_priority_locked_and_ends_below() -> None:
    assert row_frac(0.0) < 0.80
    assert row_frac(0.6 * 60.0) > 1.0
    assert row_frac(0.6 * 60.0, 1275 / 1410) > 0.89
    assert row_frac(60.0) < 0.75
    loads = [load for _, load in schedule(ROW, SPEC)]
    assert all(0.0 <= load <= 1.0 for load in loads)


def test_an_endless_demo_plays_its_course_again_and_again() -> None:
    course = schedule(ROW, DemoSpec(course_s=180.0))
    assert course[-1][0] >= 3600.0
    assert load_at(course, 100.0) == load_at(course, 100.0 + 180.0)


def test_dwells_are_short_enough_to_see_everything_released_before_the_end() -> None:
    assert guard_of(SPEC).dwell_s <= 2.0
    assert guard_of(DemoSpec()).dwell_s <= 30.0


def test_the_summary_has_a_figure_for_each_promise() -> None:
    counters = {"telemetry": 120, "plans": 4, "t1_entries": 1, "t2_entries": 1}
    status = RowStatus("row1", online=True, epoch=1, gpus=96, peak_frac=0.95378, counters=counters)
    assert summary(SPEC, status) == {
        "nodes": 12,
        "gpus": 96,
        "telemetry": 120,
        "plans": 4,
        "t1_entries": 1,
        "t2_entries": 1,
        "brakes": 0,
        "peak_frac": 0.9538,
        "seconds_over_budget": 0.0,
        "reaction_p99_s": None,
    }

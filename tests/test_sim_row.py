"""A small row with the live controller inside."""

from dataclasses import replace

import numpy as np
import pytest

from polcad.errors import ConfigError
from polcad.foresight import maker
from polcad.model import EventKind, NodePlacement, Priority, Why
from polcad.outlook import Foresight
from polcad.plugins import load, names
from polcad.ports import Heard
from polcad.school import Classroom
from polcad.sim.actuation import IN_BAND, OUT_OF_BAND
from polcad.sim.inject import Fault, Injection
from polcad.sim.meter import Meter
from polcad.sim.profiles import DGX_A100, PROFILES, parameters
from polcad.sim.requests import Load, Trace, Workload
from polcad.sim.result import RowResult, rise
from polcad.sim.row import START_T, RowModel, Tap, simulate
from policies.baselines import NoCap
from policies.polca import Polca
from policies.predictive import Predictive
from tests.sim_rows import BUSY, HOUR_WEEKS, small_row

pytestmark = pytest.mark.integration  # rows take seconds

TIGHT_W = 36_000.0  # for eight busy servers: POLCA has to act
EXACT = Meter(noise_frac=0.0, dropout_frac=0.0)


def kinds(result: RowResult) -> list[EventKind]:
    return [event.kind for event in result.events]


def test_a_row_with_room_is_never_held() -> None:
    result = simulate(small_row(budget_w=8 * 6500.0))
    assert result.plans[0].rules == ()
    assert len(result.plans) == 1
    assert result.capped_hours == {Priority.HIGH: 0.0, Priority.LOW: 0.0}
    assert {each.p99 for each in result.slowdown.values()} == {0.0}
    assert result.throughput_frac == 1.0


def test_one_idle_server_slows_nobody() -> None:
    result = simulate(small_row(servers=1, budget_w=6500.0, source=Load(peak_util=0.0)))
    assert result.peak_frac == pytest.approx(DGX_A100.idle_w / 6500.0)
    assert result.slowdown[Priority.LOW].p99 == 0.0
    assert result.rise_40s_frac == 0.0


def test_above_its_thresholds_the_low_priority_pays_first() -> None:
    result = simulate(small_row(budget_w=TIGHT_W))
    assert result.capped_hours[Priority.LOW] > result.capped_hours[Priority.HIGH]
    assert result.peak_frac < result.uncapped_peak_frac
    assert result.slowdown[Priority.LOW].p50 > 0.0


def test_energy_is_the_mean_power_times_the_time() -> None:
    result = simulate(small_row(budget_w=TIGHT_W))
    assert result.energy_kwh == pytest.approx(result.mean_frac * TIGHT_W * 600 / 3.6e6, rel=1e-5)
    assert float(result.minutes.power_mean.mean()) == pytest.approx(result.mean_frac, rel=1e-5)


@pytest.mark.parametrize("policy", names("polcad.policies"))
def test_leaving_out_quiet_readings_changes_no_plan(policy: str) -> None:
    rules = load("polcad.policies", policy)()
    load_ = replace(BUSY, peak_util=0.15, burst_frac=4.0, burst_max_frac=8.0, bursts_per_h=60.0)
    meter = Meter(dropout_frac=0.2)
    row = small_row(rules, 600.0, source=load_, meter=meter, budget_w=38_000.0)
    skipped, whole = simulate(row), simulate(replace(row, skip_quiet=False))

    assert skipped.plans == whole.plans
    assert skipped.events == whole.events
    assert skipped.energy_kwh == whole.energy_kwh
    assert skipped.counters["ticks"] <= whole.counters["ticks"]


def test_the_same_seed_gives_the_same_result_and_another_seed_another() -> None:
    one, same, other = (simulate(small_row(budget_w=TIGHT_W, seed=seed)) for seed in (1, 1, 2))
    assert one.minutes.power_max.tobytes() == same.minutes.power_max.tobytes()
    assert one.events == same.events
    assert one.slowdown == same.slowdown
    assert one.minutes.power_max.tobytes() != other.minutes.power_max.tobytes()


def test_out_of_band_setpoints_act_later_than_in_band_ones() -> None:
    slow, fast = (
        simulate(small_row(budget_w=TIGHT_W, meter=EXACT, path=path)).capped_hours[Priority.LOW]
        for path in (OUT_OF_BAND, IN_BAND)
    )
    assert fast > slow


def test_a_row_that_nothing_holds_is_braked_above_its_budget() -> None:
    result = simulate(small_row(NoCap(), budget_w=32_000.0))
    assert result.brakes >= 1
    assert EventKind.BRAKE in kinds(result)
    assert result.seconds_over_budget > 0.0
    assert result.slowdown[Priority.HIGH].p99 > 0.5


# --- faults ---------------------------------------------------------------------------------------------------------


def test_a_brake_from_outside_slows_everything_while_it_lasts() -> None:
    result = simulate(small_row(injections=(Injection(Fault.BRAKE, 300.0, 60.0),), budget_w=8 * 6500.0))
    assert result.capped_hours == pytest.approx(dict.fromkeys(Priority, 60 / 3600))
    assert float(result.minutes.clock[Priority.HIGH][5]) == pytest.approx(288 / 1410)
    assert [edge.begins for edge in result.faults] == [True, False]


def test_a_meter_that_falls_silent_makes_the_row_count_its_worst_case() -> None:
    result = simulate(small_row(injections=(Injection(Fault.METER, 300.0, 60.0),)))
    assert kinds(result).count(EventKind.STALE) == 1  # all servers speak with one meter
    assert EventKind.BRAKE in kinds(result)  # eight servers' worst case is more than six servers' budget
    assert kinds(result).count(EventKind.FRESH) == 1


def test_a_dead_daemon_leaves_the_row_at_its_fail_safe_and_a_new_one_takes_over() -> None:
    result = simulate(small_row(injections=(Injection(Fault.DAEMON, 300.0, 120.0),), budget_w=8 * 6500.0))
    clock = result.minutes.clock[Priority.HIGH]
    assert float(clock[4]) == 1.0
    assert float(clock[6]) == pytest.approx(1110 / 1410)
    assert EventKind.RESUME in kinds(result)
    assert float(clock[-1]) == 1.0


def test_a_server_that_ignores_its_plan_is_told_and_stays_as_it_was() -> None:
    fault = Injection(Fault.IGNORE, 0.0, 580.0, server=0)
    result = simulate(small_row(injections=(fault,), budget_w=TIGHT_W, path=IN_BAND))
    told = [event.scope for event in result.events if event.kind is EventKind.NOT_OBEYED]
    assert set(told) == {"node/servers-0"}
    assert result.capped_hours[Priority.LOW] < 0.8 * result.plans[-1].at_s / 3600


@pytest.mark.parametrize("text", ["", "brake", "fire@1+2", "brake:3@1+2", "ignore@1+2", "brake@-1+2"])
def test_a_fault_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no fault"):
        Injection.parse(text)


def test_a_fault_is_read_from_its_text() -> None:
    assert Injection.parse("ignore:7@60+2.5") == Injection(Fault.IGNORE, 60.0, 2.5, 7)


# --- wrong rows -----------------------------------------------------------------------------------------------------


def test_a_row_whose_idle_servers_draw_more_than_its_budget_is_refused() -> None:
    with pytest.raises(ConfigError, match="200 idle servers"):
        RowModel(200, Polca())


@pytest.mark.parametrize(
    "options",
    [{"servers": 0}, {"weeks": 0.0}, {"weeks": float("nan")}, {"injections": (Injection(Fault.IGNORE, 0, 1, 8),)}],
)
def test_wrong_rows_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        RowModel(**{"servers": 8, "policy": Polca(), **options})  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    "make",
    [
        lambda: Trace(np.zeros(0), np.zeros(0), np.zeros(0)),
        lambda: Trace(np.array([1.0, 0.0]), np.ones(2), np.ones(2)),
        lambda: Load(peak_util=1.0),
        lambda: Load(mix=()),
        lambda: Workload("x", (0, 1), (1, 1), 0.5, Priority.LOW),
        lambda: Meter(period_s=0.5),
    ],
)
def test_wrong_loads_and_meters_are_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]  # a lambda each


# --- parts ----------------------------------------------------------------------------------------------------------


def test_a_trace_is_played_again_and_again_at_the_load_asked_for() -> None:
    trace = Trace(np.arange(0.0, 120.0, 0.5), np.full(240, 1024.0), np.full(240, 64.0), peak_util=0.3)
    result = simulate(small_row(source=trace, budget_w=8 * 6500.0))
    service_s = float(DGX_A100.service_s(np.array([1024.0]), np.array([64.0]))[0])
    assert result.requests * service_s / (600 * 8) == pytest.approx(0.3, rel=0.05)


def test_the_tap_hears_placements_and_then_messages_at_its_pace() -> None:
    placed: list[NodePlacement] = []
    heard: list[Heard] = []
    simulate(
        small_row(meter=EXACT, budget_w=8 * 6500.0),
        tap=Tap(lambda _, placement: placed.append(placement), heard.append, 20.0),
    )
    assert [placement.node for placement in placed] == ["servers-0"]
    assert placed[0].of("server-7").priority is Priority.LOW
    assert placed[0].of("server-3").priority is Priority.HIGH
    assert {message.t - START_T for message in heard} == {2.0 + 20 * turn for turn in range(30)}
    assert {message.telemetry.period_s for message in heard} == {20.0}


def test_the_largest_rise_is_found_within_its_window() -> None:
    power = np.array([5, 1, 2, 9, 3, 12, 0], dtype=np.float32)
    assert [rise(power, steps) for steps in (1, 2, 3, 4, 40)] == [9, 9, 10, 11, 11]


@pytest.mark.parametrize("hardware", PROFILES.values(), ids=list(PROFILES))
def test_every_figure_of_a_profile_has_a_unit_and_a_source(hardware: object) -> None:
    rows = list(parameters(hardware))
    assert len(rows) >= 15
    assert all(row.unit and row.source for row in rows)


def test_a_row_that_looks_ahead_is_locked_less_than_polca_and_brakes_no_more() -> None:
    plain = RowModel(52, Polca(), weeks=3 * HOUR_WEEKS)
    ahead = replace(plain, policy=Predictive(limit_frac=0.97), foresight=Foresight(maker(), Classroom()))
    held, foreseen = simulate(plain), simulate(ahead)
    assert EventKind.FORECAST_OK in kinds(foreseen)
    assert any(rule.why is Why.FORECAST for plan in foreseen.plans for rule in plan.rules)
    assert foreseen.capped_hours[Priority.LOW] < 0.75 * held.capped_hours[Priority.LOW]
    assert foreseen.brakes <= held.brakes


def test_without_a_forecaster_it_is_polca_to_the_watt() -> None:
    plain = small_row(seconds=1800.0, budget_w=TIGHT_W)
    blind, held = simulate(replace(plain, policy=Predictive())), simulate(plain)
    assert (blind.energy_kwh, blind.capped_hours) == (held.energy_kwh, held.capped_hours)


def test_two_rows_that_look_ahead_are_the_same_to_the_byte() -> None:
    def ahead() -> RowResult:
        foresight = Foresight(maker(), Classroom())
        return simulate(small_row(Predictive(), seconds=3600.0, budget_w=38_000.0, foresight=foresight))

    one, other = ahead(), ahead()
    assert one.plans == other.plans
    assert one.events == other.events
    assert one.energy_kwh == other.energy_kwh

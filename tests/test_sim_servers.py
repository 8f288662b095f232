"""One server and its twin, request by request. The loops run as plain Python here: nothing is compiled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polcad.model import FREE, Placement, Priority, Setpoint
from polcad.sim.backlog import Backlog
from polcad.sim.plant import Servers
from polcad.sim.profiles import DGX_A100
from polcad.sim.requests import Batch, Pool

pytestmark = pytest.mark.integration  # rows take seconds

requests = st.lists(st.tuples(st.floats(0.0, 40.0), st.integers(1, 9000), st.integers(1, 400)), min_size=1, max_size=30)
clocks = st.floats(288 / 1410, 1.0)


def batch(rows: list[tuple[float, int, int]]) -> Batch:
    arrive_s, prompt, output = np.array(sorted(rows), dtype=np.float64).T
    return Batch(arrive_s, prompt, output, np.zeros(len(rows), dtype=np.int64))


class Played:
    """One server that serves `rows` to their end."""

    def __init__(self, rows: list[tuple[float, int, int]], setpoint: Setpoint = FREE, seconds: int = 4000) -> None:
        self.host_j = 0.0
        pool = Pool("all", 1, Placement(Priority.LOW))
        self.backlog = Backlog([pool], DGX_A100)
        self.servers = Servers(self.backlog, DGX_A100, 1.0, 2)
        self.backlog.take(batch(rows), self.servers.state)
        self.servers.begin_chunk(seconds, np.ones(seconds // 2))
        self.servers.set(0, setpoint)
        while self.servers.step < seconds and int(self.servers.log.ended.sum()) < 2 * len(rows):
            self.servers.run(2, np.inf)
            self.host_j += self.servers.log.window_host_j[0]
        self.servers.settle()
        self.done_s = self.backlog.work.done_s

    @property
    def steps(self) -> int:
        return self.servers.step


@settings(max_examples=15, deadline=None)
@given(requests, clocks)
def test_every_request_ends_and_none_before_it_could(rows: list[tuple[float, int, int]], clock: float) -> None:
    played = Played(rows, Setpoint(clock))
    work = played.backlog.work

    tokens_s = (work.output - 1) * (DGX_A100.token_s + DGX_A100.token_request_s)
    assert not np.isnan(played.done_s).any()
    assert (played.done_s - work.arrive_s >= work.prompt_s + tokens_s - 1e-6).all()
    assert played.servers.log.ended.tolist() == [len(rows)] * 2
    assert played.servers.log.tokens.tolist() == pytest.approx([work.output.sum()] * 2)


@settings(max_examples=15, deadline=None)
@given(requests, clocks)
def test_energy_is_the_integral_of_power(rows: list[tuple[float, int, int]], clock: float) -> None:
    played = Played(rows, Setpoint(clock))
    log = played.servers.log
    assert log.row_w[: played.steps].sum() == pytest.approx(log.gpu_j[0] + played.host_j)


@settings(max_examples=15, deadline=None)
@given(requests)
def test_a_server_that_nobody_slows_is_its_twin(rows: list[tuple[float, int, int]]) -> None:
    played = Played(rows)
    log = played.servers.log
    assert (played.done_s[0] == played.done_s[1]).all()
    assert (log.row_w[: played.steps] == log.twin_w[: played.steps]).all()
    assert (played.backlog.finished()[1] == 0).all()


def test_a_lone_request_takes_and_draws_what_the_profile_says() -> None:
    played = Played([(0.5, 2048, 101)])
    each_s = DGX_A100.token_time_s(1, 2048)
    token_w = float(DGX_A100.token_power_w(np.array(1.0)))
    prompt = np.array([2048.0])
    prompt_s, prompt_w = float(DGX_A100.prompt_time_s(prompt)[0]), float(DGX_A100.prompt_power_w(prompt)[0])

    assert played.done_s[0, 0] == pytest.approx(0.5 + prompt_s + 100 * each_s)
    busy_j = prompt_s * prompt_w + 100 * each_s * token_w
    idle_s = played.steps - prompt_s - 100 * each_s
    assert played.servers.log.gpu_j[0] == pytest.approx(busy_j + idle_s * DGX_A100.gpus * DGX_A100.gpu_idle_w)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9000), st.integers(1, 400), st.tuples(clocks, clocks))
def test_a_lower_clock_never_speeds_a_request_up_nor_draws_more(
    prompt: int, output: int, pair: tuple[float, float]
) -> None:
    slow, fast = (Played([(0.0, prompt, output)], Setpoint(clock)) for clock in sorted(pair))
    assert slow.done_s[0, 0] >= fast.done_s[0, 0] - 1e-9
    for column in ("prompt_power", "token_power"):
        assert getattr(slow.servers.drive, column)[0] <= getattr(fast.servers.drive, column)[0]


@settings(max_examples=25, deadline=None)
@given(requests, st.tuples(clocks, clocks))
def test_a_lower_clock_never_lets_the_work_end_earlier(
    rows: list[tuple[float, int, int]], pair: tuple[float, float]
) -> None:
    slow, fast = (Played(rows, Setpoint(clock)) for clock in sorted(pair))
    assert slow.done_s[0].max() >= fast.done_s[0].max() - 1e-6
    assert slow.done_s[0].mean() >= fast.done_s[0].mean() * (1 - 1e-3)


def test_a_power_limit_lets_the_start_of_a_prompt_through_and_then_holds() -> None:
    played = Played([(0.0, 8192, 1)], Setpoint(1.0, 0.5))
    limit_w = 0.5 * DGX_A100.gpus * DGX_A100.gpu_max_w
    gpu_w = played.servers.log.row_w[:4] - DGX_A100.host_idle_w
    assert gpu_w[0] > limit_w + 0.1 * limit_w
    assert all(gpu_w[1:4] <= limit_w + 0.1 * limit_w)
    assert played.done_s[0, 0] > 1.9 * played.done_s[1, 0]

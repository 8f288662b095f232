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

requests = st.lists(st.tuples(st.floats(0.0, 40.0), st.integers(1, 9000), st.integers(1, 400)), min_size=1, max_size=30)
clocks = st.floats(288 / 1410, 1.0)


def batch(rows: list[tuple[float, int, int]]) -> Batch:
    arrive_s, prompt, output = np.array(sorted(rows), dtype=np.float64).T
    return Batch(arrive_s, prompt, output, np.zeros(len(rows), dtype=np.int64))


class Played:
    """One server that serves `rows` to their end."""

    def __init__(self, rows: list[tuple[float, int, int]], setpoint: Setpoint = FREE, seconds: int = 4000) -> None:
        pool = Pool("all", 1, Placement(Priority.LOW))
        self.backlog = Backlog([pool], DGX_A100)
        self.servers = Servers(self.backlog, DGX_A100, 1.0, 2)
        self.backlog.take(batch(rows), self.servers.state)
        self.servers.begin_chunk(seconds, np.ones(seconds // 2))
        self.servers.set(0, setpoint)
        while self.servers.step < seconds and int(self.servers.log.ended.sum()) < 2 * len(rows):
            self.servers.run(2, np.inf)
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
    log, host_j = played.servers.log, 0.0
    load = 0.0
    for second in range(played.steps):
        gpu_w = log.row_w[second] - DGX_A100.host_idle_w
        assert gpu_w >= DGX_A100.gpus * DGX_A100.gpu_idle_w - 1e-6
        host_j += log.row_w[second]
    assert load == 0.0
    assert log.gpu_j[0] <= host_j - played.steps * DGX_A100.host_idle_w + 1e-6


@settings(max_examples=15, deadline=None)
@given(requests)
def test_a_server_that_nobody_slows_is_its_twin(rows: list[tuple[float, int, int]]) -> None:
    played = Played(rows)
    log = played.servers.log
    assert (played.done_s[0] == played.done_s[1]).all()
    assert (log.row_w[: played.steps] == log.twin_w[: played.steps]).all()
    assert (played.backlog.finished()[1] == 0).all()

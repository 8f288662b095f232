"""The servers of a row, request by request: the inner loop, in the plain Python that numba compiles.

A server does one of three things. In a *prompt* it reads one request's input, while its others wait. With no prompt to
read it makes *tokens* for all its requests together, one each an iteration. Else it idles. A request is admitted when
it has arrived, a place is free and no prompt is being read; its first token ends its prompt. All requests of a server
share one count of iterations, so each needs only the count at which it ends.

Between two events nothing about a server changes, so each holds what it draws and until when; only at an event, or when
it is set, is it worked out anew. That makes a step cheap, and the times of events exact.

There are 2 N runners for N servers: runner r < N is server r as it is driven, runner N + r its twin on the same
requests, never slowed. Times are seconds since the start, energies joules, powers watts of a server's GPUs together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from polcad.sim.compiled import compiled
from polcad.sim.profiles import Floats, Hardware
from polcad.sim.requests import Ints

# A power limit instead of a lock (Perseus, A100 300 W board, training): 250, 225, 200, 175 W; below, as 1/share.
_LIMIT_SHARE = (0.35, 0.5833, 0.6667, 0.75, 0.8333, 1.0)
_LIMIT_TIME = (2.88, 1.73, 1.41, 1.20, 1.08, 1.0)
_ALMOST = 1e-6  # of an iteration or of a second: rounding


class Plant(NamedTuple):
    """What all servers have in common, as numbers that compile."""

    step_s: float
    idle_w: float
    host_idle_w: float
    host_load_w: float
    host_keep: float  # of the smoothed load, from one step to the next
    token_s: float
    token_request_s: float
    token_context_s: float
    token_w: float
    token_rise_w: float
    token_rise_requests: float
    batch_max: int
    limit_lag_s: float


class Work(NamedTuple):
    """Requests, in columns; those of server r are `first[r]` to `first[r + 1]`, in the order they arrive."""

    first: Ints
    arrive_s: Floats
    prompt_s: Floats
    prompt_w: Floats
    context_k: Floats  # prompt tokens, thousands
    output: Floats
    done_s: Floats  # shape (2, requests): when it ended, driven and as a twin; NaN: not yet


class State(NamedTuple):
    """What 2 N runners are doing; arrays with one slot a runner, or a runner and place."""

    since_s: Floats  # up to here all is accounted for
    until_s: Floats  # the next event
    power_w: Floats  # until then
    speed: Floats  # iterations a second, or of a prompt's seconds a second
    head: Ints  # the next request to admit
    prompt_of: Ints  # the request whose prompt is read; -1: none
    prompt_left_s: Floats  # at the maximum clock
    prompt_ran_s: Floats
    active: Ints
    iteration: Floats
    next_end: Floats  # the least of `ends_at`
    context_k: Floats  # of the active requests together
    request: Ints  # (2 N, places)
    ends_at: Floats  # (2 N, places): the count of iterations at which a request ends


class Drive(NamedTuple):
    """How fast each runner may go and what that draws, of what it would at the maximum clock; `limit_w` binds power."""

    prompt_time: Floats
    prompt_power: Floats
    token_time: Floats
    token_power: Floats
    limit_w: Floats


class Log(NamedTuple):
    """What the steps leave behind; `window_` is of the reading under way."""

    row_w: Floats  # one entry a step of the chunk
    twin_w: Floats
    gpu_j: Floats  # by server, all in all
    tokens: Floats  # by runner
    host_load: Floats  # smoothed, by runner
    window_gpu_j: Floats  # by server
    window_host_j: Floats
    ended: Ints  # requests, by runner


def plant(hardware: Hardware, step_s: float) -> Plant:
    """The hardware as the loop needs it."""
    gpus_w = hardware.gpus * hardware.gpu_max_w
    return Plant(
        step_s=step_s,
        idle_w=hardware.gpus * hardware.gpu_idle_w,
        host_idle_w=hardware.host_idle_w,
        host_load_w=hardware.host_load_w,
        host_keep=float(np.exp(-step_s / hardware.host_s)),
        token_s=hardware.token_s,
        token_request_s=hardware.token_request_s,
        token_context_s=hardware.token_context_s,
        token_w=gpus_w * hardware.token_frac,
        token_rise_w=gpus_w * hardware.token_rise_frac,
        token_rise_requests=hardware.token_rise_requests,
        batch_max=hardware.batch_max,
        limit_lag_s=hardware.limit_lag_s,
    )


def idle_state(servers: int, batch_max: int) -> State:
    """All servers idle, nothing ever admitted."""
    runners = 2 * servers
    whole, real = np.int64, np.float64
    return State(
        since_s=np.zeros(runners, real),
        until_s=np.full(runners, np.inf, real),
        power_w=np.zeros(runners, real),
        speed=np.zeros(runners, real),
        head=np.zeros(runners, whole),
        prompt_of=np.full(runners, -1, whole),
        prompt_left_s=np.zeros(runners, real),
        prompt_ran_s=np.zeros(runners, real),
        active=np.zeros(runners, whole),
        iteration=np.zeros(runners, real),
        next_end=np.full(runners, np.inf, real),
        context_k=np.zeros(runners, real),
        request=np.full((runners, batch_max), -1, whole),
        ends_at=np.full((runners, batch_max), np.inf, real),
    )


def empty_log(servers: int) -> Log:
    """Nothing done yet, and no room for steps."""
    runners = 2 * servers
    return Log(
        row_w=np.zeros(0),
        twin_w=np.zeros(0),
        gpu_j=np.zeros(servers),
        tokens=np.zeros(runners),
        host_load=np.zeros(runners),
        window_gpu_j=np.zeros(servers),
        window_host_j=np.zeros(servers),
        ended=np.zeros(runners, dtype=np.int64),
    )


def free_drive(servers: int) -> Drive:
    """Nobody is slowed."""
    time, power, token_time, token_power = (np.ones(2 * servers) for _ in range(4))
    return Drive(time, power, token_time, token_power, np.full(2 * servers, np.inf))


@compiled
def limit_time(share: float) -> float:
    """How many times longer work takes when its power is limited to a share of what it would draw."""
    if share >= 1.0:
        return 1.0
    if share <= _LIMIT_SHARE[0]:
        return _LIMIT_TIME[0] * _LIMIT_SHARE[0] / max(share, 0.01)
    right = 1
    while _LIMIT_SHARE[right] < share:
        right += 1
    low, high = _LIMIT_SHARE[right - 1], _LIMIT_SHARE[right]
    part = (share - low) / (high - low)
    return _LIMIT_TIME[right - 1] + part * (_LIMIT_TIME[right] - _LIMIT_TIME[right - 1])


@compiled
def _settle(r: int, t: float, state: State, log: Log) -> None:
    """Account for what was done up to `t`."""
    passed_s = t - state.since_s[r]
    state.since_s[r] = t
    if state.prompt_of[r] >= 0:
        state.prompt_left_s[r] -= passed_s * state.speed[r]
        state.prompt_ran_s[r] += passed_s
    elif state.active[r] > 0:
        state.iteration[r] += passed_s * state.speed[r]
        log.tokens[r] += passed_s * state.speed[r] * state.active[r]


@compiled
def _end_prompt(r: int, t: float, work: Work, state: State, log: Log) -> None:
    """The first token is out: the request ends, or joins those that make tokens."""
    request, servers = state.prompt_of[r], len(work.first) - 1
    state.prompt_of[r] = -1
    log.tokens[r] += 1.0
    if work.output[request] <= 1.0:
        work.done_s[r // servers, request] = t
        log.ended[r] += 1
        return
    place = 0
    while state.request[r, place] >= 0:
        place += 1
    end = state.iteration[r] + work.output[request] - 1.0
    state.request[r, place], state.ends_at[r, place] = request, end
    state.active[r] += 1
    state.context_k[r] += work.context_k[request]
    state.next_end[r] = min(state.next_end[r], end)


@compiled
def _end_requests(r: int, t: float, work: Work, state: State, log: Log) -> None:
    """Let go every request whose last token is out."""
    servers = len(work.first) - 1
    next_end = np.inf
    for place in range(state.request.shape[1]):
        request = state.request[r, place]
        if request >= 0 and state.ends_at[r, place] <= state.iteration[r] + _ALMOST:
            work.done_s[r // servers, request] = t
            log.ended[r] += 1
            state.active[r] -= 1
            state.context_k[r] -= work.context_k[request]
            state.request[r, place], state.ends_at[r, place] = -1, np.inf
        else:
            next_end = min(next_end, state.ends_at[r, place])
    state.next_end[r] = next_end
    if state.active[r] == 0:
        state.iteration[r] = state.context_k[r] = 0.0


@compiled
def _begin(r: int, t: float, plant: Plant, work: Work, state: State, drive: Drive) -> None:
    """Work out what a runner does from `t`, what that draws, and until when."""
    server = r % (len(work.first) - 1)
    head = state.head[r]
    comes_s = work.arrive_s[head] if head < work.first[server + 1] else np.inf
    room = state.prompt_of[r] < 0 and state.active[r] < plant.batch_max
    if room and comes_s <= t:
        state.prompt_of[r], state.head[r] = head, head + 1
        state.prompt_left_s[r], state.prompt_ran_s[r] = work.prompt_s[head], 0.0
    if state.prompt_of[r] >= 0:
        _begin_prompt(r, t, plant, work, state, drive)
    elif state.active[r] > 0:
        _begin_tokens(r, t, plant, state, drive)
        state.until_s[r] = min(state.until_s[r], comes_s) if room else state.until_s[r]
    else:
        state.power_w[r] = min(plant.idle_w, drive.limit_w[r])
        state.until_s[r] = comes_s


@compiled
def _begin_prompt(r: int, t: float, plant: Plant, work: Work, state: State, drive: Drive) -> None:
    power_w = max(plant.idle_w, work.prompt_w[state.prompt_of[r]] * drive.prompt_power[r])
    speed, lag_s = 1.0 / drive.prompt_time[r], np.inf
    if power_w > drive.limit_w[r]:
        lag_s = plant.limit_lag_s - state.prompt_ran_s[r]
        if lag_s <= _ALMOST:  # else the limit has not noticed yet
            lag_s = np.inf
            speed /= limit_time(drive.limit_w[r] / power_w)
            power_w = drive.limit_w[r]
    state.power_w[r], state.speed[r] = power_w, speed
    state.until_s[r] = t + min(state.prompt_left_s[r] / speed, lag_s)


@compiled
def _begin_tokens(r: int, t: float, plant: Plant, state: State, drive: Drive) -> None:
    requests = state.active[r]
    rise = 1.0 - np.exp(-requests / plant.token_rise_requests)
    power_w = max(plant.idle_w, (plant.token_w + plant.token_rise_w * rise) * drive.token_power[r])
    each_s = plant.token_s + plant.token_request_s * requests + plant.token_context_s * state.context_k[r]
    each_s *= drive.token_time[r]
    if power_w > drive.limit_w[r]:
        each_s *= limit_time(drive.limit_w[r] / power_w)
        power_w = drive.limit_w[r]
    state.power_w[r], state.speed[r] = power_w, 1.0 / each_s
    state.until_s[r] = t + (state.next_end[r] - state.iteration[r]) * each_s


@compiled
def _happen(r: int, t: float, plant: Plant, work: Work, state: State, drive: Drive, log: Log) -> None:
    """The event that a runner waited for."""
    _settle(r, t, state, log)
    if state.prompt_of[r] >= 0:
        if state.prompt_left_s[r] <= _ALMOST:
            _end_prompt(r, t, work, state, log)
    elif state.active[r] > 0 and state.next_end[r] <= state.iteration[r] + _ALMOST:
        _end_requests(r, t, work, state, log)
    _begin(r, t, plant, work, state, drive)


@compiled
def retime(r: int, t: float, plant: Plant, work: Work, state: State, drive: Drive, log: Log) -> None:
    """Work out a runner anew at `t`: it was set, or its requests are others."""
    _settle(r, t, state, log)
    _begin(r, t, plant, work, state, drive)


@compiled
def _through_events(
    r: int, t: float, end_s: float, plant: Plant, work: Work, state: State, drive: Drive, log: Log
) -> tuple[float, float]:
    """Run one runner from `t` to `end_s`; the energy of its GPUs, and how long it was busy."""
    energy_j, busy_s = 0.0, 0.0
    while state.until_s[r] <= end_s:
        now = max(state.until_s[r], t)
        energy_j += state.power_w[r] * (now - t)
        busy_s += now - t if state.prompt_of[r] >= 0 or state.active[r] > 0 else 0.0
        _happen(r, now, plant, work, state, drive, log)
        t = now
    energy_j += state.power_w[r] * (end_s - t)
    busy_s += end_s - t if state.prompt_of[r] >= 0 or state.active[r] > 0 else 0.0
    return energy_j, busy_s


@compiled
def advance(
    plant: Plant,
    work: Work,
    state: State,
    drive: Drive,
    log: Log,
    first: int,
    steps: int,
    offset: int,
    period: int,
    seen: Floats,
    wake_w: float,
) -> int:
    """Run the row for at most `steps` steps from step `first`; how many were run.

    Stops early behind a reading of the meter (each `period` steps) above `wake_w`. `seen` holds what the meter makes of
    one watt, by reading of the chunk (NaN: nothing); the chunk began at step `offset`.
    """
    servers = len(work.first) - 1
    until_s, power_w, active, prompt_of = state.until_s, state.power_w, state.active, state.prompt_of
    host_load, total_gpu_j = log.host_load, log.gpu_j
    window_gpu_j, window_host_j = log.window_gpu_j, log.window_host_j
    for step in range(first, first + steps):
        if step % period == 0:
            window_gpu_j[:] = 0.0
            window_host_j[:] = 0.0
        t, end_s = step * plant.step_s, (step + 1) * plant.step_s
        row_j, twin_j = 0.0, 0.0
        for r in range(2 * servers):
            if until_s[r] > end_s:  # the common case, without a call
                gpu_j = power_w[r] * plant.step_s
                load = 1.0 if active[r] > 0 or prompt_of[r] >= 0 else 0.0
            else:
                gpu_j, busy_s = _through_events(r, t, end_s, plant, work, state, drive, log)
                load = busy_s / plant.step_s
            host_load[r] = load + (host_load[r] - load) * plant.host_keep
            host_j = (plant.host_idle_w + plant.host_load_w * host_load[r]) * plant.step_s
            if r < servers:
                total_gpu_j[r] += gpu_j
                window_gpu_j[r] += gpu_j
                window_host_j[r] += host_j
                row_j += gpu_j + host_j
            else:
                twin_j += gpu_j + host_j
        log.row_w[step - offset], log.twin_w[step - offset] = row_j / plant.step_s, twin_j / plant.step_s
        if (step + 1) % period == 0:
            reading_w = (window_gpu_j.sum() + window_host_j.sum()) / (period * plant.step_s)
            if reading_w * seen[(step - offset) // period] > wake_w:
                return step + 1 - first
    return steps

"""Instances that serve requests, one by one: the inner loop, in the plain Python that numba compiles.

An instance reads prompts, makes tokens, idles, or stands still while it starts or is set anew. Prompts go first: at the
end of an iteration it admits what waits, in the order of arrival, as far as the batch, the key-value memory and
`PROMPT_BATCH` tokens allow, and reads it all together; the first tokens come at that prompt's end. With nothing to
admit it makes tokens for all its requests together, one each an iteration; they share one count of iterations, so each
request needs only the count at which it ends. Memory is reserved for a request's whole length when it is admitted.

Between two events nothing about an instance changes, so each holds what it draws and until when: times are exact, and
nothing depends on how finely `advance` is called. An arrival looks at the instances of its pool, brings them up to its
time, and goes to the one with the least work, or to the one whose turn it is by weight; where that has `WAITING_MOST`
waiting already, it is dropped and counted, so that a lasting overload fills no memory. Times are seconds since the
start, powers watts, energies joules.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from polcad.sim.compiled import compiled
from polcad.sim.profiles import Floats
from polcad.sim.requests import Ints
from polcad.sim.speeds import Speeds

Records = np.recarray[Any, Any]

OFF, IDLE, PROMPT, TOKENS, STILL = 0, 1, 2, 3, 4  # phases
PHASES = 5
PROMPT_BATCH = 2048.0  # tokens that are read together (Splitwise)
ACTIVE_TOKENS = 64.0  # a request under way counts as so many prompt tokens of work; assumed
WAITING_MOST = 1000  # at an instance: who comes then would wait for minutes; assumed
BINS, LEAST_S, PER_E = 1700, 1e-3, 100.0  # latencies are counted in bins 1 % wide
ALMOST = 1e-6  # of an iteration or of a prompt: rounding


# Of an instance; records rather than arrays, since compiled functions pay for each array that they are given.
INSTANCE = np.dtype(
    [
        ("row", "i8"),  # of `Speeds`
        ("phase", "i8"),
        ("ready_s", "f8"),  # it stands still until then
        ("since_s", "f8"),  # progress is accounted for up to here
        ("paid_s", "f8"),  # and energy up to here
        ("until_s", "f8"),  # the next event
        ("power_w", "f8"),  # until then
        ("span_s", "f8"),  # of the whole prompt, or of an iteration
        ("left", "f8"),  # of the prompt, as a fraction
        ("reading", "i8"),
        ("reading_tokens", "f8"),
        ("active", "i8"),
        ("iteration", "f8"),
        ("next_end", "f8"),  # the least of `ends_at`
        ("context", "f8"),  # tokens of the active requests together
        ("kv", "f8"),  # tokens reserved
        ("first", "i8"),  # of those that wait; -1: none
        ("last", "i8"),
        ("waiting", "i8"),
        ("waiting_tokens", "f8"),
        ("weight", "f8"),  # its share of the requests, against others of its pool
        ("credit", "f8"),  # of turns that it has coming
    ]
)
REQUEST = np.dtype(
    [
        ("arrive_s", "f8"),
        ("first_s", "f8"),  # of the first token; NaN: not yet
        ("prompt", "f8"),
        ("output", "f8"),
        ("to_read", "f8"),  # tokens; 0: its memory came along
        ("left", "f8"),  # tokens to make after what is read
        ("kind", "i8"),
        ("guess", "i8"),  # the kind it is taken for
        ("next", "i8"),  # that waits behind it
    ]
)
TALLY = np.dtype(  # of a kind
    [
        ("arrived", "i8"),
        ("finished", "i8"),
        ("late", "i8"),  # finished, but not within the objective
        ("dropped", "i8"),  # nobody had room for it to wait
        ("ttft_slo_s", "f8"),
        ("tbt_slo_s", "f8"),
    ]
)


class World(NamedTuple):
    """All that the kernel works on."""

    speeds: Speeds
    instances: Records  # of INSTANCE; the last is a lobby that never serves
    member: Ints  # (instances, batch): the active requests, and behind them those that are read
    ends_at: Floats  # (instances, batch): the count of iterations at which an active one ends
    requests: Records  # of REQUEST, in slots that are used again
    free: Ints  # a stack of empty slots
    free_count: Ints  # [0]: of the stack
    start: Ints  # (pools + 1,): where the members of each pool begin
    members: Ints  # instances of a pool, one pool after the other
    pool_of: Ints  # by kind
    by_weight: bool  # how requests are dealt: by weight, or to who has least work
    tally: Records  # of TALLY, by kind
    ttft: Ints  # (kinds, BINS)
    tbt: Ints
    whole: Ints  # from arrival to the last token
    phase_j: Floats  # (PHASES,)


@compiled
def bin_of(seconds: float) -> int:
    """The bin of a latency."""
    return int(min(BINS - 1.0, max(0.0, PER_E * np.log(max(seconds, LEAST_S) / LEAST_S))))


@compiled
def value_at(places: Floats, values: Floats, at: float) -> float:
    """`values` at `at`, straight between the places; level below, and going on at the last slope above."""
    if at <= places[0]:
        return float(values[0])
    right = 1
    while right < len(places) - 1 and places[right] < at:
        right += 1
    slope = (values[right] - values[right - 1]) / (places[right] - places[right - 1])
    return float(values[right - 1] + slope * (at - places[right - 1]))


@compiled
def pay(r: int, t: float, world: World) -> None:
    """Account for what was drawn up to `t`."""
    one = world.instances[r]
    world.phase_j[one.phase] += one.power_w * (t - one.paid_s)
    one.paid_s = t


@compiled
def settle(r: int, t: float, world: World) -> None:
    """Account for what was drawn and done up to `t`."""
    one = world.instances[r]
    world.phase_j[one.phase] += one.power_w * (t - one.paid_s)
    passed_s = t - one.since_s
    one.paid_s = one.since_s = t
    if one.phase == PROMPT:
        one.left -= passed_s / one.span_s
    elif one.phase == TOKENS:
        count = one.iteration + passed_s / one.span_s
        whole = np.floor(count + 0.5)
        one.iteration = whole if abs(count - whole) < ALMOST else count


@compiled
def finish(r: int, q: int, t: float, world: World) -> None:
    """A request's last token is out."""
    request = world.requests[q]
    tally = world.tally[request.kind]
    late = request.first_s - request.arrive_s > tally.ttft_slo_s
    if request.output > 1.0:
        tbt_s = (t - request.first_s) / (request.output - 1.0)
        world.tbt[request.kind, bin_of(tbt_s)] += 1
        late = late or tbt_s > tally.tbt_slo_s
    world.whole[request.kind, bin_of(t - request.arrive_s)] += 1
    tally.finished += 1
    tally.late += 1 if late else 0
    world.instances[r].kv -= request.prompt + request.output
    let_go(q, world)


@compiled
def let_go(q: int, world: World) -> None:
    """A request's slot is empty again."""
    world.free[world.free_count[0]] = q
    world.free_count[0] += 1


@compiled
def join(r: int, place: int, q: int, world: World) -> None:
    """A request that was read makes tokens from now on, at `place` of the members."""
    one, request = world.instances[r], world.requests[q]
    end = one.iteration + request.left
    world.member[r, place], world.ends_at[r, place] = q, end
    one.next_end = min(one.next_end, end)
    one.context += request.prompt + 0.5 * request.output


@compiled
def _end_prompt(r: int, t: float, world: World) -> None:
    """The first tokens are out: each request ends, or joins those that make tokens."""
    one = world.instances[r]
    active = one.active
    for place in range(one.active, one.active + one.reading):
        q = world.member[r, place]
        request = world.requests[q]
        request.to_read = 0.0
        if np.isnan(request.first_s):
            request.first_s = t
            world.ttft[request.kind, bin_of(t - request.arrive_s)] += 1
        if request.left <= 0.0:
            finish(r, q, t, world)
        else:
            join(r, active, q, world)
            active += 1
    one.active, one.reading, one.reading_tokens = active, 0, 0.0


@compiled
def end_requests(r: int, t: float, world: World) -> None:
    """Let go every request whose last token is out."""
    one, ends_at, member = world.instances[r], world.ends_at, world.member
    place, next_end = 0, np.inf
    while place < one.active:
        if ends_at[r, place] > one.iteration + ALMOST:
            next_end = min(next_end, ends_at[r, place])
            place += 1
            continue
        q, last = member[r, place], one.active - 1
        one.context -= world.requests[q].prompt + 0.5 * world.requests[q].output
        finish(r, q, t, world)
        member[r, place], ends_at[r, place] = member[r, last], ends_at[r, last]
        one.active = last
    one.next_end = next_end
    if one.active == 0:
        one.iteration, one.context = 0.0, 0.0


@compiled
def _admit(r: int, world: World) -> None:
    """Take in what waits, as far as there is room; it is read together."""
    one, member = world.instances[r], world.member
    kv_room, batch = world.speeds.kv_tokens[one.row], member.shape[1]
    while one.waiting > 0 and one.active + one.reading < batch:
        q = one.first
        request = world.requests[q]
        needs, tokens, served = request.prompt + request.output, request.to_read, one.active + one.reading
        if one.kv + needs > kv_room and served > 0:
            break
        if one.reading > 0 and one.reading_tokens + tokens > PROMPT_BATCH:
            break
        one.first = request.next
        one.waiting -= 1
        one.waiting_tokens = one.waiting_tokens - tokens if one.waiting > 0 else 0.0
        one.kv += needs
        if tokens > 0.0:
            member[r, served] = q
            one.reading += 1
            one.reading_tokens += tokens
        else:
            member[r, served] = member[r, one.active]
            join(r, one.active, q, world)
            one.active += 1
    one.left = 1.0


@compiled
def begin(r: int, t: float, world: World) -> None:
    """Work out what an instance does from `t`, what that draws, and until when."""
    one, speeds = world.instances[r], world.speeds
    row = one.row
    if one.ready_s > t:
        one.phase, one.power_w, one.until_s = STILL, speeds.idle_w[row], one.ready_s
        return
    if one.reading == 0:
        _admit(r, world)
    if one.reading > 0:
        tokens = min(one.reading_tokens, speeds.prompt_tokens[-1])  # beyond, no prompt draws more
        one.phase, one.power_w = PROMPT, value_at(speeds.prompt_tokens, speeds.prompt_w[row], tokens)
        one.span_s = value_at(speeds.prompt_tokens, speeds.prompt_s[row], one.reading_tokens)
        one.until_s = t + max(0.0, one.left) * one.span_s
    elif one.active > 0:
        batch = one.active
        one.phase, one.power_w = TOKENS, speeds.token_w[row, batch]
        one.span_s = speeds.token_s[row, batch] + speeds.context_s[row, batch] * one.context
        one.until_s = t + (one.next_end - one.iteration) * one.span_s
    else:
        one.phase, one.power_w, one.until_s = IDLE, speeds.idle_w[row], np.inf


@compiled
def run(r: int, t: float, world: World) -> None:
    """Bring one instance up to `t`."""
    one = world.instances[r]
    while one.until_s <= t:
        now = one.until_s
        settle(r, now, world)
        if one.phase == PROMPT and one.left <= ALMOST:
            _end_prompt(r, now, world)
        elif one.phase == TOKENS and one.next_end <= one.iteration + ALMOST:
            end_requests(r, now, world)
        begin(r, now, world)


@compiled
def retime(r: int, t: float, row: int, ready_s: float, world: World) -> None:
    """Give an instance another row of `Speeds` at `t`; it stands still until `ready_s`."""
    one = world.instances[r]
    run(r, t, world)
    settle(r, t, world)
    one.row, one.ready_s = row, ready_s
    begin(r, t, world)


@compiled
def enqueue(r: int, q: int, t: float, world: World) -> None:
    """A request waits at an instance that is up to date."""
    one, request = world.instances[r], world.requests[q]
    request.next = -1
    if one.waiting == 0:
        one.first = q
    else:
        world.requests[one.last].next = q
    one.last = q
    one.waiting += 1
    one.waiting_tokens += request.to_read
    if one.phase == IDLE:
        settle(r, t, world)
        begin(r, t, world)
    elif one.phase == TOKENS and one.active < world.member.shape[1]:
        now = one.iteration + (t - one.since_s) / one.span_s
        boundary_s = t + max(0.0, np.ceil(now - ALMOST) - now) * one.span_s
        one.until_s = min(one.until_s, boundary_s)  # it is admitted between two iterations


@compiled
def _least_work(pool: int, t: float, world: World) -> int:
    """The instance of a pool that has the least work at `t`."""
    best, least = -1, np.inf
    for place in range(world.start[pool], world.start[pool + 1]):
        r = world.members[place]
        one = world.instances[r]
        if one.until_s <= t:
            run(r, t, world)
        work = one.waiting_tokens + one.reading_tokens + ACTIVE_TOKENS * (one.active + one.waiting)
        if work < least:
            best, least = r, work
    return best


@compiled
def _in_turn(pool: int, t: float, world: World) -> int:
    """Whose turn it is, spread evenly: each gains its weight in credit, and the richest pays for all."""
    best, total = world.members[world.start[pool]], 0.0
    for place in range(world.start[pool], world.start[pool + 1]):
        r = world.members[place]
        one = world.instances[r]
        one.credit += one.weight
        total += one.weight
        if one.credit > world.instances[best].credit:
            best = r
    world.instances[best].credit -= total
    run(best, t, world)
    return int(best)


@compiled
def _deal(q: int, t: float, world: World) -> None:
    """Give a request to an instance of its pool; drop it where no more may wait."""
    request = world.requests[q]
    pool = world.pool_of[request.guess]
    r = _in_turn(pool, t, world) if world.by_weight else _least_work(pool, t, world)
    if world.instances[r].waiting < WAITING_MOST:
        enqueue(r, q, t, world)
        return
    world.tally[request.kind].dropped += 1
    let_go(q, world)


@compiled
def evict(r: int, t: float, active: bool, kept: bool, world: World) -> None:
    """Deal anew what waits at an instance, and if `active` what it serves too; `kept`: its memory comes along."""
    one = world.instances[r]
    run(r, t, world)
    settle(r, t, world)
    waiting, q = one.waiting, one.first
    one.waiting, one.waiting_tokens = 0, 0.0
    if active:
        _give_up(r, t, kept, world)
    for _ in range(waiting):
        behind = world.requests[q].next
        _deal(q, t, world)
        q = behind
    if one.phase != OFF:
        begin(r, t, world)


@compiled
def _give_up(r: int, t: float, kept: bool, world: World) -> None:
    """Deal anew what an instance serves."""
    one = world.instances[r]
    served, members = one.active, one.active + one.reading
    one.active, one.reading, one.reading_tokens = 0, 0, 0.0
    one.kv, one.context, one.next_end = 0.0, 0.0, np.inf
    for place in range(members):
        q = world.member[r, place]
        request = world.requests[q]
        if place < served:
            left = np.ceil(world.ends_at[r, place] - one.iteration - ALMOST)
            request.left = left if kept else left - 1.0  # what is read anew gives a token
            request.to_read = 0.0 if kept else request.prompt + request.output - left
        _deal(q, t, world)
    one.iteration = 0.0


@compiled
def arrive(index: int, arrive_s: Floats, lengths: Floats, kinds: Ints, world: World) -> int:
    """Take an arrival into an empty slot, and say into which."""
    world.free_count[0] -= 1
    q = world.free[world.free_count[0]]
    request = world.requests[q]
    request.arrive_s, request.first_s = arrive_s[index], np.nan
    request.prompt, request.output = lengths[0, index], lengths[1, index]
    request.to_read, request.left = lengths[0, index], lengths[1, index] - 1.0
    request.kind, request.guess = kinds[0, index], kinds[1, index]
    world.tally[request.kind].arrived += 1
    return int(q)


@compiled
def advance(end_s: float, first: int, last: int, arrive_s: Floats, lengths: Floats, kinds: Ints, world: World) -> None:
    """Serve the arrivals `first` to `last` (not included), then bring everything up to `end_s`.

    `lengths` holds prompts and outputs, `kinds` what requests are and what they are taken for, in two rows each.
    """
    for index in range(first, last):
        _deal(arrive(index, arrive_s, lengths, kinds, world), arrive_s[index], world)
    for r in range(len(world.instances) - 1):
        if world.instances[r].phase != OFF:
            run(r, end_s, world)
            pay(r, end_s, world)

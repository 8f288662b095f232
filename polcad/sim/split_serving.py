"""Splitwise's serving: prompts are read on one machine, tokens made on another; the inner loop that numba compiles.

An arrival is given a pair at once, by the shortest queue (arXiv 2311.18677, and the authors' simulator): the prompt to
the prompt machine with the least work, the tokens to the token machine with the least memory promised. A pool is full
when that machine would have over `LONG_QUEUE` tokens to read, or not the memory. Then the mixed pool is asked; and when
that is full too, the other pool's least busy machine moves to it, and serves both. It goes back when it is empty. Keys
and values travel layer by layer while a prompt is read: what is left is `TRANSFER_FRAC` of a request's time alone.

Here machines depend on each other, so events are taken one by one in the order of time, over all of them. What one does
is `polcad.sim.serving`. (numba's cache looks at this file alone: touch it when you change the other.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from polcad.sim import serving
from polcad.sim.compiled import compiled
from polcad.sim.profiles import Floats
from polcad.sim.requests import Ints
from polcad.sim.serving import ACTIVE_TOKENS, ALMOST, PROMPT, TOKENS, WAITING_MOST, World

PROMPTS, DECODING, MIXED = 0, 1, 2  # pools
LONG_QUEUE = 8192.0  # tokens to read, at which a prompt machine is full (the authors' simulator)
TRANSFER_FRAC = 0.008  # of a request's time alone: what the transfer adds end to end (Splitwise)
TTFT, TBT, E2E = 0, 1, 2
NOBODY = -1

settle, begin, finish, join, let_go = serving.settle, serving.begin, serving.finish, serving.join, serving.let_go
end_requests, enqueue, pay = serving.end_requests, serving.enqueue, serving.pay
value_at, bin_of, take_in = serving.value_at, serving.bin_of, serving.arrive


class Split(NamedTuple):
    """What the kernel works on beside the `World`. `home` and `pool` are by instance, `heir` by request."""

    whole: bool  # nothing is split: all machines are there for both
    moves: bool  # machines help the other pool when it is full
    home: Ints
    pool: Ints  # where it is now: `home`, or MIXED
    promised: Floats  # tokens of the requests whose tokens are, or will be, made there
    heir: Ints  # who makes its tokens
    moving: Ints  # requests whose memory is under way; the first `travelling[0]`
    lands_s: Floats  # when each of them is there
    travelling: Ints
    moved: Ints  # [pool]: how often a machine of that pool moved to the mixed one
    reference: int  # row of `Speeds`: slowdowns are against a request alone there
    slowdown: Ints  # (3, BINS): counts, in the bins of latencies; 1 is no slowdown


@compiled
def _note(q: int, t: float, world: World, split: Split) -> None:
    """A request's last token is out: count its slowdowns, and take back what was promised it."""
    request, speeds, row = world.requests[q], world.speeds, split.reference
    split.promised[split.heir[q]] -= request.prompt + request.output
    alone_s = value_at(speeds.prompt_tokens, speeds.prompt_s[row], request.prompt)
    ttft_s = request.first_s - request.arrive_s
    split.slowdown[TTFT, bin_of(ttft_s / alone_s)] += 1
    made = request.output - 1.0
    each_s = speeds.token_s[row, 1] + speeds.context_s[row, 1] * (request.prompt + 0.5 * request.output)
    if made > 0.0:
        split.slowdown[TBT, bin_of((t - request.first_s) / made / each_s)] += 1
    split.slowdown[E2E, bin_of((t - request.arrive_s) / (alone_s + made * each_s))] += 1


@compiled
def _send(r: int, q: int, t: float, world: World, split: Split) -> None:
    """A prompt that was read at `r` goes to the machine that makes its tokens."""
    one, request, speeds = world.instances[r], world.requests[q], world.speeds
    one.kv -= request.prompt + request.output
    row = world.instances[split.heir[q]].row
    alone_s = value_at(speeds.prompt_tokens, speeds.prompt_s[one.row], request.prompt)
    alone_s += request.output * speeds.token_s[row, 1]
    split.moving[split.travelling[0]], split.lands_s[split.travelling[0]] = q, t + TRANSFER_FRAC * alone_s
    split.travelling[0] += 1


@compiled
def _end_prompt(r: int, t: float, world: World, split: Split) -> None:
    """The first tokens are out: each request ends, makes tokens here, or goes where they are made."""
    one = world.instances[r]
    active = one.active
    for place in range(one.active, one.active + one.reading):
        q = world.member[r, place]
        request = world.requests[q]
        request.to_read, request.first_s = 0.0, t
        world.ttft[request.kind, bin_of(t - request.arrive_s)] += 1
        if request.left <= 0.0:
            _note(q, t, world, split)
            finish(r, q, t, world)
        elif split.heir[q] == r:
            join(r, active, q, world)
            active += 1
        else:
            _send(r, q, t, world, split)
    one.active, one.reading, one.reading_tokens = active, 0, 0.0


@compiled
def _end_tokens(r: int, t: float, world: World, split: Split) -> None:
    """Let go every request whose last token is out."""
    one = world.instances[r]
    for place in range(one.active):
        if world.ends_at[r, place] <= one.iteration + ALMOST:
            _note(world.member[r, place], t, world, split)
    end_requests(r, t, world)


@compiled
def _step(r: int, world: World, split: Split) -> None:
    """An instance's next event."""
    one = world.instances[r]
    now = one.until_s
    settle(r, now, world)
    if one.phase == PROMPT and one.left <= ALMOST:
        _end_prompt(r, now, world, split)
    elif one.phase == TOKENS and one.next_end <= one.iteration + ALMOST:
        _end_tokens(r, now, world, split)
    begin(r, now, world)
    if split.pool[r] != split.home[r] and one.active + one.reading + one.waiting == 0 and split.promised[r] <= 0.0:
        split.pool[r] = split.home[r]


@compiled
def _land(place: int, world: World, split: Split) -> None:
    """A request's memory has arrived."""
    q, t, last = split.moving[place], split.lands_s[place], split.travelling[0] - 1
    split.moving[place], split.lands_s[place] = split.moving[last], split.lands_s[last]
    split.travelling[0] = last
    enqueue(split.heir[q], q, t, world)


@compiled
def _run(end_s: float, world: World, split: Split) -> None:
    """Everything that happens up to `end_s`, in the order of time; what lands goes before what a machine does."""
    while True:
        who, landing, next_s = NOBODY, NOBODY, end_s
        for r in range(len(split.pool)):
            if world.instances[r].until_s <= next_s:
                who, next_s = r, world.instances[r].until_s
        for place in range(split.travelling[0]):
            if split.lands_s[place] <= next_s:
                landing, next_s = place, split.lands_s[place]
        if landing != NOBODY:
            _land(landing, world, split)
        elif who != NOBODY:
            _step(who, world, split)
        else:
            return


@compiled
def _work(r: int, world: World) -> float:
    one = world.instances[r]
    return float(one.waiting_tokens + one.reading_tokens + ACTIVE_TOKENS * (one.active + one.waiting))


@compiled
def _reader(pool: int, world: World, split: Split) -> int:
    """Of a pool, who has the least work; NOBODY in an empty one."""
    best, least = NOBODY, np.inf
    for r in range(len(split.pool)):
        if split.pool[r] == pool and _work(r, world) < least:
            best, least = r, _work(r, world)
    return best


@compiled
def _maker(pool: int, split: Split) -> int:
    """Of a pool, whose memory is least promised; NOBODY in an empty one."""
    best, least = NOBODY, np.inf
    for r in range(len(split.pool)):
        if split.pool[r] == pool and split.promised[r] < least:
            best, least = r, split.promised[r]
    return best


@compiled
def _can_read(r: int, tokens: float, world: World) -> bool:
    if r == NOBODY:
        return False
    one = world.instances[r]
    return bool(one.waiting == 0 or one.waiting_tokens + one.reading_tokens + tokens <= LONG_QUEUE)


@compiled
def _can_hold(r: int, tokens: float, world: World, split: Split) -> bool:
    return r != NOBODY and split.promised[r] + tokens < world.speeds.kv_tokens[world.instances[r].row]


@compiled
def _mix(r: int, split: Split) -> None:
    """A machine serves both from now on, until it is empty."""
    split.moved[split.pool[r]] += 1
    split.pool[r] = MIXED


@compiled
def _reader_for(tokens: float, world: World, split: Split) -> int:
    """Who reads a prompt of so many tokens; NOBODY where the mixed pool is full too, and no token machine is left."""
    for pool in (PROMPTS, MIXED):
        r = _reader(pool, world, split)
        if _can_read(r, tokens, world):
            return r
    if not split.moves:
        return _reader(PROMPTS, world, split)
    r = _reader(DECODING, world, split)
    if r != NOBODY:
        _mix(r, split)
    return r


@compiled
def _maker_for(tokens: float, world: World, split: Split) -> int:
    """Who makes tokens of a request with so many in all; NOBODY likewise."""
    for pool in (DECODING, MIXED):
        r = _maker(pool, split)
        if _can_hold(r, tokens, world, split):
            return r
    if not split.moves:
        return _maker(DECODING, split)
    r = _maker(PROMPTS, split)
    if r != NOBODY:
        _mix(r, split)
    return r


@compiled
def _pair(q: int, world: World, split: Split) -> tuple[int, int]:
    """Who reads a request's prompt, and who makes its tokens; the same where one of both pools is of no help."""
    request = world.requests[q]
    if split.whole:
        both = _reader(MIXED, world, split)
        return both, both
    reader = _reader_for(request.prompt, world, split)
    maker = _maker_for(request.prompt + request.output, world, split)
    if min(reader, maker) == NOBODY:
        both = _least_busy(world, split)
        return both, both
    return reader, maker


@compiled
def _least_busy(world: World, split: Split) -> int:
    """Of all pools, who has the least work."""
    best = NOBODY
    for pool in (PROMPTS, DECODING, MIXED):
        r = _reader(pool, world, split)
        if best == NOBODY or (r != NOBODY and _work(r, world) < _work(best, world)):
            best = r
    return best


@compiled
def advance(
    end_s: float, first: int, last: int, arrive_s: Floats, lengths: Floats, kinds: Ints, world: World, split: Split
) -> None:
    """Serve the arrivals `first` to `last` (not included), then bring everything up to `end_s`."""
    for index in range(first, last):
        t = arrive_s[index]
        _run(t, world, split)
        q = take_in(index, arrive_s, lengths, kinds, world)
        reader, maker = _pair(q, world, split)
        if world.instances[reader].waiting >= WAITING_MOST:
            world.tally[world.requests[q].kind].dropped += 1
            let_go(q, world)
            continue
        split.heir[q] = maker
        split.promised[maker] += world.requests[q].prompt + world.requests[q].output
        enqueue(reader, q, t, world)
    _run(end_s, world, split)
    for r in range(len(split.pool)):
        pay(r, end_s, world)

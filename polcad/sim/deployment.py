"""Instances on servers: what a plan asks for is made of what is there, in the order of what it costs.

GPUs of a pool that is to have another shape are given it (`Profile.reshape_s`; requests and their memory move over). An
instance too many serves another pool that needs its shape, at once, or gives its GPUs to another shape. Only what is
still missing is started anew (`Profile.start_s`, drawing power). What is left over takes no new requests, and is
switched off when it is empty, but not before its successors serve. While a pool is far from complete, those that
served its kinds before help it, at its clock where that is faster; a pool that has nobody, or lost some with a server,
is helped by the next larger one.

When plans have stood for a minute, servers whose instances fit on others are emptied (`packing`), unless the cluster is
of a fixed size: each instance is started anew elsewhere, at the full cost of that, and serves where it is until then. A
pool that wants GPUs back which it left unused may then find them taken, and has to start others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf

from polcad.cluster.nouns import KINDS, Kind, PoolPlan, Running, Shape, name_of
from polcad.cluster.profiles import Profile
from polcad.sim.engines import LOBBY, Engines
from polcad.sim.packing import emptied

SERVER_GPUS = 8
_ENOUGH_FRAC = 0.75  # of its instances, with which a pool serves alone
_SETTLED_S = 60.0  # that plans stand, before servers are emptied
_SOON_S = 2.0  # an instance that serves in so long may be given requests now


@dataclass(slots=True)
class Instance:
    """One instance: where it is, what it is, and since when it serves."""

    slot: int
    server: int
    pool: str
    shape: Shape
    ready_s: float
    draining: bool = False
    moving: bool = False  # to another server: it serves until its successor does


@dataclass(frozen=True, slots=True)
class Census:
    """What is there at one moment."""

    gpus: int  # of instances
    unused: int  # GPUs of none, in servers that have one
    instances: int  # that serve or start
    clock_frac: float  # mean over `gpus`; 1 where there are none


class Deployment:
    """The instances of a cluster; times are seconds since the start, and never go back."""

    def __init__(self, engines: Engines, profile: Profile, servers: int, *, packs: bool = True) -> None:
        """`packs`: whether servers are emptied and given back; a cluster of a fixed size keeps them."""
        self.changes: Counter[str] = Counter()
        self._engines, self._profile = engines, profile
        self._instances: dict[int, Instance] = {}
        self._slots = list(range(slots_of(profile, servers)))[::-1]
        self._room = [SERVER_GPUS] * servers
        self._limit_frac = [1.0] * servers  # of the maximum clock
        self._plans: dict[str, PoolPlan] = {}
        self._members: dict[Kind, tuple[int, ...]] = {}  # who serves a kind
        self._bereft: set[str] = set()  # pools that lost instances, until they are complete again
        self._helped: dict[int, set[str]] = {}  # by slot, the pools that an instance helps
        self._asked: tuple[object, ...] = ()
        self._settled_s = _SETTLED_S if packs else inf  # that plans stand, before servers are emptied
        self._pack_s = 0.0  # when servers may be emptied
        self._next_s = 0.0  # when instances that start, or empty ones, are to be looked at

    @property
    def gpus(self) -> int:
        """In use."""
        return _gpus(self._instances.values())

    def census(self) -> Census:
        """What is there."""
        instances = self._instances.values()
        gpus = _gpus(instances)
        clocks = sum(one.shape.tensor_parallel * one.shape.clock_frac for one in instances)
        unused = SERVER_GPUS * len({one.server for one in instances}) - gpus
        return Census(gpus, unused, len(instances), clocks / gpus if gpus else 1.0)

    @property
    def shapes(self) -> Mapping[int, Shape]:
        """Of all instances, by slot."""
        return {one.slot: one.shape for one in self._instances.values()}

    def running(self, t: float) -> Mapping[str, Running]:
        """Each planned pool as it is, in the shape that was planned."""
        seen = {}
        for pool, plan in self._plans.items():
            mine = [one for one in self._of(pool) if one.shape.tensor_parallel == plan.shape.tensor_parallel]
            ready = sum(one.ready_s <= t + _SOON_S for one in mine)
            seen[pool] = Running(ready, plan.shape, len(mine) - ready)
        return seen

    def apply(self, t: float, plans: Sequence[PoolPlan], *, at_once: bool = False) -> None:
        """Make what the plans ask for; `at_once`: as a cluster that has always been so."""
        self._plans = {plan.pool: plan for plan in plans}
        asked = tuple((plan.pool, plan.kinds, plan.instances, plan.shape.tensor_parallel) for plan in plans)
        if asked != self._asked:
            self._asked, self._pack_s = asked, t + self._settled_s
            self._reconcile(t, at_once=at_once)
        elif t >= self._next_s or (t >= self._pack_s and self._pack(t)):
            self._reconcile(t)
        self._set_clocks(t)

    def lose(self, t: float) -> str:
        """The server with most GPUs in use is gone, and what its instances had in memory; what that was, in words."""
        server = self.busiest()
        gone = [one for one in self._instances.values() if one.server == server]
        self._room[server] = 0
        for one in gone:
            del self._instances[one.slot]
        self._bereft |= {one.pool for one in gone}
        self._deal(t)
        for one in gone:
            self._switch_off(one, t, kept=False)
        self._next_s = t
        return f"server {server} is lost, with {len(gone)} instances"

    def busiest(self) -> int:
        """The server with most GPUs in use."""
        used = Counter({server: 0 for server in range(len(self._room)) if self._room[server]})
        for one in self._instances.values():
            used[one.server] += one.shape.tensor_parallel
        return max(used, key=lambda place: (used[place], -place))

    def limit(self, t: float, limits_frac: Mapping[int, float]) -> None:
        """Let servers run no faster than so much of the maximum clock, whatever is planned; others as fast as it is."""
        self._limit_frac = [limits_frac.get(server, 1.0) for server in range(len(self._room))]
        self._set_clocks(t)

    def limit_frac(self, slot: int) -> float:
        """How fast an instance may run."""
        return self._limit_frac[self._instances[slot].server]

    def hurry(self, t: float, slot: int) -> None:
        """Let an instance run as fast as it may, until plans are carried out again."""
        one, clock_frac = self._instances[slot], self.limit_frac(slot)
        if one.ready_s <= t and one.shape.clock_frac != clock_frac:
            self._set_clock(t, one, clock_frac)

    def restore(self, t: float) -> None:
        """Lost servers are back, empty."""
        self._room = [SERVER_GPUS] * len(self._room)
        self._next_s = t

    @property
    def gpus_there(self) -> int:
        """Of all servers that are not lost."""
        return sum(self._room)

    def _of(self, pool: str) -> list[Instance]:
        return [one for one in self._instances.values() if one.pool == pool and not one.draining]

    def _right(self, plan: PoolPlan) -> list[Instance]:
        """A pool's instances of the shape that is planned, but for those that leave their server."""
        shards = plan.shape.tensor_parallel
        return [one for one in self._of(plan.pool) if one.shape.tensor_parallel == shards and not one.moving]

    def _pack(self, t: float) -> bool:
        """Let the instances of servers that can be emptied move, once nothing else is under way; whether any does."""
        instances = self._instances.values()
        if any(one.draining or one.moving or one.ready_s > t for one in instances):
            return False
        self._pack_s = inf
        held: dict[int, list[int]] = {}
        for one in instances:
            held.setdefault(one.server, []).append(one.shape.tensor_parallel)
        leaving = set(emptied(held, dict(enumerate(self._room))))
        for one in instances:
            one.moving = one.server in leaving
            self.changes["moved to another server"] += one.moving
        return bool(leaving)

    def _reconcile(self, t: float, *, at_once: bool = False) -> None:
        lack: dict[str, int] = {}
        kept: set[int] = set()
        room = {server: self._free(server) for server in range(len(self._room))}
        for pool, plan in self._plans.items():
            chosen = sorted(self._right(plan), key=lambda one: (one.ready_s > t, room[one.server], one.slot))
            chosen = chosen[: plan.instances]
            kept.update(one.slot for one in chosen)
            lack[pool] = plan.instances - len(chosen)
        spare = [one for one in self._instances.values() if one.slot not in kept]
        gone: list[Instance] = []
        for pool in lack:
            own = [one for one in spare if one.pool == pool and not self._moves(one)]
            gone += self._reshape(t, pool, lack, own)
        spare = [one for one in spare if one.slot in self._instances]
        held = [one for one in spare if lack.get(one.pool) or self._awaited(one, t)]  # until others have started
        free = [one for one in spare if one not in held]
        self._relabel(lack, free)
        for pool in lack:
            gone += self._reshape(t, pool, lack, free)
        self._start(t, lack, 0.0 if at_once else self._profile.start_s)
        self._leave(t, [*held, *free], gone)
        self._deal(t)
        for one in gone:
            self._switch_off(one, t, kept=True)
        self._end_drained(t)

    def _moves(self, one: Instance) -> bool:
        """Whether it is to be what it is, elsewhere."""
        plan = self._plans.get(one.pool)
        return one.moving and plan is not None and plan.shape.tensor_parallel == one.shape.tensor_parallel

    def _awaited(self, one: Instance, t: float) -> bool:
        """Whether it serves in place of a successor that starts elsewhere."""
        plan = self._plans.get(one.pool)
        return one.moving and plan is not None and self._ready(plan, t) < plan.instances

    def _relabel(self, lack: dict[str, int], spare: list[Instance]) -> None:
        """Give pools what others have too many of, in the shape that they need: to those that lack most first."""
        while True:
            pools = sorted(lack, key=lambda pool: (-lack[pool] / max(1, self._plans[pool].instances), pool))
            pairs = ((pool, one) for pool in pools if lack[pool] for one in sorted(spare, key=lambda one: one.ready_s))
            fits = (
                pair for pair in pairs if pair[1].shape.tensor_parallel == self._plans[pair[0]].shape.tensor_parallel
            )
            if (found := next(fits, None)) is None:
                return
            pool, one = found
            spare.remove(one)
            one.pool, one.draining, one.moving = pool, False, False
            lack[pool] -= 1
            self.changes["moved to another pool"] += 1

    def _reshape(self, t: float, pool: str, lack: dict[str, int], spare: list[Instance]) -> list[Instance]:
        """Make other shapes of what nobody wants; the instances that are gone by that."""
        gone, servers = list[Instance](), sorted({one.server for one in spare})
        for place, server in enumerate(servers):  # as many on each, so that each can be what it was again
            gone += self._reshape_at(t, server, pool, lack, spare, ceil(lack[pool] / (len(servers) - place)))
        for server in servers:
            gone += self._reshape_at(t, server, pool, lack, spare, lack[pool])
        return gone

    def _reshape_at(
        self, t: float, server: int, pool: str, lack: dict[str, int], spare: list[Instance], most: int
    ) -> list[Instance]:
        """Make up to `most` instances of what is spare on a server."""
        gpus, gone = self._plans[pool].shape.tensor_parallel, list[Instance]()
        here = sorted((one for one in spare if one.server == server), key=lambda one: -one.ready_s)
        warm = 0  # GPUs that were given up and not used again
        while most and self._free(server) + _gpus(here) >= gpus and (warm or here):
            while self._free(server) < gpus or not warm:
                one = here.pop()
                spare.remove(one)
                del self._instances[one.slot]
                gone.append(one)
                warm += one.shape.tensor_parallel
            warm = max(0, warm - gpus)
            self._put(t, server, pool, self._profile.reshape_s)
            self.changes["reshaped"] += 1
            lack[pool] -= 1
            most -= 1
        return gone

    def _start(self, t: float, lack: dict[str, int], start_s: float) -> None:
        """Start what is missing, on the servers with the least room that suffices."""
        leaving = {one.server for one in self._instances.values() if one.moving}
        for pool, plan in self._plans.items():
            gpus = plan.shape.tensor_parallel
            while lack[pool]:
                fits = [server for server in range(len(self._room)) if self._free(server) >= gpus]
                fits = [server for server in fits if server not in leaving] or fits
                if not fits:
                    self.changes["found no room"] += lack[pool]
                    break
                self._put(t, min(fits, key=self._free), pool, start_s)
                self.changes["started"] += 1
                lack[pool] -= 1

    def _leave(self, t: float, spare: Sequence[Instance], gone: list[Instance]) -> None:
        """What nobody wants: away with it, or it stays until its successors serve."""
        for one in spare:
            if one.ready_s > t + _SOON_S:
                del self._instances[one.slot]
                gone.append(one)
                continue
            heir = self._heir(one.pool)
            if heir is not None and self._ready(heir, t) < heir.instances:
                one.pool = heir.pool
                continue
            self.changes["drained"] += not one.draining
            one.draining = True

    def _heir(self, pool: str) -> PoolPlan | None:
        """The plan that a pool's largest kind belongs to now."""
        mine = next((plan for plan in self._plans.values() if any(name_of(kind) == pool for kind in plan.kinds)), None)
        return self._plans.get(pool, mine)

    def _ready(self, plan: PoolPlan, t: float) -> int:
        return sum(one.ready_s <= t + _SOON_S for one in self._right(plan))

    def _put(self, t: float, server: int, pool: str, after_s: float) -> None:
        slot, shape = self._slots.pop(), self._plans[pool].shape
        self._instances[slot] = Instance(slot, server, pool, shape, t + after_s)
        self._engines.start(slot, t, shape, t + after_s)

    def _free(self, server: int) -> int:
        used = sum(one.shape.tensor_parallel for one in self._instances.values() if one.server == server)
        return self._room[server] - used

    def _deal(self, t: float) -> None:
        """Say who serves which kinds now."""
        serving = [one for one in self._instances.values() if not one.draining and one.ready_s <= t + _SOON_S]
        ready = {pool: [one.slot for one in serving if one.pool == pool] for pool in self._plans}
        slots = {one.slot for one in serving}
        self._bereft = {pool for pool in self._bereft & set(ready) if len(ready[pool]) < self._plans[pool].instances}
        self._members = {
            kind: self._members_of(kind, plan, ready, slots) for plan in self._plans.values() for kind in plan.kinds
        }
        self._helped = self._helpers()
        groups: dict[tuple[int, ...], list[Kind]] = {}
        for kind, members in self._members.items():
            groups.setdefault(members or (LOBBY,), []).append(kind)
        self._engines.deal({tuple(kinds): members for members, kinds in groups.items()})
        self._engines.leave_lobby(t)

    def _helpers(self) -> dict[int, set[str]]:
        """Who serves kinds of other pools, by slot; and which pools' those are."""
        found: dict[int, set[str]] = {}
        for pool, plan in self._plans.items():
            for slot in {slot for kind in plan.kinds for slot in self._members[kind]}:
                if self._instances[slot].pool != pool:
                    found.setdefault(slot, set()).add(pool)
        return found

    def _members_of(
        self, kind: Kind, plan: PoolPlan, ready: Mapping[str, Sequence[int]], serving: Collection[int]
    ) -> tuple[int, ...]:
        """Who serves a kind: its pool; who did so before helps while that is far from complete.

        Where it has nobody, or has lost some, the next larger pool that serves helps.
        """
        own = list(ready[plan.pool])
        if len(own) < _ENOUGH_FRAC * plan.instances:
            own += [slot for slot in self._members.get(kind, ()) if slot in serving and slot not in own]
        if own and plan.pool not in self._bereft:
            return tuple(own)
        pools = sorted(self._plans.values(), key=lambda each: KINDS.index(each.kinds[-1]))
        place = pools.index(plan)
        larger_first = (*pools[place + 1 :], *pools[:place][::-1])
        helpers = next((ready[each.pool] for each in larger_first if ready[each.pool]), ())
        return (*own, *(slot for slot in helpers if slot not in own))

    def _switch_off(self, one: Instance, t: float, *, kept: bool) -> None:
        self._engines.empty(one.slot, t, kept)
        self._slots.append(one.slot)

    def _end_drained(self, t: float) -> None:
        """Switch off what is empty, and say when to look again."""
        draining = [one for one in self._instances.values() if one.draining]
        for one in draining:
            self._engines.drain(one.slot, t)
            if not self._engines.busy(one.slot):
                del self._instances[one.slot]
                self._switch_off(one, t, kept=True)
        starting = [one.ready_s for one in self._instances.values() if one.ready_s > t]
        left = any(one.draining for one in self._instances.values())
        self._next_s = t if left else min(starting, default=inf)

    def _set_clocks(self, t: float) -> None:
        """Send clocks that have changed to instances that serve."""
        for one in self._instances.values():
            plan = self._plans.get(one.pool)
            if plan is None or one.ready_s > t:
                continue
            clock_frac = min(self._clock_frac(one, plan), self._limit_frac[one.server])
            if one.shape.clock_frac != clock_frac:
                self._set_clock(t, one, clock_frac)

    def _clock_frac(self, one: Instance, plan: PoolPlan) -> float:
        """What its pool plans, or a pool that it helps, whichever is faster."""
        helped = (self._plans[pool] for pool in self._helped.get(one.slot, ()) if pool in self._plans)
        return max(each.shape.clock_frac for each in (plan, *helped))

    def _set_clock(self, t: float, one: Instance, clock_frac: float) -> None:
        one.shape = Shape(one.shape.tensor_parallel, clock_frac)
        self._engines.retime(one.slot, t, one.shape, self._profile.clock_s)
        self.changes["clock set"] += 1


def _gpus(instances: Iterable[Instance]) -> int:
    return sum(one.shape.tensor_parallel for one in instances)


def slots_of(profile: Profile, servers: int) -> int:
    """As many instances as the servers can hold, twice: those that are going, and those that come."""
    return 2 * servers * SERVER_GPUS // profile.tensor_parallels[0]

"""Splitwise's clusters: what they are made of, and how many prompt and token machines fit a budget best.

A pool's requests a second are its machines times what one of them serves within the objective; a split cluster serves
as many as the lesser of its two pools. Prompts are bounded by the time to the first token, with the queue of
`polcad.cluster.steady`; tokens by the time between two, at the largest batch that keeps it, and by the memory. Beyond a
batch of about 64 a machine makes hardly more tokens a second (Splitwise), so no larger one is planned with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf

from polcad.cluster.machines import Machine, machines
from polcad.cluster.nouns import Demand, Slo
from polcad.cluster.steady import capacity
from polcad.errors import ConfigError

FULL_BATCH = 64  # requests


@dataclass(frozen=True, slots=True)
class Design:
    """What a cluster's prompt machines and token machines are; without token machines all serve both."""

    prompt: Machine
    token: Machine | None = None

    @property
    def kinds(self) -> tuple[Machine, ...]:
        """Its machines, one of each pool."""
        return (self.prompt,) if self.token is None else (self.prompt, self.token)


@dataclass(frozen=True, slots=True)
class Pools:
    """How many machines there are of each pool; `mixed` serve both."""

    prompt: int = 0
    token: int = 0
    mixed: int = 0

    @property
    def machines(self) -> int:
        """Of all pools."""
        return self.prompt + self.token + self.mixed


DESIGNS = {
    "splitwise-aa": ("a", "a"),
    "splitwise-hh": ("h", "h"),
    "splitwise-ha": ("h", "a"),
    "splitwise-hhcap": ("h", "cap"),
    "baseline-a100": ("a",),
    "baseline-h100": ("h",),
}


def design(name: str, model: str = "llama2-70b") -> Design:
    """One of Splitwise's designs; ConfigError for a name or a model that there is not."""
    if name not in DESIGNS:
        raise ConfigError(f"design {name!r} is none of {', '.join(DESIGNS)}")
    known = machines(model)
    return Design(*(known[letter] for letter in DESIGNS[name]))


def prompt_rate(machine: Machine, demand: Demand, slo: Slo) -> float:
    """The requests a second whose prompts one machine reads within the objective."""
    return _served(machine, replace(demand, output_tokens=1.0), replace(slo, tbt_s=inf))


def mixed_rate(machine: Machine, demand: Demand, slo: Slo) -> float:
    """The requests a second that one machine serves alone within the objective."""
    return _served(machine, demand, slo)


def _served(machine: Machine, demand: Demand, slo: Slo) -> float:
    return capacity(machine.profile, machine.shape, replace(demand, requests_per_s=1.0), slo)


def token_batch(machine: Machine, demand: Demand, slo: Slo) -> int:
    """The largest batch that is worth making tokens for, within the objective and the memory; 0: none."""
    context = demand.prompt_tokens + 0.5 * demand.output_tokens
    held = demand.prompt_tokens + demand.output_tokens
    fits = (
        batch
        for batch in range(FULL_BATCH, 0, -1)
        if machine.token_s(batch, batch * context) <= slo.tbt_s and batch * held <= machine.kv_tokens
    )
    return next(fits, 0)


def token_rate(machine: Machine, demand: Demand, slo: Slo) -> float:
    """The requests a second whose tokens one machine makes within the objective."""
    batch = token_batch(machine, demand, slo)
    if not batch:
        return 0.0
    context = demand.prompt_tokens + 0.5 * demand.output_tokens
    return batch / machine.token_s(batch, batch * context) / max(demand.output_tokens, 1.0)


@dataclass(frozen=True, slots=True)
class Sized:
    """Pools, and the requests a second that they serve within the objective."""

    pools: Pools
    requests_per_s: float


@dataclass(frozen=True, slots=True)
class Budget:
    """What the machines of a cluster may count together, in power or in money, and how many they may be.

    `each`: what a prompt machine (or one that does both) and a token machine count.
    """

    most: float = inf
    machines: float = inf
    each: tuple[float, float] | None = None  # None: their `budget_w`

    def __str__(self) -> str:
        bounds = (f"a budget of {self.most:.0f}", self.most), (f"{self.machines:g} machines", self.machines)
        return " in ".join(text for text, bound in bounds if bound < inf)

    def __post_init__(self) -> None:
        """Refuse a budget without an end."""
        if self.most == inf and self.machines == inf:
            raise ConfigError("a budget is needed: in power, in money or in machines")


def size(kind: Design, demand: Demand, slo: Slo, budget: Budget) -> Sized:
    """The pools that serve most requests a second of `demand`'s lengths; of equals, those that count least.

    ConfigError where the budget has no room for one machine of each pool.
    """
    if kind.token is None:
        count = int(min(budget.machines, budget.most / each(kind, budget)[0]))
        ways = [Sized(Pools(mixed=count), count * mixed_rate(kind.prompt, demand, slo))] if count else []
    else:
        rates = prompt_rate(kind.prompt, demand, slo), token_rate(kind.token, demand, slo)
        ways = [Sized(pools, min(pools.prompt * rates[0], pools.token * rates[1])) for pools in splits(kind, budget)]
    if not ways:
        raise ConfigError(f"{budget} is too little for a machine of each pool: raise it, or take the baseline")
    return max(ways, key=lambda way: (way.requests_per_s, -counts(kind, way.pools, budget)))


def splits(kind: Design, budget: Budget) -> Iterator[Pools]:
    """By rising numbers of prompt machines, as many token machines as the budget still has room for."""
    first, last = each(kind, budget)
    for prompt in range(1, int(min(budget.machines, budget.most / first)) + 1):
        token = int(min(budget.machines - prompt, (budget.most - prompt * first) / last))
        if token > 0:
            yield Pools(prompt, token)


def counts(kind: Design, pools: Pools, budget: Budget) -> float:
    """What pools count in a budget, in its unit."""
    first, last = each(kind, budget)
    return (pools.prompt + pools.mixed) * first + pools.token * last


def each(kind: Design, budget: Budget) -> tuple[float, float]:
    """What a prompt machine and a token machine of a design count in a budget."""
    return budget.each or (kind.kinds[0].budget_w, kind.kinds[-1].budget_w)

"""Beside one serving instance: reads what its engine tells, and says it as the load of its pool.

It needs neither a GPU nor any privilege. On a clean stop it says that the instance has left its pool; when it vanishes,
its load grows stale.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from random import Random

from polcad import plugins
from polcad.broker_spec import BrokerSpec
from polcad.clock import SteadyClock
from polcad.complaints import Complaints
from polcad.config import Config, LoadSpec
from polcad.model import PoolLoad
from polcad.mqtt import Link, Presence
from polcad.ports import LoadCollector
from polcad.wire import Address, encode

_LOG = logging.getLogger(__name__)


class Teller:
    """One instance; `collector` reads it in a thread, for it may block as long as its deadline."""

    def __init__(self, spec: LoadSpec, site: str, broker: BrokerSpec, collector: LoadCollector) -> None:
        self._spec, self._collector = spec, collector
        self._clock = SteadyClock()
        self._complaints = Complaints(_LOG)
        self._to = Address(site, "", "load", pool=spec.pool, instance=spec.instance_name)
        ended = PoolLoad(spec.pool, spec.instance_name, 0.0, spec.tensor_parallel, ended=True)
        presence = Presence(
            client_id=f"polcad-load-{spec.instance_name}-{time.time_ns():x}", farewell=(encode(self._to, ended),)
        )
        self._link = Link(broker, presence, self._clock.now, Random())  # noqa: S311  # spreads retries

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._link.run(), name="mqtt")
            tasks.create_task(self._tell(), name="load")

    async def _tell(self) -> None:
        next_t = self._clock.now()
        while True:
            load = await asyncio.to_thread(self._collector.read, self._clock.now())
            if load.fault:
                self._complaints.add(f"{load.pool}/{load.instance}", load.fault, load.t)
            self._link.send(encode(self._to, replace(load, t=self._clock.told(load.t))))
            next_t = max(next_t + self._spec.period_s, self._clock.now())
            await self._clock.sleep_until(next_t)


def collector_of(spec: LoadSpec) -> LoadCollector:
    """The collector that the configuration names; ConfigError."""
    options = {
        "pool": spec.pool,
        "instance": spec.instance_name,
        "tensor_parallel": spec.tensor_parallel,
        "url": spec.url,
        "deadline_s": spec.deadline_s,
        **spec.collector_options,
    }
    collector: LoadCollector = plugins.load("polcad.load_collectors", spec.collector)(options)
    return collector


def usable(config: Config) -> Config:
    """The same configuration, for this program; ConfigError when a part or a file that it names cannot be used."""
    config.broker.check()
    collector_of(config.load)
    return config


async def run(config: Config) -> None:
    """The program that a configuration describes, until cancelled; ConfigError."""
    await Teller(config.load, config.site.name, config.broker, collector_of(config.load)).run()

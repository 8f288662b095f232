"""Looks at this host, its GPUs and its broker as an agent or a daemon would find them, and says what to mend.

Nothing is set. To the broker go a few messages that say nothing (`polcad.doctor.access`). Each check returns one or
more `Check`; `examine` runs them all. What only a node needs is left out on a daemon's host.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from polcad.access import Role, identity
from polcad.config import Config, load
from polcad.doctor import access, certificates, gpus, hearing, host, lock, setters
from polcad.doctor.check import Check, State
from polcad.errors import ConfigError
from polcad.standby import lock_of

__all__ = ["Check", "State", "examine", "exit_code"]


async def examine(
    paths: Sequence[Path] | None, environ: Mapping[str, str], *, node: bool | None = None, watch_s: float = 3.0
) -> list[Check]:
    """All checks. `node`: whether an agent runs here; None: where the configuration has no ``[row]``.

    `watch_s` is how long others are listened to.
    """
    found = [host.check_python(), host.check_packages(), host.check_configuration(paths, environ), host.check_clock()]
    try:
        config = load(paths, environ)
    except ConfigError:
        return found  # the rest would only ask the defaults
    is_node = node if node is not None else config.row is None
    if config.row is not None and not is_node:
        found += await lock.check_lock(config.standby, lock_of(config.site.name, config.row.name))
    elif config.site.rows:
        found += await lock.check_lock(config.standby, lock_of(config.site.name))
    found += await _broker(config, is_node=is_node, watch_s=watch_s)
    return [*found, *(await _node(config) if is_node else ())]


def exit_code(checks: Iterable[Check]) -> int:
    """0, or the code of the first check that failed."""
    return next((check.code for check in checks if check.state is State.FAIL), 0)


async def _broker(config: Config, *, is_node: bool, watch_s: float) -> list[Check]:
    """Whether the broker lets us in, and what is said there."""
    row, agent = config.row, config.agent
    me = identity(Role.NODE, agent.node_name) if is_node or row is None else identity(Role.DAEMON, row.name)
    found = [host.check_password_file(config.broker), *certificates.check_files(config.broker.tls, me)]
    found += certificates.check_signing(config.signing)
    answers = {node: await host.check_broker(node) for node in config.broker.nodes()}
    found += host.any_will_do(answers.values())
    broker = next((node for node, check in answers.items() if check.state is State.OK), None)
    if broker is None:
        return found
    found += await asyncio.to_thread(certificates.check_server, broker)
    if is_node or row is None:
        found.append(await access.check_node(broker, config.site.name, agent, me))
        found += await hearing.check_node(config, watch_s)
    else:
        found.append(await access.check_daemon(broker, config.site.name, row, me))
        found += await hearing.check_daemon(config.broker, config.site.name, row, watch_s)
    return found


async def _node(config: Config) -> list[Check]:
    """What an agent needs of its host and its GPUs."""
    agent, found = config.agent, []
    if "nvml" in {agent.collector, agent.device}:
        found.append(gpus.check_driver(gpus.DRIVER))
    others = setters.Processes(Path("/proc"), os.getpid())
    state_dir = Path(config.setting.state_dir)
    found += await asyncio.to_thread(lambda: [*gpus.check_gpus(agent, state_dir, ours=bool(others.polcad()))])
    found += setters.check_processes(others)
    if config.actuator.socket:
        return [*found, await host.check_actuator(config.actuator)]
    return [*found, gpus.check_privilege(agent, host.STATUS), host.check_state_dir(agent), host.check_plan(agent)]

"""Looks at this host as an agent or a daemon would find it, and says what to mend. Nothing is set, nothing is sent.

Each check returns a `Check`; `examine` runs them all. What only a node needs is left out on a daemon's host.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import platform
import re
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from random import Random

from polcad import plugins
from polcad.broker_spec import BrokerSpec
from polcad.codec import Codec
from polcad.config import AgentSpec, check_config, load
from polcad.errors import ConfigError, PolcadError, WireError
from polcad.model import Plan
from polcad.mqtt import Link, Presence
from polcad.ports import Closable, Collector

DRIVER = Path("/proc/driver/nvidia/version")
STATUS = Path("/proc/self/status")
CAP_SYS_ADMIN = 21  # the bit of the capability that NVML asks for
TIME_ERROR = 5  # what adjtimex answers while the clock is not synchronised
OLDEST_PYTHON = (3, 11)


class State(StrEnum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `remedy` is "" where nothing is to be done, `code` the exit code that a failure asks for."""

    name: str
    state: State
    detail: str
    remedy: str = ""
    code: int = 1


async def examine(paths: Sequence[Path] | None, environ: Mapping[str, str], *, node: bool | None = None) -> list[Check]:
    """All checks. `node`: whether an agent runs here; None: where the configuration has no ``[row]``."""
    found = [check_python(), check_packages(), check_configuration(paths, environ), check_clock()]
    try:
        config = load(paths, environ)
    except ConfigError:
        return found  # the rest would only ask the defaults
    found += [check_password_file(config.broker), await check_broker(config.broker)]
    if node if node is not None else config.row is None:
        if "nvml" in {config.agent.collector, config.agent.device}:
            found.append(check_driver(DRIVER))
        found.append(await asyncio.to_thread(check_gpus, config.agent))
        found += [check_privilege(config.agent, STATUS), check_state_dir(config.agent), check_plan(config.agent)]
    return found


def exit_code(checks: Iterable[Check]) -> int:
    """0, or the code of the first check that failed."""
    return next((check.code for check in checks if check.state is State.FAIL), 0)


def check_python(running: tuple[int, int] = sys.version_info[:2]) -> Check:
    """Whether this Python is new enough."""
    if running < OLDEST_PYTHON:
        return Check("python", State.FAIL, platform.python_version(), "run polcad with Python 3.11 or later")
    return Check("python", State.OK, platform.python_version())


def check_packages() -> Check:
    """Whether what polcad needs is installed, and in which versions."""
    names = [re.split(r"[^\w.-]", line)[0] for line in requires("polcad") or () if "python_version" not in line]
    try:
        found = ", ".join(f"{name} {version(name)}" for name in ["polcad", *names])
    except PackageNotFoundError as error:
        return Check("packages", State.FAIL, f"{error.name} is missing", "install polcad again")
    return Check("packages", State.OK, found)


def check_configuration(paths: Sequence[Path] | None, environ: Mapping[str, str]) -> Check:
    """Whether the programs would start with this configuration."""
    problems = check_config(paths, environ)
    if not problems:
        return Check("configuration", State.OK, "valid")
    state = State.WARN if all(problem.warning for problem in problems) else State.FAIL
    return Check("configuration", state, "\n".join(map(str, problems)), "mend the keys named", 78)


def check_clock(adjtimex: Callable[[object], int] | None = None) -> Check:
    """Whether the wall clock is synchronised; leases do not need it, people who compare nodes do."""
    answer = (adjtimex or ctypes.CDLL(None).adjtimex)(ctypes.create_string_buffer(512))  # all zero: only read
    if answer < 0:
        return Check("clock", State.WARN, "the kernel does not say whether it is synchronised")
    if answer == TIME_ERROR:
        return Check("clock", State.WARN, "not synchronised", "run chrony or systemd-timesyncd")
    return Check("clock", State.OK, "synchronised")


def check_password_file(spec: BrokerSpec) -> Check:
    """Whether the broker's password is kept from others."""
    if not spec.password_file:
        return Check("password file", State.OK, "none is set")
    try:
        mode = Path(spec.password_file).stat().st_mode
    except OSError as error:
        return Check("password file", State.FAIL, f"{spec.password_file}: {error.strerror}", "create it", 78)
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        return Check("password file", State.WARN, "others may read or write it", f"chmod o-rwx {spec.password_file}")
    return Check("password file", State.OK, spec.password_file)


async def check_broker(spec: BrokerSpec) -> Check:
    """Whether the broker answers and lets us in."""
    presence = Presence(client_id=f"{spec.client_id_prefix}doctor-{uuid.uuid4().hex[:8]}")
    started = time.monotonic()
    try:
        async with Link(spec, presence, time.monotonic, Random()).opened():  # noqa: S311  # spreads retries
            return Check("broker", State.OK, f"{spec.url} answered in {1000 * (time.monotonic() - started):.0f} ms")
    except PolcadError as error:
        return Check("broker", State.FAIL, str(error), "start the broker, or mend [broker]", 69)


def check_driver(path: Path) -> Check:
    """Whether NVIDIA's kernel module is loaded, and its version."""
    with contextlib.suppress(OSError):
        return Check("driver", State.OK, path.read_text("utf-8").splitlines()[0])
    return Check("driver", State.WARN, "NVIDIA's kernel module is not loaded", "install or load it, if GPUs are here")


def check_gpus(spec: AgentSpec) -> Check:
    """Whether the collector of the configuration reads GPUs."""
    try:
        options = {"deadline_s": spec.gpu_deadline_s, **spec.collector_options}
        collector: Collector = plugins.load("polcad.collectors", spec.collector)(options)
    except PolcadError as error:
        code = 78 if isinstance(error, ConfigError) else 69
        return Check("gpus", State.FAIL, str(error), f"mend what collector {spec.collector!r} names", code)
    try:
        gpus = collector.read(time.time()).gpus
    finally:
        if isinstance(collector, Closable):
            collector.close()
    silent = sum(power_w is None for power_w in gpus.power_w)
    if not gpus.uuid or silent:
        return Check("gpus", State.FAIL, f"{silent} of {len(gpus.uuid)} tell no power", "see nvidia-smi and dmesg", 69)
    return Check("gpus", State.OK, f"{len(gpus.uuid)}, drawing {sum(filter(None, gpus.power_w)):.0f} W")


def check_privilege(spec: AgentSpec, status: Path) -> Check:
    """Whether the driver would let this user set GPUs; nothing is set to find out."""
    if spec.device != "nvml":
        return Check("privilege", State.OK, f"device {spec.device!r} needs none")
    held = re.search(r"^CapEff:\s*(\w+)", status.read_text("utf-8"), re.MULTILINE)
    if held and int(held[1], 16) >> CAP_SYS_ADMIN & 1:
        return Check("privilege", State.OK, "CAP_SYS_ADMIN is held")
    remedy = "run the agent as root or with CAP_SYS_ADMIN, or set agent.device to dry_run"
    return Check("privilege", State.FAIL, f"user {os.geteuid()} has no CAP_SYS_ADMIN", remedy, 77)


def check_state_dir(spec: AgentSpec) -> Check:
    """Whether the last plan can be kept for a restart in silence."""
    folder = Path(spec.state_dir)
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return Check("state_dir", State.OK, f"{folder} {'is writable' if there == folder else 'will be made'}")
    except OSError as error:
        return Check("state_dir", State.FAIL, f"{there}: {error.strerror}", "make it writable for the agent", 77)


def check_plan(spec: AgentSpec) -> Check:
    """The plan kept by an earlier run, which a restart would begin with."""
    try:
        plan = Codec(Plan).decode(spec.plan_path.read_bytes())
    except FileNotFoundError:
        return Check("plan kept", State.OK, "none yet: the agent leaves GPUs as they are until it hears one")
    except (OSError, WireError) as error:
        return Check("plan kept", State.WARN, f"{spec.plan_path}: {error}", "remove it")
    if plan.row != spec.row:
        return Check("plan kept", State.WARN, f"of row {plan.row}, this node is in {spec.row}", f"rm {spec.plan_path}")
    return Check("plan kept", State.OK, f"epoch {plan.epoch}, sequence {plan.seq}")

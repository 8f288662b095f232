"""The host itself: Python, packages, configuration, clock, a broker in reach, and where an agent keeps its state."""

from __future__ import annotations

import asyncio
import ctypes
import platform
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from random import Random

from polcad.actuator_wire import ANSWERS, Request, framed, receive
from polcad.broker_spec import BrokerSpec
from polcad.codec import Codec
from polcad.config import ActuatorSpec, AgentSpec, check_config
from polcad.doctor.check import Check, State
from polcad.errors import ConfigError, PolcadError, WireError
from polcad.model import Plan
from polcad.mqtt import Link, Presence
from polcad.secret_files import open_to_others, path_of

STATUS = Path("/proc/self/status")
TIME_ERROR = 5  # what adjtimex answers while the clock is not synchronised
OLDEST_PYTHON = (3, 11)
_ACTUATOR_S = 2.0  # that it may take to answer


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
        path = path_of(spec.password_file, "broker.password_file")
        exposed = open_to_others(path)
    except ConfigError as error:
        return Check("password file", State.FAIL, str(error), "name a file, or hand the credential over", 78)
    except OSError as error:
        return Check("password file", State.FAIL, f"{spec.password_file}: {error.strerror}", "create it", 78)
    if exposed:
        return Check("password file", State.WARN, "others may read or write it", f"chmod o-rwx {path}")
    return Check("password file", State.OK, str(path))


async def check_broker(spec: BrokerSpec) -> Check:
    """Whether the broker answers and lets us in."""
    presence = Presence(client_id=f"{spec.client_id_prefix}doctor-{uuid.uuid4().hex[:8]}")
    started = time.monotonic()
    try:
        async with Link(spec, presence, time.monotonic, Random()).opened():  # noqa: S311  # spreads retries
            return Check("broker", State.OK, f"{spec.url} answered in {1000 * (time.monotonic() - started):.0f} ms")
    except PolcadError as error:
        return Check("broker", State.FAIL, str(error), "start the broker, or mend [broker]", 69)


def any_will_do(answers: Iterable[Check]) -> Iterator[Check]:
    """The answers of a cluster's nodes: while one lets us in, that another does not is a warning."""
    answers = tuple(answers)
    up = any(check.state is State.OK for check in answers)
    for check in answers:
        yield replace(check, state=State.WARN) if up and check.state is State.FAIL else check


async def check_actuator(spec: ActuatorSpec) -> Check:
    """Whether the actuator answers, and lets this user speak; it is asked for nothing."""
    try:
        async with asyncio.timeout(_ACTUATOR_S):
            reader, writer = await asyncio.open_unix_connection(spec.socket)
            try:
                writer.write(framed(Request()))
                answer = await receive(reader, ANSWERS)
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError, WireError) as error:
        why = str(error) or f"no answer within {_ACTUATOR_S:g} s"
        return Check("actuator", State.FAIL, f"{spec.socket}: {why}", "systemctl start polcad-actuator", 69)
    if answer.refusal:
        return Check("actuator", State.FAIL, answer.refusal, f"run this as {spec.user}, or mend actuator.user", 77)
    return Check("actuator", State.OK, f"{spec.socket} answers")


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

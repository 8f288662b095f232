"""The GPUs of this node: whether they can be read and set, keep what is set, and are set by nobody else."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pynvml

from polcad import plugins
from polcad.config import AgentSpec
from polcad.devices.nvml_board import Seen, ask, differs, see
from polcad.doctor.check import Check, State
from polcad.errors import ConfigError, PolcadError
from polcad.ports import Closable, Collector, GpuSession

DRIVER = Path("/proc/driver/nvidia/version")
CAP_SYS_ADMIN = 21  # the bit of the capability that NVML asks for
WATCH_S = 1.0  # for how long limits are watched
_LOOKS = 10  # in that time


def check_driver(path: Path) -> Check:
    """Whether NVIDIA's kernel module is loaded, and its version."""
    with contextlib.suppress(OSError):
        return Check("driver", State.OK, path.read_text("utf-8").splitlines()[0])
    return Check("driver", State.WARN, "NVIDIA's kernel module is not loaded", "install or load it, if GPUs are here")


def check_gpus(spec: AgentSpec, state_dir: Path, *, ours: bool) -> Iterator[Check]:
    """Whether the collector reads GPUs; of NVML's, whether they keep what is set, and who else sets them.

    `ours`: whether polcad itself runs here and may change limits meanwhile.
    """
    try:
        options = {"deadline_s": spec.gpu_deadline_s, **spec.collector_options}
        collector: Collector = plugins.load("polcad.collectors", spec.collector)(options)
    except PolcadError as error:
        code = 78 if isinstance(error, ConfigError) else 69
        yield Check("gpus", State.FAIL, str(error), f"mend what collector {spec.collector!r} names", code)
        return
    try:
        yield _check_reading(collector)
        session: GpuSession | None = getattr(collector, "session", None)
        if session is not None:
            yield check_persistence(session)
            yield check_limits(session, managed=_managed(state_dir), ours=ours)
    finally:
        if isinstance(collector, Closable):
            collector.close()


def _check_reading(collector: Collector) -> Check:
    gpus = collector.read(time.time()).gpus
    silent = sum(power_w is None for power_w in gpus.power_w)
    if not gpus.uuid or silent:
        return Check("gpus", State.FAIL, f"{silent} of {len(gpus.uuid)} tell no power", "see nvidia-smi and dmesg", 69)
    return Check("gpus", State.OK, f"{len(gpus.uuid)}, drawing {sum(filter(None, gpus.power_w)):.0f} W")


def check_persistence(session: GpuSession) -> Check:
    """Whether the driver stays loaded, with limits and locks, when nobody uses a GPU."""
    modes = session.call(dict.fromkeys(session.uuids(), pynvml.nvmlDeviceGetPersistenceMode))
    off = [uuid for uuid, mode in modes.items() if mode == pynvml.NVML_FEATURE_DISABLED]
    if off:
        detail = f"off on {_some(off)}: limits and locks are lost when the last user of a GPU ends"
        return Check(
            "persistence", State.WARN, detail, "systemctl enable --now nvidia-persistenced, or nvidia-smi -pm 1"
        )
    return Check("persistence", State.OK, "on")


def check_limits(
    session: GpuSession,
    *,
    managed: bool,
    ours: bool,
    watch_s: float = WATCH_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Check:
    """Whether somebody else sets power limits: they change while we look, are held from outside, or were lowered.

    `managed`: whether polcad has set limits since the boot, so that a lowered one may be its own.
    """
    looks = [_seen(session)]
    for _ in range(_LOOKS):
        sleep(watch_s / _LOOKS)
        looks.append(_seen(session))
    first, last = looks[0], looks[-1]
    changed = [uuid for uuid, one in first.items() if not ours and any(_moved(one, look.get(uuid)) for look in looks)]
    if changed:
        detail = f"the limit of {_some(changed)} changed within {watch_s:g} s, and polcad does not run"
        return Check("limits", State.WARN, detail, "find who sets it: nvidia-smi in a script, DCGM, a job's prologue")
    held = [uuid for uuid, seen in last.items() if _held(seen)]
    if held:
        detail = f"less than the limit asked for is enforced on {_some(held)}: it is held from outside"
        return Check("limits", State.WARN, detail, "look at the BMC's power capping, and at thermal alarms")
    lowered = [] if managed or ours else _lowered(session, last)
    if lowered:
        detail = (
            f"{_some(lowered)}: below the board's default before polcad set anything, and polcad will go back to it"
        )
        return Check(
            "limits", State.WARN, detail, "nvidia-smi -pl sets it, if nobody meant it so; look for a boot script"
        )
    return Check("limits", State.OK, f"nobody changed one within {watch_s:g} s")


def check_privilege(spec: AgentSpec, status: Path) -> Check:
    """Whether the driver would let this user set GPUs; nothing is set to find out."""
    if spec.device != "nvml":
        return Check("privilege", State.OK, f"device {spec.device!r} needs none")
    held = re.search(r"^CapEff:\s*(\w+)", status.read_text("utf-8"), re.MULTILINE)
    if held and int(held[1], 16) >> CAP_SYS_ADMIN & 1:
        return Check("privilege", State.OK, "CAP_SYS_ADMIN is held")
    remedy = (
        "run `polcad actuator` as root and set actuator.socket, or the agent as root, or set agent.device to dry_run"
    )
    return Check("privilege", State.FAIL, f"user {os.geteuid()} has no CAP_SYS_ADMIN", remedy, 77)


def _seen(session: GpuSession) -> dict[str, Seen]:
    answers = session.call(dict.fromkeys(session.uuids(), see))
    return {uuid: seen for uuid, seen in answers.items() if not isinstance(seen, Exception)}


def _moved(one: Seen, other: Seen | None) -> bool:
    if other is None or one.requested_mw is None or other.requested_mw is None:
        return False
    return differs(one.requested_mw, other.requested_mw)


def _held(seen: Seen) -> bool:
    asked, enforced = seen.requested_mw, seen.enforced_mw
    return asked is not None and enforced is not None and enforced < asked and differs(asked, enforced)


def _lowered(session: GpuSession, seen: Mapping[str, Seen]) -> list[str]:
    defaults = session.call(dict.fromkeys(seen, _default_mw))
    return [
        uuid
        for uuid, default in defaults.items()
        if isinstance(default, int) and (now := seen[uuid].requested_mw) is not None
        if now < default and differs(now, default)
    ]


def _default_mw(handle: object) -> int | None:
    default: int | None = ask(pynvml.nvmlDeviceGetPowerManagementDefaultLimit, handle)
    return default


def _managed(state_dir: Path) -> bool:
    """Whether polcad keeps here how it found the boards; where that cannot be told, it may."""
    try:
        return (state_dir / "nvml.json").exists()
    except OSError:
        return True


def _some(uuids: Sequence[str]) -> str:
    return f"{uuids[0]}{f' and {len(uuids) - 1} more' if len(uuids) > 1 else ''}"

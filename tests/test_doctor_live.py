"""What the doctor finds, beside the real thing: Mosquitto with its access list, a driver library, processes."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from collectors.nvml import NvmlCollector
from polcad.access import Inventory
from polcad.actuator import Actuator, listening_at
from polcad.broker_spec import BrokerSpec, TlsSpec
from polcad.config import ActuatorSpec, AgentSpec, Config, SiteSpec
from polcad.doctor import Check, State, access, certificates, examine, exit_code, gpus, hearing, host, setters
from polcad.follower import Follower, build_collector, build_device
from polcad.model import FREE, NodeState, Plan
from polcad.mqtt import Link, Presence
from polcad.pki import make_plan_key
from polcad.ports import GpuSession
from polcad.signing import SigningSpec
from polcad.spec import NodeSpec, RowSpec
from polcad.testing import telemetry
from polcad.testing_brokers import Mosquitto, StartMosquitto
from polcad.wire import Address, Message, encode
from tests.fake_nvml.control import FakeNode
from tests.live_row import POLCAD
from tests.secured import Secured, secure
from tests.waiting import until

pytestmark = pytest.mark.integration

NODES = (NodeSpec("n1", "k1"), NodeSpec("n2", "k1"), NodeSpec("n3", "k1", in_service=False))
ROW = RowSpec("r1", 20000.0, nodes=NODES)
N1 = AgentSpec(row="r1", rack="k1", node="n1")
PLAN = Address("site", "r1", "plan")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Secured:
    return secure(tmp_path_factory.mktemp("doctor"), [Inventory("site", ROW)], "n9")


@pytest.fixture(scope="module")
def broker(secured: Secured) -> Iterator[Mosquitto]:
    with secured.broker() as running:
        yield running


def spec_of(secured: Secured, broker: Mosquitto, name: str) -> BrokerSpec:
    return BrokerSpec(port=broker.port, tls=secured.tls(name))


@asynccontextmanager
async def speaking(spec: BrokerSpec, *messages: Callable[[], Message]) -> AsyncIterator[None]:
    """Says these for as long as the block lasts, each anew."""
    async with Link(spec, Presence("speaker"), time.time, Random(1)).opened() as link:  # noqa: S311  # spreads retries

        async def speak() -> None:
            while True:
                for message in messages:
                    await link.publish(message())
                await asyncio.sleep(0.02)

        task = asyncio.create_task(speak())
        yield
        task.cancel()
        await asyncio.wait({task})


def planned(behind_s: float = 0.0, signing: SigningSpec | None = None) -> Callable[[], Message]:
    signer = signing.signer() if signing else None

    def made() -> Message:
        message = encode(PLAN, Plan("r1", 3, time.time_ns() // 1000, time.time() - behind_s, 5.0, FREE))
        return signer.signed(message) if signer else message

    return made


def told(node: str, rack: str = "k1", behind_s: float = 0.0) -> Callable[[], Message]:
    said = telemetry(node)
    return lambda: encode(Address("site", "r1", "telemetry", rack, node), replace(said, t=time.time() - behind_s))


def named(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


# --- the broker and its access list -----------------------------------------------------------------------------------


def test_with_the_generated_list_a_node_and_a_daemon_may_do_their_part_and_no_more(
    secured: Secured, broker: Mosquitto
) -> None:
    node = asyncio.run(access.check_node(spec_of(secured, broker, "n1"), "site", N1, "n1"))
    daemon = asyncio.run(access.check_daemon(spec_of(secured, broker, "daemon.r1"), "site", ROW, "daemon.r1"))
    assert (node.state, daemon.state) == (State.OK, State.OK), (node, daemon)


def test_a_node_that_is_not_listed_is_told_what_it_may_not_do_and_the_remedy(
    secured: Secured, broker: Mosquitto
) -> None:
    check = asyncio.run(access.check_node(spec_of(secured, broker, "n9"), "site", replace(N1, node="n9"), "n9"))
    assert (check.state, check.code) == (State.FAIL, 77)
    assert "'n9' may not write polcad/v1/site/r1/k1/n9/telemetry" in check.detail
    assert "polcad broker-config" in check.remedy


def test_an_open_broker_is_told_with_what_anybody_could_do(mosquitto: StartMosquitto) -> None:
    spec = BrokerSpec(port=mosquitto().port)
    for check in (
        asyncio.run(access.check_node(spec, "site", N1, "n1")),
        asyncio.run(access.check_daemon(spec, "site", ROW, "daemon.r1")),
    ):
        assert check.state is State.WARN
        assert "may also write polcad/v1/site/" in check.detail
    (plain,) = certificates.check_files(None, "n1")
    assert plain.state is State.WARN


# --- plans, clocks, inventory -----------------------------------------------------------------------------------------


def heard_by_n1(secured: Secured, broker: Mosquitto, signing: SigningSpec, *said: Callable[[], Message]) -> list[Check]:
    async def scenario() -> list[Check]:
        config = Config(site=SiteSpec("site"), agent=N1, broker=spec_of(secured, broker, "n1"), signing=signing)
        async with speaking(spec_of(secured, broker, "daemon.r1"), *said):
            return await hearing.check_node(config, 0.5)

    return asyncio.run(scenario())


def test_a_plan_that_comes_is_well_and_one_that_does_not_is_told(secured: Secured, broker: Mosquitto) -> None:
    well = heard_by_n1(secured, broker, SigningSpec(), planned())
    assert [check.state for check in well] == [State.OK, State.OK]
    (missing,) = heard_by_n1(secured, broker, SigningSpec())
    assert (missing.name, missing.state) == ("plan", State.WARN)
    assert "start the row's daemon" in missing.remedy


def test_clocks_that_differ_are_told_apart(secured: Secured, broker: Mosquitto) -> None:
    skew = named(heard_by_n1(secured, broker, SigningSpec(), planned(behind_s=30.0)), "clock skew")
    assert skew.state is State.WARN
    assert "the daemon of r1 is 30." in skew.detail
    assert "behind" in skew.detail


def test_a_plan_that_the_node_would_refuse_fails(secured: Secured, broker: Mosquitto, tmp_path: Path) -> None:
    private, public = make_plan_key(tmp_path, "r1")
    signing = SigningSpec(str(private), str(public), max_age_s=10.0)
    well = heard_by_n1(secured, broker, signing, planned(signing=signing))
    assert named(well, "plan").state is State.OK
    for said in (planned(), planned(behind_s=30.0, signing=signing)):
        check = named(heard_by_n1(secured, broker, signing, said), "plan")
        assert (check.state, check.code) == (State.FAIL, 78)


def test_keys_that_cannot_be_used_are_told_once(secured: Secured, broker: Mosquitto) -> None:
    wrong = SigningSpec(trusted_file="/nowhere")
    (told,) = certificates.check_signing(wrong)
    assert (told.state, told.code) == (State.FAIL, 78)
    assert named(heard_by_n1(secured, broker, wrong, planned()), "plan").state is State.OK


def test_a_node_that_overhears_others_is_told_so(mosquitto: StartMosquitto) -> None:
    async def scenario() -> list[Check]:
        spec = BrokerSpec(port=mosquitto().port)
        async with speaking(spec, planned(), told("n2")):
            return await hearing.check_node(Config(site=SiteSpec("site"), agent=N1, broker=spec), 0.5)

    assert "what others say: n2" in named(asyncio.run(scenario()), "hearing").detail


def test_nodes_that_are_silent_unlisted_or_astray_are_named_and_so_are_their_clocks(mosquitto: StartMosquitto) -> None:
    async def scenario(*said: Callable[[], Message]) -> list[Check]:
        spec = BrokerSpec(port=mosquitto().port)
        async with speaking(spec, *said):
            return await hearing.check_daemon(spec, "site", ROW, 0.5)

    stopped = Address("site", "r1", "state", "k1", "n2")
    wrong = asyncio.run(
        scenario(
            told("n1", rack="k2", behind_s=-60.0), told("n8"), lambda: encode(stopped, NodeState("n2", online=False))
        )
    )
    inventory, clocks = wrong
    assert (inventory.state, clocks.state) == (State.WARN, State.WARN)
    assert "silent for 0.5 s: n2 (offline)" in inventory.detail
    assert "not listed: n8" in inventory.detail
    assert "n1 (in k2, listed in k1)" in inventory.detail
    assert "n3" not in inventory.detail  # taken out of service
    assert "n1 is 60.0 s ahead" in clocks.detail
    well = asyncio.run(scenario(told("n1"), told("n2")))
    assert [check.state for check in well] == [State.OK, State.OK], well


# --- certificates -----------------------------------------------------------------------------------------------------


def test_certificates_are_told_when_they_expire_are_anothers_or_lie_open(secured: Secured, broker: Mosquitto) -> None:
    tls = secured.tls("n1")
    states = [check.state for check in certificates.check_files(tls, "n1")]
    assert states == [State.WARN, State.WARN, State.OK]  # the authority has two days, the node one; the key is kept
    (shown,) = certificates.check_server(spec_of(secured, broker, "n1"))
    assert shown.state is State.WARN
    assert "expires in 1 days" in shown.detail

    secured.authority.issue("gone", 0.0)
    *_, cert, key = certificates.check_files(secured.tls("gone"), "gone")
    assert (cert.state, cert.code, key.state) == (State.FAIL, 78, State.OK)
    assert "expired" in cert.detail

    _, cert, _ = certificates.check_files(tls, "n2")
    assert "is of 'n1', and this is 'n2'" in cert.detail

    Path(tls.key).chmod(0o644)
    *_, key = certificates.check_files(tls, "n1")
    Path(tls.key).chmod(0o600)
    assert (key.state, key.remedy) == (State.WARN, f"chmod 600 {tls.key}")

    *_, missing, _ = certificates.check_files(TlsSpec("", "/nowhere", "/nowhere"), "n1")
    assert (missing.state, missing.code) == (State.FAIL, 78)


# --- GPUs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def session(gpus_here: FakeNode) -> Iterator[GpuSession]:
    del gpus_here
    collector = NvmlCollector({})
    collector.read(time.time())
    yield collector.session
    collector.close()


def test_persistence_that_is_off_is_told(gpus_here: FakeNode, session: GpuSession) -> None:
    assert gpus.check_persistence(session).state is State.OK
    gpus_here.gpus[3].persist(on=False)
    check = gpus.check_persistence(session)
    assert check.state is State.WARN
    assert gpus_here.gpus[3].uuid in check.detail
    assert "nvidia-persistenced" in check.remedy


def watched(session: GpuSession, *, meanwhile: Callable[[], Any] = lambda: None, **facts: bool) -> Check:
    return gpus.check_limits(session, **{"managed": False, "ours": False, **facts}, sleep=lambda _: meanwhile())


def test_limits_that_others_set_are_told(gpus_here: FakeNode, session: GpuSession) -> None:
    board = gpus_here.gpus[2]
    assert watched(session).state is State.OK

    def meddle() -> None:
        board.limit_w = 300

    changed = watched(session, meanwhile=meddle)
    assert changed.state is State.WARN
    assert f"{board.uuid} changed" in changed.detail
    lowered = watched(session)
    assert "below the board's default" in lowered.detail
    assert watched(session, managed=True).state is State.OK
    board.limit_w = 400
    assert watched(session, meanwhile=meddle, ours=True).state is State.OK
    board.limit_w = 400
    board.hold_limit(250)
    assert "held from outside" in watched(session, ours=True).detail


def test_a_driver_that_is_gone_fails_with_exit_code_69(gpus_here: FakeNode, tmp_path: Path) -> None:
    gpus_here.unload_driver()
    check, *_ = gpus.check_gpus(AgentSpec(), tmp_path, ours=False)
    assert (check.state, check.code) == (State.FAIL, 69)


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def started() -> Iterator[Callable[..., int]]:
    running: list[subprocess.Popen[bytes]] = []

    def start(*command: object, **more: Any) -> int:
        running.append(subprocess.Popen(list(map(str, command)), **more))
        return running[-1].pid

    yield start
    for process in running:
        process.kill()
        process.wait(5.0)


def test_another_tool_that_sets_gpus_is_named(started: Callable[..., int], tmp_path: Path) -> None:
    engine = tmp_path / "nv-hostengine"  # DCGM's, as far as a list of processes shows
    shutil.copy(shutil.which("sleep") or "", engine)
    started(engine, "60")
    until(lambda: setters.Processes(Path("/proc"), os.getpid()).called("nv-hostengine"))
    check, *_ = setters.check_processes(setters.Processes(Path("/proc"), os.getpid()))
    assert check.state is State.WARN
    assert "nv-hostengine runs" in check.detail


def test_a_second_agent_is_found(started: Callable[..., int], tmp_path: Path) -> None:
    path = tmp_path / "n1.toml"
    path.write_text("[agent]\ncollector = 'synthetic'\ndevice = 'synthetic'\nstate_dir = '/nowhere'\n")
    pids = {started(sys.executable, POLCAD, "agent", "-c", path, stderr=subprocess.DEVNULL) for _ in range(2)}

    def here() -> list[int]:
        return setters.Processes(Path("/proc"), os.getpid()).polcad("agent")

    until(lambda: pids <= set(here()))
    found = [*setters.check_processes(setters.Processes(Path("/proc"), os.getpid()))]
    agents = [check for check in found if "polcad agent" in check.detail]  # others may run actuators on this host
    second = named(agents, "second polcad")
    assert second.state is State.WARN
    assert all(str(pid) in second.detail for pid in pids)


def asked(folder: Path, users: frozenset[int]) -> Check:
    """What the doctor says of an actuator that lets these users speak."""
    spec = replace(N1, collector="synthetic", device="synthetic", state_dir=str(folder))
    path = folder / "a.sock"

    async def scenario() -> Check:
        follower = Follower(spec, build_device(spec, build_collector(spec)))
        with listening_at(path) as listening:
            task = asyncio.create_task(Actuator(follower, users).run(listening))
            try:
                return await host.check_actuator(ActuatorSpec(socket=str(path)))
            finally:
                task.cancel()
                await asyncio.wait({task})

    return asyncio.run(scenario())


def test_an_actuator_answers_who_may_speak_and_its_absence_is_told(tmp_path: Path) -> None:
    assert asked(tmp_path, frozenset({os.getuid()})).state is State.OK
    stranger = asked(tmp_path, frozenset({os.getuid() + 1}))
    assert (stranger.state, stranger.code) == (State.FAIL, 77)
    absent = asyncio.run(host.check_actuator(ActuatorSpec(socket=str(tmp_path / "none"))))
    assert (absent.state, absent.code, absent.remedy) == (State.FAIL, 69, "systemctl start polcad-actuator")


# --- all together -----------------------------------------------------------------------------------------------------


def test_a_node_of_a_well_kept_site_has_nothing_to_mend_but_what_it_is_told(
    secured: Secured, broker: Mosquitto, gpus_here: FakeNode, tmp_path: Path
) -> None:
    del gpus_here
    tls = secured.tls("n1")
    path = tmp_path / "polcad.toml"
    path.write_text(
        f'[broker]\nport = {broker.port}\n[broker.tls]\nca = "{tls.ca}"\ncert = "{tls.cert}"\nkey = "{tls.key}"\n'
        f'[agent]\nrow = "r1"\nrack = "k1"\nnode = "n1"\ndevice = "dry_run"\nstate_dir = "{tmp_path}"\n'
    )

    async def scenario() -> list[Check]:
        async with speaking(spec_of(secured, broker, "daemon.r1"), planned()):
            return await examine([path], {}, watch_s=0.5)

    found = asyncio.run(scenario())
    assert exit_code(found) == 0, found
    wrong = {check.name for check in found if check.state is not State.OK}
    of_this_host = {"clock", "driver", "other setters", "second polcad"}  # other tests may run programs of polcad now
    assert wrong <= of_this_host | {"broker.tls.ca", "broker.tls.cert", "broker's certificate"}  # two days left

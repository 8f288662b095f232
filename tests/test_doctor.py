import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from polcad import doctor
from polcad.broker import embedded
from polcad.broker_spec import BrokerSpec
from polcad.codec import Codec
from polcad.config import AgentSpec
from polcad.doctor import Check, State, exit_code, gpus, host
from polcad.model import FREE, Plan
from polcad.testing_brokers import free_port

SYNTHETIC = AgentSpec(node="n1", collector="synthetic", device="synthetic", collector_options={"gpus": 4})
PLAN = Plan("row", 3, 9, 1e9, 5.0, FREE)


def test_python_older_than_311_fails() -> None:
    assert host.check_python((3, 10)).state is State.FAIL
    assert host.check_python().state is State.OK


def test_packages_are_told_with_their_versions() -> None:
    check = host.check_packages()
    assert check.state is State.OK
    assert "polcad " in check.detail
    assert "msgspec " in check.detail


def test_a_wrong_configuration_fails_with_its_place_and_asks_for_exit_code_78(tmp_path: Path) -> None:
    (tmp_path / "polcad.toml").write_text("[guard]\ntick_s = -1")
    checks = asyncio.run(doctor.examine([tmp_path / "polcad.toml"], {}))

    assert any("polcad.toml:2: guard.tick_s" in check.detail for check in checks)
    assert exit_code(checks) == 78


@pytest.mark.parametrize(("answer", "state"), [(0, State.OK), (5, State.WARN), (-1, State.WARN)])
def test_the_clock_is_as_the_kernel_says(answer: int, state: State) -> None:
    assert host.check_clock(lambda _: answer).state is state


def test_this_kernel_is_asked_without_an_error() -> None:
    assert host.check_clock().state in {State.OK, State.WARN}


def test_a_broker_that_answers_is_ok() -> None:
    async def check() -> Check:
        async with embedded() as spec:
            return await host.check_broker(spec)

    assert asyncio.run(check()).state is State.OK


def test_a_broker_that_is_absent_fails_with_exit_code_69() -> None:
    check = asyncio.run(host.check_broker(BrokerSpec(port=free_port())))
    assert (check.state, check.code) == (State.FAIL, 69)
    assert "127.0.0.1" in check.detail


def test_a_node_of_a_cluster_that_is_absent_is_a_warning_while_another_answers() -> None:
    gone, there = (Check("broker", state, "") for state in (State.FAIL, State.OK))
    assert [check.state for check in host.any_will_do([gone, there])] == [State.WARN, State.OK]
    assert [check.state for check in host.any_will_do([gone, gone])] == [State.FAIL, State.FAIL]


def test_a_password_that_others_may_read_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("hunter2")
    spec = BrokerSpec(password_file=str(path))

    path.chmod(0o644)
    assert host.check_password_file(spec).state is State.WARN
    path.chmod(0o640)
    assert host.check_password_file(spec).state is State.OK
    path.unlink()
    assert host.check_password_file(spec).state is State.FAIL
    assert host.check_password_file(BrokerSpec()).state is State.OK


def test_the_driver_is_known_by_its_kernel_module(tmp_path: Path) -> None:
    path = tmp_path / "version"
    assert gpus.check_driver(path).state is State.WARN
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.1\nGCC version: 12\n")
    assert gpus.check_driver(path).detail.endswith("535.1")


def test_gpus_that_answer_are_counted() -> None:
    check, *others = gpus.check_gpus(SYNTHETIC, Path("/nowhere"), ours=False)
    assert not others
    assert check.state is State.OK
    assert check.detail.startswith("4, drawing ")


def test_a_collector_that_is_not_there_or_misled_asks_for_exit_code_78() -> None:
    for spec in (replace(SYNTHETIC, collector="abacus"), replace(SYNTHETIC, collector_options={"beads": 10})):
        (check,) = gpus.check_gpus(spec, Path("/nowhere"), ours=False)
        assert (check.state, check.code) == (State.FAIL, 78)


@pytest.mark.parametrize(
    ("capabilities", "device", "state"),
    [
        ("000001ffffffffff", "nvml", State.OK),
        ("0000000000200000", "nvml", State.OK),
        ("00000000a80425fb", "nvml", State.FAIL),
        ("0000000000000000", "dry_run", State.OK),
    ],
)
def test_setting_through_nvml_needs_cap_sys_admin(tmp_path: Path, capabilities: str, device: str, state: State) -> None:
    (tmp_path / "status").write_text(f"Name:\tpolcad\nCapPrm:\tffff\nCapEff:\t{capabilities}\n")
    check = gpus.check_privilege(replace(SYNTHETIC, device=device), tmp_path / "status")

    assert check.state is state
    assert check.state is not State.FAIL or check.code == 77


def test_a_state_dir_is_writable_or_can_be_made(tmp_path: Path) -> None:
    assert "is writable" in host.check_state_dir(replace(SYNTHETIC, state_dir=str(tmp_path))).detail
    assert "will be made" in host.check_state_dir(replace(SYNTHETIC, state_dir=str(tmp_path / "a" / "b"))).detail


def test_a_state_dir_that_cannot_be_written_fails() -> None:
    assert host.check_state_dir(replace(SYNTHETIC, state_dir="/proc/polcad")).state is State.FAIL


def test_the_plan_kept_is_shown_and_doubted_when_it_is_of_another_row(tmp_path: Path) -> None:
    spec = replace(SYNTHETIC, state_dir=str(tmp_path))
    assert "none yet" in host.check_plan(spec).detail

    spec.plan_path.write_bytes(Codec(Plan).encode(PLAN))
    assert host.check_plan(spec).detail == "epoch 3, sequence 9"
    assert host.check_plan(replace(spec, row="row2")).state is State.WARN

    spec.plan_path.write_bytes(b"{")
    assert host.check_plan(spec).state is State.WARN


def test_a_healthy_node_has_exit_code_0_and_a_daemon_is_spared_the_checks_of_a_node(tmp_path: Path) -> None:
    path = tmp_path / "polcad.toml"
    path.write_text("[row]\nname = 'r1'\nbudget_w = 9000\n[agent]\ncollector = 'synthetic'\ndevice = 'synthetic'\n")

    async def examine(*, node: bool) -> list[Check]:
        async with embedded() as broker:
            environ = {"POLCAD_BROKER__PORT": str(broker.port), "POLCAD_AGENT__STATE_DIR": str(tmp_path)}
            return await doctor.examine([path], environ, node=node or None, watch_s=0.1)

    node, daemon = asyncio.run(examine(node=True)), asyncio.run(examine(node=False))
    assert exit_code(node) == exit_code(daemon) == 0
    elsewhere = {"second polcad"}  # what else runs on this machine is no part of the promise
    assert {check.name for check in node} - {check.name for check in daemon} - elsewhere == {
        "gpus",
        "privilege",
        "state_dir",
        "plan kept",
        "plan",
        "other setters",
    }


def test_the_first_failure_gives_the_exit_code() -> None:
    checks = [
        Check("a", State.OK, ""),
        Check("b", State.WARN, "", code=78),
        Check("c", State.FAIL, "", code=69),
        Check("d", State.FAIL, "", code=77),
    ]
    assert exit_code(checks) == 69

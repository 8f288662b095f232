"""The units as systemd itself judges them, and the package's scripts as the shell does."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from polcad.cli import exit_code
from polcad.config import load
from polcad.devices.bounded import read_bounds
from polcad.errors import ConfigError, OutrankedError, PermissionMissingError, UnavailableError
from polcad.spec import BRAKE

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent
UNITS = sorted((ROOT / "systemd").glob("*.service"))
MOST_EXPOSED = {"polcad-agent": 2.0, "polcad-daemon": 2.0, "polcad-site": 2.0, "polcad-actuator": 3.5}

every_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)


def settings(unit: Path) -> dict[str, list[str]]:
    """The keys of ``[Service]``, each with all its values."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", unit.read_text().split("[Service]")[1], re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def test_there_is_a_unit_for_each_program_of_a_site() -> None:
    assert {unit.stem for unit in UNITS} == set(MOST_EXPOSED)


def test_systemd_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    units = tmp_path / "usr" / "lib" / "systemd" / "system"
    shutil.copytree("/lib/systemd/system", units, symlinks=True)
    shutil.copytree(ROOT / "systemd", units, dirs_exist_ok=True)
    for program in ("usr/bin/polcad", "bin/sh"):
        (tmp_path / program).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy("/bin/true", tmp_path / program)
    command = ["systemd-analyze", "verify", f"--root={tmp_path}", "--man=no", *(unit.name for unit in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@every_unit
def test_a_unit_is_exposed_no_more_than_it_must(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    level = re.search(r"Overall exposure level for .*: ([\d.]+)", told)
    assert level is not None
    assert float(level[1]) <= MOST_EXPOSED[unit.stem], told


@every_unit
def test_a_program_is_not_started_again_where_a_person_must_act(unit: Path) -> None:
    never = set(map(int, settings(unit)["RestartPreventExitStatus"][0].split()))
    assert never >= {2, exit_code(ConfigError("")), exit_code(PermissionMissingError(""))}
    assert exit_code(UnavailableError("")) not in never  # a driver or broker may come back
    if unit.stem in {"polcad-daemon", "polcad-site"}:
        assert exit_code(OutrankedError("")) in never


def test_only_the_actuator_may_set_and_it_sees_no_network() -> None:
    by_name = {unit.stem: settings(unit) for unit in UNITS}
    assert {name: each["CapabilityBoundingSet"] for name, each in by_name.items()} == {
        "polcad-actuator": ["CAP_SYS_ADMIN"],
        "polcad-agent": [""],
        "polcad-daemon": [""],
        "polcad-site": [""],
    }
    assert {name for name, each in by_name.items() if each["User"] == ["root"]} == {"polcad-actuator"}
    assert by_name["polcad-actuator"]["RestrictAddressFamilies"] == ["AF_UNIX"]
    assert by_name["polcad-actuator"]["PrivateNetwork"] == ["yes"]
    for name in ("polcad-actuator", "polcad-agent"):
        assert {"char-nvidia rw", "char-nvidia-* rw"} <= set(by_name[name]["DeviceAllow"])


def test_agent_and_actuator_of_the_package_meet_at_the_socket_and_the_brake_is_within_its_bounds() -> None:
    actuator = load([ROOT / "packaging" / "10-actuator.toml"], {}).actuator
    unit = settings(ROOT / "systemd" / "polcad-actuator.service")
    assert actuator.socket == f"/run/{unit['RuntimeDirectory'][0]}/actuator.sock"
    assert actuator.state_dir == f"/var/lib/{unit['StateDirectory'][0]}"
    bounds = read_bounds(ROOT / "packaging" / "bounds.toml", (ROOT / "packaging").stat().st_uid)
    assert bounds.within(BRAKE) == BRAKE


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_the_shell_understands_the_scripts_of_the_package(script: str) -> None:
    subprocess.run(["/bin/sh", "-n", ROOT / "packaging" / script], check=True)


def test_a_service_that_does_not_come_up_leaves_no_package_half_installed(tmp_path: Path) -> None:
    for command, line in (
        ("systemctl", 'test "$1" != try-restart'),
        ("systemd-sysusers", ""),
        ("systemd-tmpfiles", ""),
    ):
        (tmp_path / command).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / command).chmod(0o755)
    (tmp_path / "run").mkdir()
    script = (ROOT / "packaging" / "postinst").read_text().replace("/run/systemd/system", str(tmp_path / "run"))
    seen = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["/bin/sh", "-c", script, "postinst", "configure", "0.1.0-1"],
        env=seen,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "not every service came up" in done.stderr) == (0, True)

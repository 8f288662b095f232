"""The package on a bare Debian that its own systemd has booted: installed, started, hurt, upgraded, removed, purged.

The tests follow one another on one machine. The GPUs are the driver's fake, the broker and the ear are outside.
"""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from polcad.model import Hold, LeaseState, Setpoint, Telemetry
from polcad.testing_brokers import Mosquitto
from polcad.wire import Address, encode
from tests.booted_debian import BootedDebian
from tests.fake_nvml.control import FakeNode
from tests.live_row import FREE_MHZ, LOW_T1, Wiretap, clock_mhz
from tests.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parent.parent
UNITS = ("polcad-actuator", "polcad-agent", "polcad-daemon")
CAP_SYS_ADMIN = 1 << 21
HELD_MHZ = 705
CONFIG = """\
[site]
name = "site"
[broker]
port = {port}
user = "n1"
password_file = "credential:polcad-password"
retry_max_s = 0.2
[row]
name = "row"
budget_w = 700.0
[guard]
tick_s = 0.2
lease_s = 2.0
dwell_s = 2.0
brake_dwell_s = 2.0
[[node]]
name = "n1"
gpus = 2
gpu_max_w = 400.0
[agent]
row = "row"
node = "n1"
period_s = 0.2
[web]
port = 0
"""
DROP_IN = """\
[Service]
Environment=POLCAD_FAKE_NVML=/var/lib/fake/node.nvml
ReadWritePaths=/var/lib/fake
WatchdogSec=5
RestartSec=1
"""
# Before the daemon starts, in the daemon's own sandbox: a forecaster's lesson.
LESSON = """\
import functools, time
from polcad.school_process import ProcessSchool
school = ProcessSchool()
school.begin(functools.partial(sum, (1, 2)))
while (ended := school.ended()) is None:
    time.sleep(0.01)
school.close()
assert ended == (3,), ended
"""
LESSON_DROP_IN = "[Service]\nExecStartPre=/usr/lib/polcad/bin/python /var/lib/fake/lesson.py\n"


class Site:
    """A node that is its own daemon's host, with the broker and the boards."""

    def __init__(self, debian: BootedDebian, broker: Mosquitto, boards: FakeNode, tap: Wiretap, deb: Path) -> None:
        self.debian, self.broker, self.boards, self.tap, self.deb = debian, broker, boards, tap, deb
        self.before: set[str] = set()

    def clocks(self) -> set[int]:
        return {clock_mhz(gpu) for gpu in self.boards.gpus}

    def until_follows(self) -> None:
        """Wait until the node's next words are that it follows a plan."""
        heard = len(self.tap.heard)

        def held() -> bool:
            said = [each for each in self.tap.nouns("telemetry") if isinstance(each, Telemetry)]
            return len(self.tap.heard) > heard + 5 and bool(
                said and said[-1].plan and said[-1].plan.lease is LeaseState.HELD
            )

        until(held, 40.0)

    def status_of(self, unit: str) -> dict[str, str]:
        """What the kernel says of the unit's process."""
        lines = self.debian.sh(f"cat /proc/{self.debian.show(unit, 'MainPID')}/status").splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, fake_nvml_lib: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("debian")
    built = subprocess.run(["sh", "scripts/deb"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    passwords = folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "n1", "a secret"], check=True)
    lines = ("user root", "listener {port} 127.0.0.1", "allow_anonymous true", f"password_file {passwords}")
    with BootedDebian(folder) as debian, Mosquitto(folder, lines) as broker, Wiretap(broker.port) as tap:
        shared = debian.root / "var" / "lib" / "fake"
        shared.mkdir()
        boards = FakeNode(fake_nvml_lib, shared / "node.nvml", 2)
        (shared / "node.nvml").chmod(0o666)
        boards.load(0.2)
        shutil.copy(fake_nvml_lib / "libnvidia-ml.so.1", debian.root / "usr" / "lib")
        debian.sh("ldconfig")
        yield Site(debian, broker, boards, tap, ROOT / built.stdout.strip())


def test_installing_makes_the_user_and_starts_nothing(site: Site) -> None:
    site.before = site.debian.files()
    shutil.copy(site.deb, site.debian.root / "root" / "polcad.deb")
    site.debian.sh("apt-get install -y --no-install-recommends /root/polcad.deb")
    site.debian.sh("rm /root/polcad.deb")
    assert "polcad" in site.debian.sh("id polcad")
    for unit in UNITS:
        assert site.debian.sh(f"systemctl is-enabled {unit}", check=False) == "disabled"
        assert site.debian.show(unit, "ActiveState") == "inactive"
    assert site.debian.sh("polcad check") == "the configuration is good"


def test_the_services_start_with_no_more_rights_than_they_need(site: Site) -> None:
    site.debian.write("/etc/polcad/polcad.toml", CONFIG.format(port=site.broker.port))
    site.debian.write("/etc/credstore/polcad-password", "a secret\n", 0o600)
    for unit in UNITS[:2]:
        site.debian.write(f"/etc/systemd/system/{unit}.service.d/test.conf", DROP_IN)
    site.debian.write("/var/lib/fake/lesson.py", LESSON)
    site.debian.write("/etc/systemd/system/polcad-daemon.service.d/test.conf", LESSON_DROP_IN)
    site.debian.sh(f"systemctl daemon-reload && systemctl enable --now {' '.join(UNITS)}")
    site.until_follows()
    rights = {unit: site.status_of(unit) for unit in UNITS}
    assert int(rights["polcad-actuator"]["CapEff"], 16) == CAP_SYS_ADMIN
    uid = site.debian.sh("id -u polcad")
    for unit in UNITS[1:]:
        assert int(rights[unit]["CapEff"], 16) == 0
        assert set(rights[unit]["Uid"].split()) == {uid}
    assert {each["NoNewPrivs"] for each in rights.values()} == {"1"}
    assert {each["Seccomp"] for each in rights.values()} == {"2"}
    assert "plan held" in site.debian.show("polcad-actuator", "StatusText")


def test_too_much_load_and_an_operators_hold_are_locked_down_through_all_of_it(site: Site) -> None:
    site.boards.load(1.0)
    until(lambda: max(site.clocks()) <= LOW_T1, 40.0)
    site.boards.load(0.2)
    hold = Hold("test", "row", Setpoint(HELD_MHZ / FREE_MHZ), time.time() + 3600.0)
    site.tap.send(encode(Address("site", "row", "hold", hold="test"), hold))
    until(lambda: site.clocks() == {HELD_MHZ}, 40.0)


def test_nobody_but_root_and_polcad_reaches_the_actuator(site: Site) -> None:
    asks = "python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"/run/polcad/actuator.sock\")'"
    assert site.debian.sh(f"runuser -u nobody -- {asks} 2>&1", check=False).endswith("Permission denied")
    site.debian.sh(f"runuser -u polcad -- {asks}")


def test_a_crashed_agent_and_an_actuator_that_hangs_are_started_again(site: Site) -> None:
    site.debian.sh("systemctl kill --signal=KILL polcad-agent")
    until(lambda: site.debian.show("polcad-agent", "NRestarts") == "1", 40.0)
    site.until_follows()
    site.debian.sh(f"systemctl kill --signal={signal.SIGSTOP.value} polcad-actuator")
    until(lambda: site.debian.show("polcad-actuator", "NRestarts") == "1", 40.0)
    assert site.debian.show("polcad-actuator", "Result") != "exit-code"
    site.until_follows()
    assert site.clocks() == {HELD_MHZ}


def test_a_wrong_configuration_is_not_taken_by_a_reload_and_not_started_with_again_and_again(site: Site) -> None:
    good = CONFIG.format(port=site.broker.port)
    site.debian.write("/etc/polcad/polcad.toml", good.replace("tick_s", "tik_s"))
    site.debian.sh("systemctl reload polcad-daemon")
    until(lambda: "stays as it was" in site.debian.sh("journalctl -u polcad-daemon --no-pager"), 20.0)
    site.until_follows()
    site.debian.sh("systemctl restart polcad-daemon", check=False)
    until(lambda: site.debian.show("polcad-daemon", "ActiveState") == "failed", 20.0)
    assert site.debian.show("polcad-daemon", "ExecMainStatus") == "78"
    assert site.debian.show("polcad-daemon", "NRestarts") == "0"
    site.debian.write("/etc/polcad/polcad.toml", good)
    site.debian.sh("systemctl start polcad-daemon")
    site.until_follows()


def test_an_upgrade_runs_the_new_version_and_loosens_nothing(site: Site, tmp_path: Path) -> None:
    unpacked = tmp_path / "deb"
    subprocess.run(["dpkg-deb", "-R", site.deb, unpacked], check=True)
    control = unpacked / "DEBIAN" / "control"
    control.write_text(control.read_text().replace("-1\n", "-2\n"))
    newer = site.debian.root / "root" / "polcad.deb"
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "-b", unpacked, newer], check=True, stdout=subprocess.DEVNULL)
    pids = [site.debian.show(unit, "MainPID") for unit in UNITS]
    site.debian.sh("apt-get install -y --no-install-recommends /root/polcad.deb && rm /root/polcad.deb")
    assert site.debian.sh("dpkg-query -W -f '${Version}' polcad").endswith("-2")
    assert not set(pids) & {site.debian.show(unit, "MainPID") for unit in UNITS}
    assert site.clocks() == {HELD_MHZ}
    site.until_follows()


def test_removal_gives_the_gpus_back_and_purging_leaves_nothing(site: Site) -> None:
    assert site.clocks() == {HELD_MHZ}
    site.debian.sh("POLCAD_FAKE_NVML=/var/lib/fake/node.nvml apt-get remove -y polcad")
    assert site.clocks() == {FREE_MHZ}
    assert site.debian.sh("systemctl list-units --no-legend 'polcad*'") == ""
    assert (site.debian.root / "etc" / "polcad" / "polcad.toml").exists()
    site.debian.sh("apt-get purge -y polcad && rm -r /etc/credstore /etc/systemd/system/polcad-*.service.d")
    site.debian.sh("rm /var/lib/fake/lesson.py")
    backups = {"./etc/passwd-", "./etc/group-", "./etc/shadow-", "./etc/gshadow-"}
    assert site.debian.files() - site.before - backups == set()

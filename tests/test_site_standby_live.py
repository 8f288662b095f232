"""Two daemons of one site as processes, on a real Mosquitto and a real NATS: one leads, the other takes over."""

import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from polcad.model import Budgets, EventKind, LeaseState, RowStatus
from polcad.testing_brokers import StartMosquitto
from polcad.testing_nats import NatsServer
from tests.live_site import BUDGET_W, FAIL_SAFE_W, OWN_W, ROWS, SITE, LiveSite
from tests.standby_row import STOOD_DOWN
from tests.waiting import until

pytestmark = pytest.mark.integration

LEASE_S, TTL_S = 6.0, 1.0


@pytest.fixture
def site(tmp_path: Path, mosquitto: StartMosquitto) -> Iterator[LiveSite]:
    """A site that the first daemon leads, where the first row has borrowed what the second does not need."""
    with NatsServer(tmp_path) as nats, LiveSite(tmp_path, mosquitto()) as made:
        config = tmp_path / "site.toml"
        config.write_text(config.read_text().replace(f"lease_s = {SITE['lease_s']}", f"lease_s = {LEASE_S}"))
        made.write_standby(nats.url, TTL_S)
        for name in ROWS:
            made.load(name, 0.2)
            made.start(name)
        made.start("first")
        until(lambda: leader(made) == "first", 60.0)
        made.start("second")
        until(lambda: "first holds it" in log_of(made, "second"), 60.0)
        made.load("row1", 0.9)
        made.until_budgets(OWN_W, FAIL_SAFE_W)
        yield made


def leader(site: LiveSite) -> str:
    status = site.status()
    return status.host if status and status.online else ""


def log_of(site: LiveSite, host: str) -> str:
    return (site.folder / f"{host}.log").read_text()


def epochs(site: LiveSite) -> list[int]:
    return [budgets.epoch for budgets in site.fed.all(Budgets)]


def metrics(site: LiveSite, host: str) -> str:
    url = log_of(site, host).rpartition("metrics are at ")[2].split()[0]
    with urllib.request.urlopen(url, timeout=5.0) as answer:  # noqa: S310  # the daemon's own
        return str(answer.read().decode())


def test_the_second_leads_within_two_leases_of_a_kill_and_the_borrowed_watts_are_lent_once(site: LiveSite) -> None:
    assert 'polcad_site_leads{site="site"} 0.0' in metrics(site, "second")
    assert 'polcad_site_lock_up{site="site"} 1.0' in metrics(site, "second")
    older, killed_s = epochs(site)[-1], time.monotonic()
    site.programs["first"].kill()
    until(lambda: epochs(site)[-1] > older, 60.0)
    took_s = time.monotonic() - killed_s
    assert took_s < 2 * LEASE_S
    until(lambda: leader(site) == "second")
    site.until_budgets(OWN_W, FAIL_SAFE_W)
    assert (EventKind.TAKEOVER.value, "site") in site.events()
    assert 'polcad_site_leads{site="site"} 1.0' in metrics(site, "second")
    site.load("row1", 0.1)
    site.load("row2", 0.9)
    site.until_budgets(FAIL_SAFE_W, OWN_W)
    assert site.most_together_w() <= BUDGET_W * (1 + 1e-9)


def test_a_leader_that_stood_still_is_followed_by_no_row_when_it_goes_on_and_ends(site: LiveSite) -> None:
    first, older = site.programs["first"].process, epochs(site)[-1]
    first.send_signal(signal.SIGSTOP)
    until(lambda: leader(site) == "second", 60.0)
    until(lambda: all((held := site.allowance(name)) and held.epoch > older for name in ROWS), 20.0)
    seen = len(site.fed.heard)
    first.send_signal(signal.SIGCONT)
    assert first.wait(30.0) == STOOD_DOWN
    assert "started again, it is the standby" in log_of(site, "first")
    said = [each.allowance for each in site.fed.heard[seen:] if isinstance(each, RowStatus) and each.allowance]
    assert min(allowance.epoch for allowance in said) > older
    assert site.most_together_w() <= BUDGET_W * (1 + 1e-9)


def test_a_clean_stop_hands_the_site_over_before_any_budget_falls(site: LiveSite) -> None:
    older, seen = epochs(site)[-1], len(site.fed.heard)
    assert site.programs["first"].stop() == 0
    until(lambda: all((held := site.allowance(name)) and held.epoch > older for name in ROWS), 30.0)
    said = [each.allowance for each in site.fed.heard[seen:] if isinstance(each, RowStatus) and each.allowance]
    assert {allowance.lease for allowance in said} == {LeaseState.HELD}

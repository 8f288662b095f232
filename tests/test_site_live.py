"""A site of two rows, every daemon a process, over Mosquitto: watts move, and silence frees none."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from polcad.model import Budgets, LeaseState
from polcad.pki import make_plan_key
from polcad.testing_brokers import StartMosquitto
from polcad.wire import Address, encode
from tests.live_row import POLCAD
from tests.live_site import BUDGET_W, FAIL_SAFE_W, OWN_W, ROWS, LiveSite
from tests.waiting import until

pytestmark = pytest.mark.integration


def test_watts_go_where_they_are_asked_for_and_come_back_and_silence_frees_none(
    tmp_path: Path, mosquitto: StartMosquitto
) -> None:
    with LiveSite(tmp_path, mosquitto()) as site:
        for name in ROWS:
            site.load(name, 0.2)
            site.start(name)
        site.start("site")
        site.until_budgets(BUDGET_W / 2, BUDGET_W / 2)

        site.load("row1", 0.9)  # one rises, the other gives
        site.until_budgets(OWN_W, FAIL_SAFE_W)
        told = subprocess.run(
            [POLCAD, "budgets", "-c", tmp_path / "site.toml", "--json"], capture_output=True, text=True, check=True
        )
        assert [row["budget_w"] for row in json.loads(told.stdout)["rows"]] == pytest.approx([OWN_W, FAIL_SAFE_W])

        site.programs["site"].kill()
        site.until_budgets(FAIL_SAFE_W, FAIL_SAFE_W)
        until(lambda: all((held := site.allowance(name)) and held.lease is LeaseState.EXPIRED for name in ROWS))
        until(lambda: (status := site.status()) is not None and not status.online)
        until(lambda: site.fed.rows["row1"].power_w() <= FAIL_SAFE_W)

        site.start("site")
        site.until_budgets(OWN_W, FAIL_SAFE_W)

        site.programs["row1"].kill()  # what it may have is given to nobody
        until(lambda: ("stale", "row/row1") in site.events())
        site.load("row2", 0.9)
        seen = len(site.fed.heard)
        until(lambda: site.row("row2").wants_w > OWN_W and len(site.fed.heard) > seen + 60)
        assert site.row("row1").reserved_w == OWN_W
        allowance = site.allowance("row2")
        assert allowance is not None
        assert allowance.budget_w == pytest.approx(FAIL_SAFE_W, rel=0.01)

        site.load("row1", 0.1)
        site.start("row1")
        site.until_budgets(FAIL_SAFE_W, OWN_W)
        assert ("fresh", "row/row1") in site.events()
        assert site.most_together_w() <= BUDGET_W * (1 + 1e-9)


def test_a_row_that_trusts_a_key_takes_no_budget_that_another_signed_or_nobody(
    tmp_path: Path, mosquitto: StartMosquitto
) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        make_plan_key(tmp_path / name, "site")
    with LiveSite(tmp_path, mosquitto()) as site:
        site.write_config(
            site=f'[signing]\nkey_file = "{tmp_path}/theirs/plan-site.key"\n',
            row=f'[signing]\ntrusted_file = "{tmp_path}/ours/plan-site.pub"\n',
        )
        site.load("row1", 0.2)
        site.start("row1")
        site.start("site")
        until(lambda: len(site.fed.all(Budgets)) > 20, 60.0)
        planted = Budgets("site", 2**52, 1, time.time(), 15.0)
        site.fed.say(encode(Address("site", "", "budgets"), planted))
        refused = site.refused("row1")
        until(lambda: site.refused("row1") > refused + 5)
        allowance = site.allowance("row1")
        assert allowance is not None
        assert (allowance.lease, allowance.budget_w) == (LeaseState.NONE, FAIL_SAFE_W)

        site.programs["site"].kill()
        site.write_config(site=f'[signing]\nkey_file = "{tmp_path}/ours/plan-site.key"\n')
        site.start("site")
        until(lambda: (held := site.allowance("row1")) is not None and held.lease is LeaseState.HELD, 30.0)

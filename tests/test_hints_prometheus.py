"""docs/hints.md against a real Prometheus that scrapes the real server: every query there, as it stands."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from polcad.model import Hint
from polcad.web.board import Board
from polcad.web.families import FAMILIES
from polcad.web.server import serve
from polcad.web.spec import WebSpec
from tests.real_prometheus import Prometheus
from tests.scrapes import telling_of
from tests.waiting import eventually

DOCS = (Path(__file__).parent.parent / "docs" / "hints.md").read_text(encoding="utf-8")
NAMES = set(re.findall(r"`polcad_(\w+)`", DOCS))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


def scrape_config(url: str) -> str:
    """The page's own, of a server that is elsewhere, and in a hurry."""
    config = next(block for block in blocks("yaml") if "scrape_configs" in block)
    assert "127.0.0.1:8642" in config
    address = url.removeprefix("http://").rstrip("/")
    return config.replace("127.0.0.1:8642", address).replace("scrape_interval: 15s", "scrape_interval: 200ms")


def of_adapter() -> str:
    """What prometheus-adapter makes of its rule for an HPA's selector."""
    template = re.search(r"metricsQuery: '(.*)'", DOCS)
    assert template is not None
    return template[1].replace("<<.Series>>", "polcad_hint_instances").replace("<<.LabelMatchers>>", 'pool="sm"')


def of_keda() -> str:
    found = re.search(r"^ +query: (.*)$", DOCS, re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_page_names_every_metric() -> None:
    assert {name.removeprefix("polcad_") for name in FAMILIES if "_hint_" in name} | {"build_info"} == NAMES


@pytest.mark.integration
def test_every_query_of_the_page_tells_what_holds_and_nothing_once_it_has_ended(tmp_path: Path) -> None:
    now = time.time()
    sm = Hint(
        "sm",
        "row1",
        now,
        now + 600,
        3,
        4,
        0.8,
        2220.0,
        5.0,
        4000.0,
        9000.0,
        saves_w=1500.0,
        weights={"sm-0": 0.4, "sm-1": 0.6},
    )
    ending = replace(sm, pool="ll", weights={}, instances=7, expires_t=now + 120, saves_w=-200.0)
    ended = replace(sm, pool="mm", expires_t=now - 1)  # as a scrape that is still remembered
    hints: list[Hint] = [sm, ending, ended]
    instances, saves, to_end, shares = (query.strip() for query in blocks("promql"))

    async def scenario() -> None:
        async with serve(Board(), WebSpec(port=0), telling_of(lambda: tuple(hints))) as url:
            (tmp_path / "prometheus.yml").write_text(scrape_config(url))
            with Prometheus(tmp_path / "prometheus.yml") as prometheus:
                await eventually(lambda: bool(prometheus.ask(instances)), within_s=30.0)
                assert (
                    prometheus.ask(instances) == prometheus.ask(of_keda()) == prometheus.ask(of_adapter()) == {"": 3.0}
                )
                assert prometheus.ask(saves) == {"": 1300.0}
                assert (prometheus.ask(to_end) or {}).keys() == {"ll", "mm"}
                assert prometheus.ask(shares) == {"sm": 1.0}
                assert prometheus.ask(instances.replace('"sm"', '"mm"')) == {}
                for name in NAMES:
                    assert prometheus.ask(f"polcad_{name}"), name
                hints.clear()
                await eventually(lambda: prometheus.ask("polcad_hint_instances") == {})
                assert prometheus.ask(of_keda()) == {}

    asyncio.run(scenario())

"""A real Prometheus that scrapes a real daemon and agents, with the alarms loaded; what /readyz says meanwhile."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from polcad.testing_brokers import Mosquitto, free_port
from polcad.web.families import AGENT, BOTH, DAEMON
from tests.fake_nvml.control import FakeNvml
from tests.live_row import LiveRow
from tests.real_prometheus import Prometheus
from tests.test_alerts import ALERTS, RULES
from tests.waiting import until

pytestmark = pytest.mark.integration

NOT_HERE = (
    "polcad_hint_",
    "polcad_sink_",
    "polcad_domain_forecast_",
    "polcad_reaction_",
    "polcad_node_server_",
    "polcad_leads",
    "polcad_lock_up",
    "polcad_site_leased",
)


def scrape_config(ports: dict[str, int]) -> str:
    targets = ", ".join(f'"127.0.0.1:{port}"' for port in ports.values())
    return (
        f"global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}\nrule_files: [{RULES}]\n"
        f"scrape_configs: [{{job_name: polcad, static_configs: [{{targets: [{targets}]}}]}}]\n"
    )


def listen(row: LiveRow) -> dict[str, int]:
    """Give every program a port, in its configuration."""
    ports = {name: free_port() for name in ("daemon", *row.priorities)}
    for name, port in ports.items():
        path = row.folder / f"{name}.toml"
        text = path.read_text().replace("[web]\nport = 0\n", f"[web]\nport = {port}\n" if name == "daemon" else "")
        path.write_text(text if name == "daemon" else f"{text}[agent.web]\nport = {port}\n")
    return ports


def answer(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10.0) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def rules_of(prometheus: Prometheus) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{prometheus._url}/api/v1/rules", timeout=10.0) as response:  # noqa: S310  # ours
        rules: list[dict[str, Any]] = json.load(response)["data"]["groups"][0]["rules"]
    return rules


def test_prometheus_finds_every_metric_of_the_table_and_programs_say_when_they_cannot_work(
    tmp_path: Path, fake_nvml_nodes: Callable[..., FakeNvml]
) -> None:
    with Mosquitto(tmp_path) as broker, LiveRow(tmp_path, broker, fake_nvml_nodes) as row:
        ports = listen(row)
        row.start_all()
        (tmp_path / "prometheus.yml").write_text(scrape_config(ports))
        with Prometheus(tmp_path / "prometheus.yml") as prometheus:
            until(lambda: prometheus.ask("count(polcad_ready == 1)") == {"": 4.0}, within_s=30.0)
            assert all(answer(port, path)[0] == 200 for port in ports.values() for path in ("healthz", "readyz"))
            row.load(1.0)
            row.until_status(lambda status: status.counters.get("brakes", 0) > 0)
            wanted = [each.name for each in (*BOTH, *DAEMON, *AGENT) if not each.name.startswith(NOT_HERE)]
            until(lambda: all(prometheus.ask(name) for name in wanted), within_s=20.0)
            assert prometheus.ask("count(polcad_gpu_power_max_watts)") == {"": 6.0}
            firing = 'count(ALERTS{alertname="PolcadBraked", alertstate="firing"})'
            until(lambda: prometheus.ask(firing) == {"": 1.0}, within_s=20.0)
            rules = rules_of(prometheus)
            assert [each["name"] for each in rules] == ALERTS
            assert {each["health"] for each in rules} == {"ok"}
            broker.stop()
            until(lambda: prometheus.ask("count(polcad_ready == 0)") == {"": 4.0}, within_s=30.0)
        for port in ports.values():
            assert answer(port, "healthz") == (200, "ok\n")
            status, reasons = answer(port, "readyz")
            assert status == 503
            assert "the broker is not reached" in reasons

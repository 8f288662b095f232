"""From an engine to a hint through the real programs: `polcad load`, a broker, `polcad daemon`, `polcad hints`."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from polcad.testing_brokers import Broker, free_port
from tests.fake_engine import Engine, serving
from tests.live_row import POLCAD
from tests.waiting import until

CONFIG = """
[row]
name = "row1"
budget_w = 60_000
[[node]]
name = "n1"
[broker]
port = {port}
more_hosts = {more_hosts}
[web]
port = {web}
[hints]
name = "dynamo"
pools = "one"
pool = "chat"
gpus = 32
period_s = 0.2
stale_after_s = 2.0
"""


@contextmanager
def program(*words: str, env: Mapping[str, str] | None = None) -> Iterator[None]:
    with subprocess.Popen([POLCAD, *words], env={**os.environ, **(env or {})}) as process:
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(10.0) == 0


@pytest.mark.integration
def test_what_an_engine_does_becomes_a_hint_that_people_and_prometheus_can_read(
    tmp_path: Path, any_broker: Broker
) -> None:
    web, there, of_nodes = free_port(), any_broker.spec("daemon"), any_broker.spec("n1")
    with serving(Engine()) as url:
        path = tmp_path / "polcad.toml"
        path.write_text(CONFIG.format(port=there.port, more_hosts=list(there.more_hosts), web=web))
        load = {"POOL": "chat", "INSTANCE": "chat-0", "URL": url, "TENSOR_PARALLEL": "8", "PERIOD_S": "0.2"}
        env = {f"POLCAD_LOAD__{name}": value for name, value in load.items()}
        env["POLCAD_BROKER__PORT"] = str(of_nodes.port)
        asked = [POLCAD, "hints", "-c", str(path), "--json"]

        def told() -> dict[str, Any]:
            found: dict[str, Any] = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)
            return found

        with program("load", "-c", str(path), env=env), program("daemon", "-c", str(path)):
            until(lambda: bool(told()["hints"]), within_s=30.0)
            (hint,) = told()["hints"]
            with urllib.request.urlopen(f"http://127.0.0.1:{web}/metrics", timeout=5.0) as response:
                metrics = response.read().decode()
    assert (hint["pool"], hint["row"]) == ("chat", "row1")
    assert 2 <= hint["instances"] * hint["tensor_parallel"] <= 8
    assert 1.0 < hint["requests_per_s"] < 20.0
    assert 0.0 < hint["power_w"] < 60_000.0
    assert hint["weights"] == {"chat-0": 1.0}
    assert hint["saves_w"] > 0.0  # one instance over 8 GPUs at the highest clock serves this with ease
    assert f'polcad_hint_tensor_parallel{{pool="chat",row="row1"}} {hint["tensor_parallel"]:.1f}' in metrics

"""What the programs cost: the agent's processor time and memory, the daemon's start, a command's start.

    python benchmarks/programs.py [--seconds 20] [--json]

The agent is the real program over the fake NVML (8 GPUs, built with gcc) at 10 readings a second through Mosquitto,
with the plan of a real daemon to follow; beside it `bare` reads the same GPUs as often through nvidia-ml-py in a plain
loop, one call a quantity, and sends nothing. `ready` is from the start of ``polcad daemon`` to its first retained word
at the broker; beside it an interpreter that imports aiomqtt, numpy and aiohttp alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiomqtt

from polcad.testing_brokers import Mosquitto

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.fake_nvml.control import FakeNode, build

BIN = Path(sys.executable).parent
CONF = ("listener {port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true")
WARM_UP_S = 4.0
STARTS = 5
BARE = """
import time, pynvml as n
n.nvmlInit()
gpus = [n.nvmlDeviceGetHandleByIndex(i) for i in range(8)]
due = time.monotonic()
while True:
    for gpu in gpus:
        n.nvmlDeviceGetPowerUsage(gpu); n.nvmlDeviceGetUtilizationRates(gpu); n.nvmlDeviceGetMemoryInfo(gpu)
        n.nvmlDeviceGetClockInfo(gpu, n.NVML_CLOCK_SM); n.nvmlDeviceGetTemperature(gpu, n.NVML_TEMPERATURE_GPU)
        n.nvmlDeviceGetCurrentClocksThrottleReasons(gpu); n.nvmlDeviceGetEnforcedPowerLimit(gpu)
    due += 0.1
    time.sleep(max(0.0, due - time.monotonic()))
"""


def configurations(folder: Path, port: int) -> tuple[Path, Path]:
    """One row of one node: the daemon's and the agent's."""
    daemon, agent = folder / "daemon.toml", folder / "agent.toml"
    daemon.write_text(
        f"""
[broker]
port = {port}
[row]
name = "row"
budget_w = 3000.0
[[node]]
name = "n1"
gpu_max_w = 400.0
[web]
port = 0
"""
    )
    agent.write_text(
        f"""
[broker]
port = {port}
[agent]
row = "row"
node = "n1"
period_s = 0.1
state_dir = "{folder}"
"""
    )
    return daemon, agent


@contextlib.contextmanager
def running(command: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program, ended at the end."""
    process = subprocess.Popen(command, env={**os.environ, **env}, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10.0)


def cost(pid: int, seconds: float) -> tuple[float, float]:
    """Per cent of one core, and resident MiB at the end."""
    time.sleep(WARM_UP_S)
    before_s = _spent_s(pid)
    time.sleep(seconds)
    spent_s = _spent_s(pid) - before_s
    status = Path(f"/proc/{pid}/status").read_text()
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return 100 * spent_s / seconds, kib / 1024


def _spent_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _first_word(port: int) -> None:
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe("polcad/v1/+/+/daemon")
        async for message in client.messages:
            if b'"online":true' in bytes(message.payload):
                return


async def ready(port: int, config: Path) -> float:
    """Seconds from the start of a daemon to its first status at the broker."""
    listening = asyncio.create_task(_first_word(port))
    await asyncio.sleep(0.3)  # the listener is there before the clock starts
    began_s = time.perf_counter()
    with running([str(BIN / "polcad"), "daemon", "--config", str(config)], {}):
        await asyncio.wait_for(listening, 30.0)
        return time.perf_counter() - began_s


def took_s(command: list[str]) -> float:
    """The median of a few runs."""
    seconds = []
    for _ in range(STARTS):
        began_s = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began_s)
    return statistics.median(seconds)


def measure(seconds: float) -> dict[str, float]:
    """All figures."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, Mosquitto(Path(name), CONF) as broker:
        folder = Path(name)
        lib = build(Path(__file__).parents[1] / "tests" / "fake_nvml" / "nvml.c", folder / "lib")
        node = FakeNode(lib, folder / "n1.nvml", 8)
        node.load(0.7)
        daemon_config, agent_config = configurations(folder, broker.port)
        figures["daemon_ready_s"] = statistics.median(
            asyncio.run(ready(broker.port, daemon_config)) for _ in range(STARTS)
        )
        with running([sys.executable, "-c", BARE], node.env) as bare:
            figures["bare_percent"], figures["bare_mib"] = cost(bare.pid, seconds)
        polcad = str(BIN / "polcad")
        with (
            running([polcad, "daemon", "--config", str(daemon_config)], {}),
            running([polcad, "agent", "--config", str(agent_config)], node.env) as agent,
        ):
            figures["agent_percent"], figures["agent_mib"] = cost(agent.pid, seconds)
    figures["command_s"] = took_s([polcad, "--version"])
    figures["python_s"] = took_s([sys.executable, "-c", "import aiomqtt, numpy, aiohttp"])
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="what the programs cost")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = measure(args.seconds)
    if args.json:
        print(json.dumps(figures))
        return
    print(f"agent, 8 GPUs at 10 Hz    {figures['agent_percent']:5.2f} % of a core   {figures['agent_mib']:5.1f} MiB")
    print(f"bare loop over NVML       {figures['bare_percent']:5.2f} % of a core   {figures['bare_mib']:5.1f} MiB")
    print(f"daemon ready              {figures['daemon_ready_s']:5.2f} s   (imports alone {figures['python_s']:.2f} s)")
    print(f"a command's start         {figures['command_s']:5.2f} s")


if __name__ == "__main__":
    main()

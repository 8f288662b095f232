import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from collectors.nvml import NvmlCollector
from polcad.errors import ConfigError, UnavailableError
from polcad.model import Gpus, PowerKind
from tests.fake_nvml.control import NOT_SUPPORTED, SENTINEL_MW, UNKNOWN, FakeNode, FakeNvml, build
from tests.waiting import until

pytestmark = pytest.mark.integration

DEADLINE_S = 0.2
GONE, NO_DATA = 15, 21


@pytest.fixture
def collector(gpus_here: FakeNode) -> Iterator[NvmlCollector]:
    del gpus_here  # they must be there first
    collector = NvmlCollector({"deadline_s": DEADLINE_S, "energy_s": 0})
    yield collector
    collector.close()


def gpus(collector: NvmlCollector) -> Gpus:
    return collector.read(time.monotonic()).gpus


def test_every_quantity_of_every_gpu_is_read(gpus_here: FakeNode, collector: NvmlCollector) -> None:
    gpus_here.load(1.0)
    reading = collector.read(0.0)
    assert reading.kind is PowerKind.INSTANT
    seen = reading.gpus
    assert seen.uuid == gpus_here.uuids
    assert (seen.power_w[7], seen.average_w[7]) == (400.0, 400.0)
    assert (seen.max_w[0], seen.min_w[0], seen.limit_w[0], seen.enforced_w[0]) == (400.0, 100.0, 400.0, 400.0)
    assert (seen.sm_mhz[0], seen.max_mhz[0], seen.util_frac[0], seen.memory_frac[0]) == (1410, 1410, 1.0, 0.75)
    assert (seen.temp_c[0], seen.throttle[0], seen.fault[0]) == (70, 0, None)


def test_energy_is_the_integral_of_power(gpus_here: FakeNode, collector: NvmlCollector) -> None:
    gpus_here.load(1.0)
    before = gpus(collector).energy_j[0]
    gpus_here.advance(10.0)
    after = gpus(collector).energy_j[0]
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(4000.0, rel=0.05)


def test_energy_is_read_at_its_own_pace(gpus_here: FakeNode) -> None:
    collector = NvmlCollector({"energy_s": 5})
    energy = [collector.read(t).gpus.energy_j[0] is not None for t in (100.0, 101.0, 104.9, 105.0, 40.0)]
    collector.close()
    assert energy == [True, False, False, True, True]  # the last one: the clock jumped back
    assert len(gpus_here.uuids) == 8


def test_zeros_and_spikes_pass_as_read(gpus_here: FakeNode, collector: NvmlCollector) -> None:
    gpus_here.gpus[0].force_power_mw(0)
    gpus_here.gpus[1].force_power_mw(9_000_000)
    assert gpus(collector).power_w[:2] == (0.0, 9000.0)


def test_sentinels_are_missing(gpus_here: FakeNode, collector: NvmlCollector) -> None:
    gpus_here.gpus[0].force_power_mw(SENTINEL_MW)
    gpus_here.gpus[1].force_power_mw(0xFFFFFFFF)
    seen = gpus(collector)
    assert seen.power_w[:3] == (None, None, 65.0)
    assert seen.average_w[:2] == (None, None)
    assert seen.fault[:3] == ("the driver gives no power", "the driver gives no power", None)


def test_a_field_that_fails_is_missing_and_the_others_stay(gpus_here: FakeNode, collector: NvmlCollector) -> None:
    gpus_here.gpus[2].fail_power_fields(NO_DATA)
    seen = gpus(collector)
    assert (seen.power_w[2], seen.average_w[2]) == (None, None)
    assert (seen.limit_w[2], seen.sm_mhz[2]) == (400.0, 210)
    assert seen.power_w[3] == 65.0


@pytest.mark.parametrize(("averaging", "kind"), [(False, PowerKind.INSTANT), (True, PowerKind.AVERAGE)])
def test_without_the_fields_power_is_of_the_kind_that_the_chip_gives(
    gpus_here: FakeNode, averaging: bool, kind: PowerKind
) -> None:
    if averaging:
        gpus_here.averaging()
    gpus_here.gpus[0].fail_power_fields(NOT_SUPPORTED)
    collector = NvmlCollector({})
    reading = collector.read(0.0)
    collector.close()
    assert (reading.gpus.power_w[0], reading.gpus.average_w[0], reading.kind) == (65.0, None, kind)


def test_a_hanging_gpu_delays_the_others_by_the_deadline_once(gpus_here: FakeNode, collector: NvmlCollector) -> None:
    gpus(collector)
    gpus_here.gpus[3].hang()
    first = gpus(collector)
    collector.session._deadline_s = 600.0
    with ThreadPoolExecutor(1) as reads:
        second = reads.submit(gpus, collector).result(30.0)
    for seen in (first, second):
        assert [n for n, power_w in enumerate(seen.power_w) if power_w is None] == [3]
        assert seen.max_w[3] == 400.0
        assert "has not returned for" in (seen.fault[3] or "")
    gpus_here.gpus[3].well()
    until(lambda: gpus(collector).power_w[3] == 65.0)


def test_a_gpu_that_vanishes_keeps_its_column_and_returns_under_another_index(
    gpus_here: FakeNode, collector: NvmlCollector
) -> None:
    gpus_here.gpus[1].load(1.0)
    gpus(collector)
    gpus_here.gpus[1].vanish()
    lost = gpus(collector)
    missing = gpus(collector)  # after a new start, which does not find it
    for seen in (lost, missing):
        assert seen.uuid == gpus_here.uuids
        assert (seen.power_w[1], seen.max_w[1]) == (None, 400.0)
        assert seen.fault[1]
        assert None not in seen.power_w[2:]
    gpus_here.reorder([0, 2, 3, 4, 5, 6, 7, 1])
    gpus_here.gpus[1].well()
    until(lambda: gpus(collector).power_w[1] == 400.0)
    assert gpus(collector).uuid == gpus_here.uuids
    assert gpus(collector).power_w[2] == 65.0


@pytest.mark.parametrize("code", [GONE, UNKNOWN])
def test_a_lost_gpu_starts_the_session_anew_with_back_off(
    gpus_here: FakeNode, collector: NvmlCollector, code: int
) -> None:
    inits = gpus_here.inits
    gpus_here.gpus[0].fail_reads(code)
    for _ in range(20):
        gpus(collector)
    assert gpus_here.inits == inits + 1
    assert None not in gpus(collector).power_w[1:]


def test_a_driver_reload_is_survived(gpus_here: FakeNode, collector: NvmlCollector) -> None:
    before = collector.session.generation()
    gpus_here.unload_driver()
    assert set(gpus(collector).power_w) == {None}
    faults = gpus(collector).fault
    assert faults[0] == f"gpu {gpus_here.uuids[0]}: the NVIDIA driver is not loaded: load its kernel module"
    gpus_here.load_driver()
    until(lambda: None not in gpus(collector).power_w)
    assert collector.session.generation() == before + 1


def test_a_hanging_gpu_does_not_keep_the_others_from_a_reload(gpus_here: FakeNode, collector: NvmlCollector) -> None:
    gpus_here.gpus[0].hang()
    gpus(collector)
    gpus_here.reload_driver()
    gpus(collector)
    gpus_here.gpus[0].well()
    until(lambda: None not in gpus(collector).power_w)


def test_a_node_without_a_gpu_or_driver_says_who_must_act(gpus_here: FakeNode) -> None:
    gpus_here.unload_driver()
    with pytest.raises(UnavailableError, match="the NVIDIA driver is not loaded: load its kernel module"):
        NvmlCollector({})
    gpus_here.load_driver()
    for gpu in gpus_here.gpus:
        gpu.vanish()
    with pytest.raises(UnavailableError, match="no GPU on this node"):
        NvmlCollector({})


@pytest.mark.parametrize(
    "options", [{"deadline": 1}, {"deadline_s": "1"}, {"deadline_s": 0}, {"energy_s": float("nan")}]
)
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="collector nvml: "):
        NvmlCollector(options)


READ = """
from collectors.nvml import NvmlCollector
from polcad.errors import UnavailableError
try:
    reading = NvmlCollector({}).read(0.0)
    seen = reading.gpus
    print(reading.kind, seen.power_w, seen.average_w, seen.energy_j, seen.throttle, seen.enforced_w, sep="|")
except UnavailableError as error:
    print(error)
"""


def read_in_a_process(env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", READ], env=os.environ | env, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


def test_another_process_sees_the_gpus_by_its_environment(fake_nvml: FakeNvml) -> None:
    fake_nvml.control.load(1.0)
    assert read_in_a_process(fake_nvml.env).startswith("instant|(400.0,")


def test_an_old_driver_without_the_newer_calls_is_read(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    source = Path(__file__).parent / "fake_nvml" / "nvml.c"
    env = fake_nvml.env | {"LD_LIBRARY_PATH": str(build(source, tmp_path / "old", "-DOLD_DRIVER"))}
    fake_nvml.control.averaging()
    kind, power_w, average_w, energy_j, throttle, enforced_w = read_in_a_process(env).split("|")
    assert (kind, power_w[:5], average_w[:5], energy_j[:5]) == ("average", "(65.0", "(None", "(None")
    assert (throttle[:2], enforced_w[:6]) == ("(1", "(400.0")


def test_a_node_without_the_library_says_who_must_act(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    said = read_in_a_process({"LD_LIBRARY_PATH": str(tmp_path)})
    assert said == "nvml: libnvidia-ml.so.1 is not here: install the NVIDIA driver"


def test_eight_gpus_at_ten_hertz_cost_little(gpus_here: FakeNode, collector: NvmlCollector) -> None:
    gpus_here.load(0.7)
    gpus(collector)
    start_s = time.process_time()
    for _ in range(50):
        gpus(collector)
    assert (time.process_time() - start_s) / 50 * 10 < 0.03  # of a core

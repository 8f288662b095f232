import errno
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polcad.devices.baseline import Baseline, Kept
from polcad.devices.dry_run import DryRunDevice
from polcad.devices.nvml_board import Board, aim
from polcad.errors import ConfigError
from polcad.model import FREE, Outcome, Reading, Setpoint

A100 = Board(tuple(range(210, 1411, 15)), 1410, 100_000, 400_000, 400_000)
FOUND_MW = 400_000


@pytest.mark.parametrize(("published_mhz"), [1305, 1275, 1110, 210])
def test_a_clock_of_the_grid_is_locked_as_it_is(published_mhz: int) -> None:
    assert aim("G", Setpoint(clock_frac=published_mhz / 1410), A100, FOUND_MW).lock_mhz == published_mhz


@given(st.floats(0, 1), st.floats(0, 1))
def test_no_target_allows_more_than_the_setpoint_or_leaves_the_range(clock_frac: float, cap_frac: float) -> None:
    target = aim("G", Setpoint(clock_frac, cap_frac), A100, FOUND_MW)
    assert target.lock_mhz in {0, *A100.grid_mhz}
    assert target.limit_mw is not None
    assert 100_000 <= target.limit_mw <= 400_000
    if not target.clamped:
        assert (target.lock_mhz or 1410) <= clock_frac * 1410 + 1e-3
        assert target.limit_mw <= cap_frac * 400_000 + 1


def test_what_is_below_the_board_is_clamped_and_told() -> None:
    target = aim("G", Setpoint(clock_frac=0.1, cap_frac=0.225), A100, FOUND_MW)
    assert (target.lock_mhz, target.limit_mw) == (210, 100_000)
    assert (
        target.clamped
        == "gpu G: clock_mhz=141.0 is below the board's 210.0; gpu G: cap_w=90.0 is below the board's 100.0"
    )


def test_free_is_no_lock_and_the_limit_found() -> None:
    assert aim("G", FREE, A100, 300_000)[:3] == (0, 300_000, False)


def test_no_cap_lifts_a_limit_above_the_one_found() -> None:
    assert aim("G", Setpoint(cap_frac=0.9), A100, 300_000).limit_mw == 300_000


def test_a_board_that_takes_nothing_says_so() -> None:
    assert aim("G", FREE, Board(), None).problem == ""
    problem = aim("G", Setpoint(0.5, 0.5), Board(), None).problem
    assert problem == "gpu G: the board lists no clocks to lock; gpu G: the board takes no power limit"


def test_what_was_found_outlives_the_agent(tmp_path: Path) -> None:
    Baseline(tmp_path / "new").save({"G": Kept(400_000, 1275)})
    assert Baseline(tmp_path / "new").load() == {"G": Kept(400_000, 1275)}


def test_what_was_found_in_another_boot_is_forgotten(tmp_path: Path) -> None:
    Baseline(tmp_path).save({"G": Kept(400_000, 1275)})
    content = json.loads((tmp_path / "nvml.json").read_text())
    (tmp_path / "nvml.json").write_text(json.dumps(content | {"boot_id": "another"}))
    assert Baseline(tmp_path).load() == {}


@pytest.mark.parametrize("garbage", ["", "[]", "{}", '{"boot_id": 3, "gpus": 4}', "\x00"])
def test_a_garbled_file_is_set_aside(tmp_path: Path, garbage: str) -> None:
    (tmp_path / "nvml.json").write_text(garbage)
    assert Baseline(tmp_path).load() == {}


def test_a_garbled_entry_is_set_aside(tmp_path: Path) -> None:
    Baseline(tmp_path).save({"G": Kept(400_000, 1275)})
    text = (tmp_path / "nvml.json").read_text()
    (tmp_path / "nvml.json").write_text(text.replace("1275", '"fast"'))
    assert Baseline(tmp_path).load() == {}


def test_a_folder_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"state_dir=.*file.* cannot be written"):
        Baseline(tmp_path / "file")


def test_a_full_disk_keeps_nobody_from_guarding_the_gpus(tmp_path: Path) -> None:
    found = {"G": Kept(400_000, 1275)}
    Baseline(tmp_path).save(found)
    (tmp_path / "nvml.new").symlink_to("/dev/full")
    baseline = Baseline(tmp_path)
    assert baseline.load() == found
    baseline.save({"G": Kept(400_000, 1110)})
    (tmp_path / "nvml.new").unlink()
    assert Baseline(tmp_path).load() == found


def test_a_disk_that_failed_since_keeps_nobody_from_guarding_the_gpus_and_one_that_never_served_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"G": Kept(400_000, 1275)}
    Baseline(tmp_path / "old").save(found)
    (tmp_path / "new").mkdir()

    def read_only(_: Path, __: str) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", read_only)
    baseline = Baseline(tmp_path / "old")
    baseline.save({"G": Kept(400_000, 1110)})
    assert baseline.load() == found
    with pytest.raises(ConfigError, match="Read-only"):
        Baseline(tmp_path / "new")


class NoGpus:
    def read(self, t: float) -> Reading:
        raise AssertionError(t)


def test_a_dry_run_sets_nothing_and_knows_nothing() -> None:
    device = DryRunDevice({"state_dir": "/nowhere"}, NoGpus())
    assert device.in_force().uuid == ()
    device.apply({"G": Setpoint(0.5)})
    in_force = device.in_force()
    assert in_force.uuid == ("G",)
    assert (in_force.clock_frac, in_force.cap_frac, in_force.outcome) == ((None,), (None,), (Outcome.UNMANAGED,))

import logging

import pytest

from polcad.complaints import OTHERS, Complaints

LOG = logging.getLogger("test.complaints")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_source_is_logged_once_a_minute_and_every_time_counted(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(LOG)
    for second in range(61):
        complaints.add("n1", f"bad {second}", 100.0 + second)
    assert lines(caplog) == ["n1: bad 0", "n1: bad 60 (and 59 more since the last line)"]
    assert complaints.total == 61


def test_one_source_does_not_hide_another(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(LOG)
    complaints.add("n1", "bad", 0.0)
    complaints.add("n2", "worse", 0.0)
    assert lines(caplog) == ["n1: bad", "n2: worse"]


def test_a_clock_that_jumps_back_does_not_silence_a_source(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(LOG)
    complaints.add("n1", "bad", 10_000.0)
    complaints.add("n1", "bad", 5.0)
    assert len(lines(caplog)) == 2


def test_made_up_sources_share_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(LOG, max_sources=10)
    for number in range(1000):
        complaints.add(f"x{number}", "bad", number / 1000)
    assert len(lines(caplog)) == 11
    assert lines(caplog)[-1] == f"{OTHERS}: bad"
    assert complaints.total == 1000


def test_sources_that_fell_silent_make_room(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(LOG, max_sources=2)
    for t in (0.0, 100.0, 200.0):
        complaints.add(f"a{t}", "bad", t)
        complaints.add(f"b{t}", "bad", t)
    assert OTHERS not in " ".join(lines(caplog))

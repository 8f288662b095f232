from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf, isinf
from pathlib import Path

import pytest

from polcad.cluster.nouns import KINDS, Demand, Shape, Slo, name_of
from polcad.cluster.profiles import LLAMA2_70B_H100, Profile, isolated_slo
from polcad.cluster.steady import capacity, steady
from polcad.errors import ConfigError

P = LLAMA2_70B_H100
CHAT = Demand(1.0, 1000.0, 200.0)
SLO = isolated_slo(P, CHAT)

PROFILE = """
name = "mine"
gpu_max_w = 400
gpu_idle_w = 60
host_idle_w = 100
host_load_w = 0
max_mhz = 1410
clocks_mhz = [705, 1410]

[[degrees]]
tensor_parallel = 1
prompt_tokens = [100, 1000]
prompt_s = [0.1, 0.5]
prompt_w = [300, 400]
token_s = 0.03
token_request_s = 0.001
token_context_s = 0.0
token_w = 200
token_rise_w = 0
token_rise_requests = 10
kv_tokens = 50000
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "profile.toml"
    path.write_text(text)
    return path


def test_there_are_nine_kinds_each_with_its_own_name() -> None:
    assert len({name_of(kind) for kind in KINDS}) == 9


def test_two_demands_together_have_the_mean_lengths_of_their_requests() -> None:
    assert Demand(1.0, 100.0, 10.0).plus(Demand(3.0, 500.0, 50.0)) == Demand(4.0, 400.0, 40.0)
    assert Demand().plus(CHAT) == CHAT == CHAT.plus(Demand())


def test_a_lower_clock_is_slower_and_draws_less() -> None:
    fast, slow = Shape(8), Shape(8, 0.8)
    assert P.prompt_s(slow, 1000) > P.prompt_s(fast, 1000)
    assert P.token_s(slow, 32, 30_000) > P.token_s(fast, 32, 30_000)
    assert P.prompt_w(slow, 1000) < P.prompt_w(fast, 1000)
    assert P.token_w(slow, 32) < P.token_w(fast, 32)


def test_the_default_profile_gives_the_times_that_were_measured() -> None:
    """splitwise, perf_model.csv, Llama2-70B on H100 with 512 tokens of prompt: prompt and token times in s."""
    assert P.prompt_s(Shape(8), 512) == pytest.approx(0.0534, rel=0.01)
    assert P.prompt_s(Shape(4), 2048) == pytest.approx(0.2007, rel=0.01)
    for tensor_parallel, batch, token_s in (
        (8, 1, 0.0298),
        (8, 16, 0.0342),
        (8, 64, 0.0502),
        (4, 64, 0.0524),
        (2, 16, 0.042),
    ):
        assert P.token_s(Shape(tensor_parallel), batch, 512 * batch) == pytest.approx(token_s, rel=0.1)


def test_a_profile_of_ones_own_is_read_from_toml(tmp_path: Path) -> None:
    profile = Profile.read(written(tmp_path, PROFILE))
    assert profile.clocks_frac == (0.5, 1.0)
    assert profile.prompt_s(Shape(1), 550) == pytest.approx(0.3)
    assert profile.idle_w(Shape(1)) == 160.0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("gpu_max_w = 400", 'gpu_max_w = "400"'), "gpu_max_w: '400' is not of type float"),
        (("gpu_max_w = 400", "gpu_max_w = nan"), "gpu_max_w: nan is not a number"),
        (("gpu_max_w = 400", "gpu_max_w = 50"), "gpu_idle_w=60 must be below gpu_max_w=50"),
        (("gpu_max_w = 400", "gpu_maximum_w = 400"), "unknown key 'gpu_maximum_w'"),
        (("token_s = 0.03", "token_s = -1"), r"degrees\[0\]: token_s: -1.0 is not between"),
        (("kv_tokens = 50000", ""), r"degrees\[0\]: kv_tokens is missing"),
        (("prompt_s = [0.1, 0.5]", "prompt_s = [0.1]"), "one entry in each table"),
        (("prompt_tokens = [100, 1000]", "prompt_tokens = [1000, 100]"), "must ascend"),
        (("[705, 1410]", "[705, 2000]"), "above max_mhz"),
        (("name =", "name"), "profile .*profile.toml"),
    ],
)
def test_a_bad_profile_is_refused_by_place(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Profile.read(written(tmp_path, PROFILE.replace(*change)))


def test_a_profile_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        Profile.read(tmp_path / "nowhere.toml")


def test_an_unknown_tensor_parallelism_is_refused() -> None:
    with pytest.raises(ConfigError, match="tensor_parallel=3 is not among"):
        P.prompt_s(Shape(3), 100)


def test_what_if_profiles_say_that_they_are_hypothetical() -> None:
    squeezed, quicker = P.compressed(), P.quicker()
    assert squeezed.kv_tokens(4) == pytest.approx(1.5 * P.kv_tokens(4))
    assert squeezed.prompt_s(Shape(4), 500) == pytest.approx(1.02 * P.prompt_s(Shape(4), 500))
    assert squeezed.token_s(Shape(4), 10, 5000) == pytest.approx(1.02 * P.token_s(Shape(4), 10, 5000))
    assert quicker.clock_s < P.clock_s
    assert not P.hypothetical
    assert all(each.hypothetical.startswith("hypothetical") for each in (squeezed, quicker))


def test_an_instance_without_requests_idles_and_answers_the_first_at_once() -> None:
    now = steady(P, Shape(4), Demand(1e-9, 1000.0, 200.0))
    assert now.power_w == pytest.approx(P.idle_w(Shape(4)))
    assert now.ttft_p50_s == pytest.approx(P.prompt_s(Shape(4), 1000), rel=1e-3)
    assert now.ttft_p99_s == pytest.approx(P.prompt_s(Shape(4), 2000), rel=1e-3)  # the longest of its kind
    assert now.tbt_p50_s == pytest.approx(P.token_s(Shape(4), 1, 1100), rel=1e-3)


def test_more_load_is_slower_and_draws_more_until_it_cannot_be_kept_up_with() -> None:
    loads = [steady(P, Shape(4), Demand(rate, 1000.0, 200.0)) for rate in (0.2, 0.8, 2.0)]
    for low, high in pairwise(loads):
        assert low.ttft_p99_s < high.ttft_p99_s
        assert low.tbt_p99_s < high.tbt_p99_s
        assert low.power_w < high.power_w
    assert isinf(steady(P, Shape(4), Demand(100.0, 1000.0, 200.0)).ttft_p99_s)


def test_capacity_keeps_the_objective_and_a_tenth_more_does_not() -> None:
    rate = capacity(P, Shape(8), CHAT, SLO)
    assert steady(P, Shape(8), replace(CHAT, requests_per_s=rate)).keeps(SLO)
    more = steady(P, Shape(8), replace(CHAT, requests_per_s=1.1 * rate))
    assert not more.keeps(SLO) or more.utilisation > 0.7


def test_no_capacity_is_left_where_a_request_alone_is_too_slow() -> None:
    assert capacity(P, Shape(8), CHAT, Slo(0.001, inf)) == 0.0


def test_a_prompt_that_the_memory_cannot_hold_has_no_capacity_until_it_is_compressed() -> None:
    long, slack = Demand(1.0, 10_000.0, 1_500.0), Slo(inf, inf)  # the longest of its kind: 23 000 tokens
    assert capacity(P, Shape(2), long, slack) == 0.0
    assert capacity(P.compressed(), Shape(2), long, slack) > 0.0

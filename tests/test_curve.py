import pytest

from polcad.curve import CLOCK_FRAC, DYNAMIC_FRAC, HIGHEST_FRAC, IDLE_SHARE, POWER_FRAC, dynamic_frac
from polcad.model import Role

every_role = pytest.mark.parametrize("role", list(Role))


@every_role
def test_a_free_gpu_draws_all_and_a_slower_one_never_more(role: Role) -> None:
    shares = [dynamic_frac(role, step / 1000) for step in range(1001)]
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    assert shares[0] > 0.0


@every_role
def test_measured_clocks_give_the_measured_power(role: Role) -> None:
    for clock_frac, power_frac in zip(CLOCK_FRAC, POWER_FRAC[role], strict=True):
        assert IDLE_SHARE + (1 - IDLE_SHARE) * dynamic_frac(role, clock_frac) == pytest.approx(power_frac)


@pytest.mark.parametrize(
    ("role", "mhz", "power_frac"),
    [(Role.PROMPT, 1110, 0.607), (Role.TOKEN, 1275, 0.852), (Role.MIXED, 1305, 0.867), (Role.TRAINING, 900, 0.556)],
)
def test_the_locks_of_polca_shed_what_was_measured(role: Role, mhz: int, power_frac: float) -> None:
    assert IDLE_SHARE + (1 - IDLE_SHARE) * dynamic_frac(role, mhz / 1410) == pytest.approx(power_frac)


@every_role
def test_below_and_above_the_measured_clocks_the_ends_hold(role: Role) -> None:
    assert dynamic_frac(role, 0.0) == DYNAMIC_FRAC[role][0]
    assert dynamic_frac(role, 1.5) == 1.0


def test_the_highest_curve_is_above_every_role_at_every_clock() -> None:
    for role in Role:
        assert all(high >= share for high, share in zip(HIGHEST_FRAC, DYNAMIC_FRAC[role], strict=True))

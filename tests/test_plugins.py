import pytest

from polcad import plugins
from polcad.errors import ConfigError
from policies.polca import Polca


def test_a_part_is_found_by_its_name() -> None:
    assert plugins.load("polcad.policies", "polca") is Polca


def test_an_unknown_name_is_refused_with_the_names_that_are_installed() -> None:
    with pytest.raises(ConfigError, match=r"'polka' is not among the installed policies: .*no_cap.*polca"):
        plugins.load("polcad.policies", "polka")


def test_a_group_that_nobody_fills_says_so() -> None:
    with pytest.raises(ConfigError, match="installed wonders: none"):
        plugins.load("polcad.wonders", "polca")


def test_a_part_that_cannot_be_imported_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        value = "nowhere:Thing"

        def load(self) -> object:
            raise ImportError("No module named 'nowhere'")

    monkeypatch.setattr(plugins, "entry_points", lambda **_: [Broken()])
    with pytest.raises(ConfigError, match=r"'thing' of collectors \(nowhere:Thing\) cannot be loaded"):
        plugins.load("polcad.collectors", "thing")


def test_own_parts_are_among_the_installed_ones() -> None:
    for group in plugins.GROUPS:
        assert set(plugins.own(group)) <= set(plugins.names(group))
        assert plugins.own(group)


def test_a_part_is_known_by_the_name_it_is_installed_under() -> None:
    policy = plugins.load("polcad.policies", "three_band")()
    assert plugins.name_of("polcad.policies", policy) == "three_band"
    assert plugins.name_of("polcad.policies", object()) == "object"

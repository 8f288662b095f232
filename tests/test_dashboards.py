"""The dashboards as files: what is committed is what the code makes, and Grafana can take and show it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards.build import files
from dashboards.grafana import Database
from dashboards.looks import CAUSES
from polcad.model import Why
from tests.grafana import Choice, Json, Range, filled, panels

FOLDER = Path(__file__).parent.parent / "dashboards"
BOARDS = {path: json.loads(text) for path, text in files().items()}
KINDS = {"timeseries", "stat", "bargauge", "state-timeline", "table"}
UNITS = {"watt", "percentunit", "s", "celsius", "hertz", "reqps", "cpm", "suffix: tokens/s", "string", "none"}

every_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


def strings(node: Any) -> Iterator[str]:
    """Every string in a tree of JSON."""
    if isinstance(node, str):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from strings(child)


def test_the_committed_files_are_those_that_the_code_makes_and_no_others() -> None:
    committed = {str(path.relative_to(FOLDER)): path.read_text(encoding="utf-8") for path in FOLDER.glob("*/*.json")}
    assert committed == files()


def test_every_dashboard_is_there_for_both_databases() -> None:
    names = {"fleet", "row", "node", "loop", "hints"}
    assert set(BOARDS) == {
        f"{database}/polcad-{name}.json" for database in ("influxdb", "prometheus") for name in names
    }


@pytest.mark.parametrize("database", Database)
def test_both_databases_and_their_folders_are_provisioned(database: Database) -> None:
    provisioning = FOLDER / "provisioning"
    assert f"type: {database}\n" in (provisioning / "datasources" / "polcad.yaml").read_text(encoding="utf-8")
    assert f"/{database}\n" in (provisioning / "dashboards" / "polcad.yaml").read_text(encoding="utf-8")


def test_every_cause_has_a_colour_of_its_own() -> None:
    assert set(CAUSES) == set(Why)
    assert len(set(CAUSES.values())) == len(CAUSES)


def test_no_two_dashboards_share_an_identity() -> None:
    for key in ("uid", "title"):
        assert len({board[key] for board in BOARDS.values()}) == len(BOARDS)


@every_board
def test_a_dashboard_has_what_grafanas_import_asks_for(board: Json) -> None:
    assert board["schemaVersion"] == 39
    assert re.fullmatch(r"[a-z-]{1,40}", board["uid"])
    assert board["id"] is None
    assert board["title"]
    assert board["description"]
    assert isinstance(board["templating"]["list"], list)
    assert isinstance(board["annotations"]["list"], list)
    assert {"from", "to"} == set(board["time"])


@every_board
def test_panels_have_ids_of_their_own_and_do_not_overlap(board: Json) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        spot = panel["gridPos"]
        cells = {(spot["x"] + x, spot["y"] + y) for x in range(spot["w"]) for y in range(spot["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells


@every_board
def test_every_panel_says_what_it_shows_in_a_unit_that_grafana_knows(board: Json) -> None:
    for panel in panels(board):
        assert panel["type"] in KINDS
        assert panel["title"]
        assert panel["description"].endswith((".", "?"))
        overrides = [each["properties"] for each in panel["fieldConfig"]["overrides"]]
        units = {each["value"] for properties in overrides for each in properties if each["id"] == "unit"}
        assert {panel["fieldConfig"]["defaults"]["unit"], *units} <= UNITS
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@every_board
def test_everything_is_asked_of_the_data_source_that_is_chosen_at_the_top(board: Json) -> None:
    chosen, *others = board["templating"]["list"]
    assert (chosen["type"], chosen["name"]) == ("datasource", "datasource")
    source = {"type": chosen["query"], "uid": "${datasource}"}
    asking = [each for each in others if each["type"] == "query"]
    for each in (*panels(board), *asking, *(target for panel in panels(board) for target in panel["targets"])):
        assert each["datasource"] == source
    assert [each["datasource"] for each in board["annotations"]["list"] if "builtIn" not in each] == [source]


@every_board
def test_queries_use_variables_that_the_dashboard_has(board: Json) -> None:
    known = {each["name"]: Choice(("x",), text="x") for each in board["templating"]["list"]}
    annotation = board["annotations"]["list"][1]
    asked = [*(target for panel in panels(board) for target in panel["targets"]), annotation["target"]]
    queries = [each[key] for each in asked for key in ("query", "expr") if key in each]
    assert queries
    assert not any(re.search(r"\$[\w{]", filled(query, known, Range(0.0, 60.0))) for query in queries)


@every_board
def test_a_variable_hangs_on_none_that_comes_after_it(board: Json) -> None:
    known = {"datasource": Choice(("x",))}
    for each in board["templating"]["list"][1:]:
        for text in strings(each["query"]):
            filled(text, known, Range(0.0, 60.0))
        known[each["name"]] = Choice(("x",), text="x")


@every_board
def test_links_lead_to_dashboards_that_there_are(board: Json) -> None:
    uids = {each["uid"] for each in BOARDS.values()}
    linked = {uid for text in strings(board) for uid in re.findall(r"/d/([\w-]+)", text)}
    assert linked <= uids
    (link,) = board["links"]
    same = [each for each in BOARDS.values() if set(link["tags"]) <= set(each["tags"])]
    assert len(same) == 5

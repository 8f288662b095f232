"""Write the files of docs/ and dashboards/ that are made from the code; tests compare them."""

from importlib.metadata import version
from pathlib import Path

from dashboards.build import files
from polcad.access import Inventory
from polcad.broker_config import ACL, CONF, mosquitto_acl, mosquitto_conf
from polcad.config import load
from polcad.config.example import example
from polcad.metrics_text import page
from polcad.schema import render

DOCS = Path(__file__).parent.parent / "docs"
DASHBOARDS = DOCS.parent / "dashboards"

if __name__ == "__main__":
    (DOCS / "polcad.example.toml").write_text(example(), encoding="utf-8")
    (DOCS / "asyncapi.json").write_text(render(version("polcad")), encoding="utf-8")
    config = load([DOCS / "polcad.example.toml"], {})
    acl = mosquitto_acl([Inventory(config.site.name, config.the_row()[0])])
    (DOCS / "broker" / ACL).write_text(acl, encoding="utf-8")
    (DOCS / "broker" / CONF).write_text(mosquitto_conf(), encoding="utf-8")
    for path, text in files().items():
        (DASHBOARDS / path).parent.mkdir(exist_ok=True)
        (DASHBOARDS / path).write_text(text, encoding="utf-8")
    (DOCS / "metrics.md").write_text(page(), encoding="utf-8")

from pathlib import Path

from polcad.measurements import SCHEMA
from polcad.metrics_text import page
from polcad.web.families import FAMILIES

DOCS = Path(__file__).parent.parent / "docs"


def test_the_page_of_metrics_is_what_the_code_says() -> None:
    assert (DOCS / "metrics.md").read_text(encoding="utf-8") == page(), "make generate"


def test_the_page_names_everything() -> None:
    text = page()
    for name, measurement in SCHEMA.items():
        section = text.split(f"### {name}\n")[1].split("\n### ")[0]
        assert all(f"| `{field.name}` | {field.value} | {field.unit} |" in section for field in measurement.fields)
    assert all(f"| `{name}` | {family.type} |" in text for name, family in FAMILIES.items())

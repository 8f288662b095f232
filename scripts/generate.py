"""Write the files of docs/ that are made from the code; tests compare them."""

from importlib.metadata import version
from pathlib import Path

from polcad.config.example import example
from polcad.schema import render

DOCS = Path(__file__).parent.parent / "docs"

if __name__ == "__main__":
    (DOCS / "polcad.example.toml").write_text(example(), encoding="utf-8")
    (DOCS / "asyncapi.json").write_text(render(version("polcad")), encoding="utf-8")

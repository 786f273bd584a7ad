"""What the documentation says is so: generated pages, links, the map of the house, the notebook."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
DOCS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PACKAGES = ("earmark", "fingerprint", "index", "service")

_spec = importlib.util.spec_from_file_location("reference", ROOT / ".ci" / "reference.py")
assert _spec is not None and _spec.loader is not None
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_reference_is_what_the_code_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [it for it in os.environ if it.startswith("EARMARK_")]:
        monkeypatch.delenv(variable)
    written = (reference.FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), "run `make reference`"


def test_links_lead_somewhere() -> None:
    for page in DOCS:
        text = page.read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]+)?\)", text):
            if "://" in target:
                continue
            there = (page.parent / target).resolve() if target else page
            assert there.exists(), f"{page}: {target}"
            if anchor and there.suffix == ".md":
                heads = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = {
                    "#" + re.sub(r"[^\w -]", "", it).lower().replace(" ", "-") for it in heads
                }
                assert anchor in anchors, f"{page}: {target}{anchor}"


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_file_that_docs_name_is_there() -> None:
    for page in DOCS:
        if "decisions" in page.parts:  # these say what was run at their time
            continue
        for name in re.findall(
            r"`((?:earmark|fingerprint|index|service)/[\w/]+\.py)`", page.read_text()
        ):
            assert (ROOT / name).is_file(), f"{page}: {name}"


def test_the_map_answers_ten_questions_with_files() -> None:
    rows = re.findall(
        r"^\| .*\? \| `(.*)` \|$", (ROOT / "docs/explanation/map.md").read_text(), re.M
    )
    assert len(rows) >= 10
    assert len(set(rows)) == len(rows)


def test_no_two_modules_share_a_name() -> None:
    """A reader finds a thing by its name; each package has its `errors`."""
    found = defaultdict(list)
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if "migrations" not in path.parts and not path.stem.startswith("__"):
                found[path.stem].append(str(path.relative_to(ROOT)))
    found.pop("errors", None)
    found.pop("fingerprint", None)  # the package's own
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "docs/tutorial/first-hour.ipynb").read_text(encoding="utf-8"))
    shown: list[Any] = []
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            tree = ast.parse("".join(cell["source"]))
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "notebook", "exec"), names)
            if isinstance(last, ast.Expr):
                shown.append(eval(compile(ast.Expression(last.value), "notebook", "eval"), names))
    pages = [it._repr_html_() for it in shown if hasattr(it, "_repr_html_")]
    assert len(pages) == 2
    assert "example-work.opus" in pages[0] and "<svg" in pages[0]
    assert "no known work" in pages[1]
    assert "match" in shown


def test_helpers_do_not_import_what_lies_in_the_current_folder(tmp_path: Path) -> None:
    for name in ("index", "service", "fingerprint", "earmark"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the current folder')")
    done = subprocess.run(
        [Path(sys.executable).parent / "earmark", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "earmark" in done.stdout

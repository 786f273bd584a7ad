"""The pages as a browser shows them, for README: ask, library, scans and keys `.png` in `docs/`.

    python -m benchmarks.demo.screenshots [--folder docs]

The works and the clip are those of `benchmarks.demo.picture`. Needs Chromium. Run it again when a page
changes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import click
from playwright.sync_api import Page, sync_playwright

from benchmarks.demo.picture import find
from fingerprint.encoder import Encoder
from index.key import end_of
from index.library import Library

WIDTH, HEIGHT = 860, 640


@contextmanager
def server(library: Path) -> Iterator[str]:
    """Where a server of a library is."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "earmark",
        "--library",
        str(library),
        "serve",
        "--port",
        "0",
    ]
    process = subprocess.Popen(command, cwd=library, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    address = ""
    for line in process.stderr:
        address = next((word for word in line.split() if word.startswith("http")), address)
        if "ready, with" in line:
            break
    try:
        yield address
    finally:
        process.terminate()
        process.wait()


def keys(library: Path) -> str:
    """Make keys, as an operator would; an admin's, to be used."""
    opened = Library.open(library, Encoder.load())
    _, admin = opened.add_key("Archive", "admin", None)
    opened.add_key("Blue Label", "ingest", end_of(date(2099, 12, 31)))
    gone, _ = opened.add_key("A platform on trial", "query", None)
    opened.revoke_key(gone.id)
    opened.close()
    return admin


def show(page: Page, address: str, library: Path, clip: Path, folder: Path) -> None:
    """Take the pictures."""
    page.goto(address)
    page.get_by_label("Drop a file here").set_input_files(clip)
    page.get_by_text("See what speaks for it").click()
    page.wait_for_function("document.querySelector('.timeline path').getAttribute('d')")
    page.screenshot(path=folder / "ask.png", full_page=True)
    page.goto(f"{address}/library")
    page.locator("tbody tr").first.wait_for()
    page.screenshot(path=folder / "library.png", full_page=True)
    page.goto(f"{address}/scans")
    page.get_by_label("Dataset").set_input_files(clip)
    page.get_by_role("button", name="Scan it").click()
    page.get_by_role("button", name="Open the report").wait_for(timeout=120_000)
    page.screenshot(path=folder / "scans.png", full_page=True)
    admin = keys(library)
    page.goto(f"{address}/keys")
    page.get_by_role("dialog").get_by_label("Key").fill(admin)
    page.get_by_role("button", name="Use it").click()
    page.locator("tbody tr").first.wait_for()
    page.screenshot(path=folder / "keys.png", full_page=True)


@click.command(help="Take pictures of the pages.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("docs"), show_default=True)
@click.option("--chromium", default="/usr/bin/chromium", show_default=True)
def main(folder: Path, chromium: str) -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory(prefix="earmark-") as name:
        _, clip, _ = find(Path(name), Encoder.load())
        with server(Path(name) / "library") as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--hide-scrollbars"]
            )
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            show(page, address, Path(name) / "library", clip, folder)
            browser.close()


if __name__ == "__main__":
    main()

"""The page that checks evidence in a browser, without a network."""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from bundles import Files, edited, evidence_for, packed, signed_anew
from playwright.sync_api import Page, expect, sync_playwright

from fingerprint.encoder import Encoder
from index.library import Library
from service.evidence import bundle
from service.evidence.bundle import CHECKER, MANIFEST, SIGNATURE, STATEMENT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def true_one(ingested: Path, music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that a library signed; the page that checks it is beside it."""
    folder = tmp_path_factory.mktemp("true")
    shutil.copytree(ingested, folder / "library")
    with closing(Library.open(folder / "library", Encoder.load())) as library:
        recording = next(it for it in library.every_recording() if it.source == "song-1.flac")
        with library.writer() as writer:
            writer.change(recording.id, {"title": "Dämmerung “1”"})
        return evidence_for(music / "clip.wav", library, folder / "evidence")


@pytest.fixture(scope="module")
def page(true_one: Path) -> Iterator[Page]:
    """The page, opened as a file, in a browser that has no network."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = chromium.new_context(offline=True)
        page = context.new_page()
        page.goto((true_one.parent / CHECKER).as_uri())
        yield page
        chromium.close()


def told(page: Page, path: Path, clip: Path | None = None, key: str = "") -> dict[str, str]:
    """What the page says of each thing that it checks, and under `all` whether it holds."""
    page.reload()
    if clip is not None:
        page.get_by_label("The clip").set_input_files(clip)
    page.get_by_label("public key").fill(key)
    page.get_by_label("The bundle").set_input_files(path)
    expect(page.locator("#result[data-holds]")).to_have_count(1)
    page.wait_for_function("document.querySelectorAll('#result p').length > 0")
    lines = page.locator("#result p").all_inner_texts()
    said = dict(line.split(": ", 1) for line in lines if ": " in line)
    return said | {"all": page.locator("#result").get_attribute("data-holds") or ""}


def test_what_the_library_signed_holds(page: Page, true_one: Path, music: Path) -> None:
    key = json.loads(bundle.read(true_one)[MANIFEST])["public_key"]
    said = told(page, true_one, music / "clip.wav", key)
    assert said["all"] == "true"
    for what in ("signature", "log", "key", "time", "recording", "clip"):
        assert f"{what} holds" in said, said
    assert "score NOT CHECKED" in said and "time stamp NOT CHECKED" in said
    assert "Dämmerung" in said["It states"]


def test_it_says_what_it_did_not_check(page: Page, true_one: Path) -> None:
    said = told(page, true_one)
    assert said["all"] == "true"
    assert {"key NOT CHECKED", "clip NOT CHECKED"} <= said.keys()


def without(name: str) -> Callable[[Files], Files]:
    return lambda files: {it: data for it, data in files.items() if it != name}


@pytest.mark.parametrize(
    ("forge", "what", "why"),
    [
        (without(SIGNATURE), "signature", "stripped"),
        (lambda files: edited(files, score=999.0), "signature", "evidence.json was altered"),
        (lambda files: files | {"x.txt": b"x"}, "signature", "x.txt was put in"),
        (without("clip.png"), "signature", "clip.png was taken out"),
        (lambda files: signed_anew(files), "key", "not the one that the log names"),
        (
            lambda files: signed_anew(edited(files, match__title="Theirs")),
            "recording",
            "the log says otherwise of title",
        ),
        (
            lambda files: signed_anew(edited(files, codes=lambda it: it[4:8] + it[:4] + it[8:])),
            "recording",
            "codes",
        ),
        (lambda files: signed_anew(edited(files, log__hash="0" * 64)), "log", "not in the log"),
        (
            lambda files: signed_anew(edited(files, made_at="2099-01-01T00:00:00+00:00")),
            "time",
            "impossible",
        ),
        (lambda files: files | {"timestamp.tsr": b"x"}, "time stamp", "one was put in"),
    ],
)
def test_forgeries_are_refused(
    forge: Callable[[Files], Files],
    what: str,
    why: str,
    page: Page,
    true_one: Path,
    tmp_path: Path,
) -> None:
    said = told(page, packed(tmp_path / "forged.zip", forge(bundle.read(true_one))))
    assert said["all"] == "false"
    assert why in said[f"{what} DOES NOT HOLD"]


def test_another_clip_and_another_key_are_refused(page: Page, true_one: Path, music: Path) -> None:
    said = told(page, true_one, music / "unknown.wav", "0" * 64)
    assert said["all"] == "false"
    assert "is not the one stated" in said["clip DOES NOT HOLD"]
    assert "not by the key that you named" in said["key DOES NOT HOLD"]


def test_what_is_no_bundle_is_said_to_be_none(page: Page, true_one: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.zip").write_bytes(true_one.read_bytes()[:-50])
    assert "truncated" in told(page, tmp_path / "cut.zip")["cut.zip"]
    older = edited(bundle.read(true_one), format=1)
    assert "is of format 1" in told(page, packed(tmp_path / "old.zip", older))["old.zip"]
    nothing = without(STATEMENT)(bundle.read(true_one))
    assert "no evidence.json" in told(page, packed(tmp_path / "no.zip", nothing))["no.zip"]


def test_a_bundle_that_was_packed_again_with_compression_still_holds(
    page: Page, true_one: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "again.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in bundle.read(true_one).items():
            archive.writestr(name, data)
    assert told(page, tmp_path / "again.zip")["all"] == "true"

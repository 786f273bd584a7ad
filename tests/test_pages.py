"""The pages, in a real browser: ask about a clip, let it listen, look after the library."""

import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from command import Earmark
from melodies import SONGS, melody, write
from patience import PATIENCE
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)"
)
WAVEFORM = re.compile(r"^(M\d+ [\d.]+V[\d.]+){600}$")  # 600 strokes


@pytest.fixture
def address(earmark: Earmark, tmp_path: Path) -> Iterator[str]:
    """Where a server of this test's own library is."""
    with earmark.server() as address:
        yield address


@pytest.fixture(scope="module")
def browser(music: Path) -> Iterator[Browser]:
    """Chromium, whose microphone hears clip.wav over and over."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={music / 'clip.wav'}",
            ],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page of that server, on which the browser has nothing to complain of."""
    context = browser.new_context(base_url=address, permissions=["microphone"])
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    expect.set_options(timeout=1000 * PATIENCE)
    complaints: list[str] = []
    page.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    # that a request was refused is told to the user; browsers note it too
    assert [line for line in complaints if "Failed to load resource" not in line] == []
    context.close()


def require_accessible(page: Page) -> None:
    found: dict[str, Any] = Axe().run(page).response
    rules = {it["id"]: [node["html"] for node in it["nodes"]] for it in found["violations"]}
    assert rules == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/library", "/scans", "/keys"])
def test_pages_are_accessible(path: str, scheme: Any, page: Page) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(path)
    if path == "/library":
        expect(page.locator("tbody tr")).to_have_count(SONGS)
    if path == "/scans":
        expect(page.locator("#rows")).to_contain_text("No scans yet")
    if path == "/keys":
        expect(page.locator("#rows")).to_contain_text("earmark keys create")
    require_accessible(page)


@pytest.fixture
def nothing(earmark: Earmark, tmp_path: Path) -> None:
    """Makes this test's library one without recordings."""
    earmark.environment["EARMARK_LIBRARY"] = str(tmp_path / "empty")


def test_who_has_nothing_to_ask_about_tries_an_example(nothing: None, page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Try an example").click()
    expect(page.get_by_role("heading", name="1 known work in example.mp3")).to_be_focused()
    found = page.get_by_role("article")
    expect(found.get_by_role("heading")).to_contain_text("Fingers and Wire")
    expect(found).to_contain_text("Match.")
    expect(page.locator("#answer")).to_contain_text("Your own library has no part in it")
    expect(page.locator(".timeline path")).to_have_attribute("d", WAVEFORM)
    require_accessible(page)


def test_an_empty_library_says_what_to_do(nothing: None, page: Page, music: Path) -> None:
    page.goto("/")
    page.get_by_label("Drop a file here").set_input_files(music / "clip.wav")
    expect(page.locator("#answer")).to_contain_text("There is nothing to compare it with yet")
    page.get_by_role("link", name="add the first recording").click()
    expect(page.locator("#rows")).to_contain_text("There are no recordings yet")


def test_a_clip_is_answered_with_the_work_and_where_it_is(page: Page, music: Path) -> None:
    page.goto("/")
    page.get_by_label("Drop a file here").set_input_files(music / "clip.wav")
    expect(page.get_by_role("heading", name="1 known work in clip.wav")).to_be_focused()
    found = page.get_by_role("article")
    expect(found.get_by_role("heading")).to_have_text("song-1.flac")
    expect(found).to_contain_text("0:00.0 to 0:05.0")
    expect(found).to_contain_text("0:07.3 to 0:12.3")
    expect(found).to_contain_text("Match.")
    expect(page.locator(".timeline rect.match")).to_have_count(1)
    expect(page.locator(".timeline path")).to_have_attribute("d", WAVEFORM)
    found.get_by_text("See what speaks for it").click()
    expect(found.get_by_role("img")).to_be_visible()
    require_accessible(page)


def test_what_is_not_known_and_what_is_no_sound_are_said_so(page: Page, music: Path) -> None:
    page.goto("/")
    choose = page.get_by_label("Drop a file here")
    choose.set_input_files(music / "unknown.wav")
    expect(page.get_by_role("heading", name="No known work in unknown.wav")).to_be_visible()
    choose.set_input_files(music / "text.mp3")
    expect(page.get_by_role("alert")).to_contain_text("is not a sound file")
    choose.set_input_files(music / "silent.wav")
    expect(page.get_by_role("alert")).to_contain_text("silence")


def test_the_microphone_is_listened_to(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Record").click()
    stop = page.get_by_role("button", name="Stop and ask")
    expect(stop).to_be_visible()
    page.wait_for_function(
        "since => performance.now() > since + 5000", arg=page.evaluate("performance.now()")
    )
    stop.click()
    expect(page.get_by_role("article").get_by_role("heading").first).to_have_text("song-1.flac")


def test_a_recording_is_added_found_searched_for_and_removed(page: Page, tmp_path: Path) -> None:
    song = write(tmp_path / "new.flac", melody(60, 8.0))
    page.goto("/library")
    add = page.get_by_role("form", name="Add a recording")
    add.get_by_label("Sound file").set_input_files(song)
    add.get_by_label("Rightsholder").fill("Blue Label")
    add.get_by_label("Rights", exact=True).select_option("owned")
    add.get_by_label("Title").fill("A <b>new</b> song")
    add.get_by_role("button", name="Add").click()
    expect(page.locator("#said")).to_contain_text("A <b>new</b> song is added")
    expect(page.locator("tbody tr")).to_have_count(SONGS + 1)

    page.get_by_role("link", name="Ask").click()
    page.get_by_label("Drop a file here").set_input_files(song)
    expect(page.get_by_role("article").get_by_role("heading")).to_have_text("A <b>new</b> song")

    page.get_by_role("link", name="Library").click()
    page.get_by_role("searchbox").fill("<b>new")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Remove A <b>new</b> song").click()
    expect(page.locator("#said")).to_contain_text("is removed")
    expect(page.locator("#rows")).to_contain_text("No recording fits that")


def test_many_recordings_are_added_from_an_archive(page: Page, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "album.zip", "w") as archive:
        archive.write(write(tmp_path / "one.flac", melody(61, 6.0)), "one.flac")
        archive.writestr("broken.flac", b"fLaC")
    (tmp_path / "rows.csv").write_text("file,title\none.flac,The First\n")
    page.goto("/library")
    many = page.get_by_role("form", name="Add many recordings")
    many.get_by_label("Archive").set_input_files(tmp_path / "album.zip")
    many.get_by_role("button", name="Add all").click()
    expect(page.get_by_role("alert")).to_contain_text("rightsholder")
    many.get_by_label("Metadata").set_input_files(tmp_path / "rows.csv")
    many.get_by_label("Rightsholder").fill("Blue Label")
    many.get_by_label("Rights", exact=True).select_option("owned")
    many.get_by_role("button", name="Add all").click()
    expect(page.locator("#many-said")).to_contain_text("album.zip is in the queue")
    row = page.get_by_role("row").filter(has_text="album.zip")
    expect(row).to_contain_text("done")
    expect(row).to_contain_text("broken.flac")
    expect(page.locator("#rows")).to_contain_text("The First")
    require_accessible(page)
    page.get_by_role("button", name="Forget album.zip").click()
    expect(page.locator("#ingests")).to_be_hidden()
    expect(page.locator("#rows")).to_contain_text("The First")


def test_what_is_said_of_a_recording_is_edited(page: Page, earmark: Earmark) -> None:
    page.goto("/library")
    page.get_by_role("button", name="Edit song-1.flac").click()
    dialog = page.get_by_role("dialog", name="Edit song-1.flac")
    expect(dialog.get_by_label("Rightsholder")).to_have_value("Blue Label")
    require_accessible(page)
    dialog.get_by_label("Title").fill("Blue Moon")
    dialog.get_by_label("Licence until").fill("2099-12-31")
    dialog.get_by_label("Rightsholder").fill("Red Label")
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator("#said")).to_contain_text("Blue Moon is changed")
    row = page.get_by_role("row").filter(has_text="Blue Moon")
    expect(row).to_contain_text("Red Label")
    expect(row).to_contain_text("2099-12-31")
    page.get_by_role("button", name="Edit Blue Moon").click()
    dialog = page.get_by_role("dialog", name="Edit Blue Moon")
    dialog.get_by_label("Title").fill("")
    dialog.get_by_label("ISRC").fill("gb-aye-00-00001")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Edit song-1.flac")).to_be_visible()
    (said,) = [row for row in earmark.lines("list") if row["source"] == "song-1.flac"]
    assert (said["title"], said["isrc"], said["rights"]) == (None, "GBAYE0000001", "owned")


def test_an_admin_makes_a_key_that_is_shown_once_and_revokes_it(
    page: Page, earmark: Earmark
) -> None:
    page.goto("/keys")
    expect(page.locator("#rows")).to_contain_text("There are no keys yet")
    expect(page.get_by_role("form", name="Make a key")).to_be_hidden()
    (first,) = earmark.lines("keys", "create", "--owner", "Ada", "--scope", "admin")
    page.reload()
    page.get_by_role("dialog").get_by_label("Key").fill(first["key"])
    page.get_by_role("dialog").get_by_role("button", name="Use it").click()
    form = page.get_by_role("form", name="Make a key")
    form.get_by_label("Owner").fill("<i>Bo")
    form.get_by_label("What it is for").select_option("query")
    form.get_by_role("button", name="Make a key").click()
    shown = page.get_by_label("It is not shown again")
    expect(shown).to_be_focused()
    made = shown.input_value()
    expect(page.locator("tbody tr")).to_have_count(2)
    require_accessible(page)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("row").filter(has_text="<i>Bo").get_by_role("button").click()
    expect(page.get_by_role("row").filter(has_text="<i>Bo")).to_contain_text("revoked")
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(2)
    assert made.startswith("earmark_") and made not in page.content()
    page.get_by_role("button", name="Use another key").click()
    expect(page.get_by_role("dialog")).to_contain_text("those who have a key")


def test_a_scan_is_asked_for_watched_and_its_report_opened(
    page: Page, music: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "dump.zip", "w") as archive:
        for name in ("clip.wav", "unknown.wav", "text.mp3"):
            archive.write(music / name, name)
    page.goto("/scans")
    page.get_by_label("Dataset").set_input_files(tmp_path / "dump.zip")
    page.get_by_role("button", name="Scan it").click()
    expect(page.locator("#said")).to_contain_text("dump.zip is in the queue")
    with page.context.expect_page(timeout=1000 * PATIENCE) as opened:
        page.get_by_role("button", name="Open the report of dump.zip").click()
    report = opened.value
    expect(report.get_by_role("heading", level=1)).to_contain_text("Scan of dump.zip")
    expect(report.get_by_role("heading", name="dump.zip: clip.wav")).to_be_visible()
    expect(report.get_by_role("cell", name="song-1.flac").first).to_be_visible()
    expect(report.locator(".line rect.match")).to_have_count(1)
    height = "parseFloat(getComputedStyle(document.querySelector('.line')).height)"
    assert report.evaluate(height) == pytest.approx(14.4, abs=0.1)  # its style is let in
    require_accessible(report)
    require_accessible(page)
    page.get_by_role("button", name="Delete dump.zip").click()
    expect(page.locator("#rows")).to_contain_text("No scans yet")


def test_a_key_is_asked_for_where_one_is_needed(page: Page, earmark: Earmark) -> None:
    (made,) = earmark.lines("keys", "create", "--owner", "Ada", "--scope", "query")
    page.goto("/library")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("those who have a key")
    require_accessible(page)
    dialog.get_by_label("Key").fill("earmark_wrong")
    dialog.get_by_role("button", name="Use it").click()
    expect(dialog).to_contain_text("unknown, expired or revoked")
    dialog.get_by_label("Key").fill(made["key"])
    dialog.get_by_role("button", name="Use it").click()
    expect(page.locator("tbody tr")).to_have_count(SONGS)
    expect(page.get_by_role("button", name="Remove")).to_have_count(0)  # its scope is query


def test_the_routes_are_described_without_anything_from_elsewhere(page: Page, address: str) -> None:
    elsewhere: list[str] = []
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((address, "data:")) else elsewhere.append(request.url)
        ),
    )
    page.goto("/docs")
    expect(page.get_by_text("/v1/query")).to_be_visible()
    page.get_by_role("button", name="GET /healthz").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response-col_status").last).to_have_text("200")
    assert elsewhere == []


def test_pages_are_strict_with_browsers(page: Page, address: str) -> None:
    for path in ("/", "/docs", "/openapi.json", "/static/earmark.js"):
        response = page.goto(path)
        assert response is not None
        policy = response.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy

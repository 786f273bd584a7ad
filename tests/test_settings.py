"""Configuration: one place, every setting documented, limits written as people say them."""

from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ByteSize

from service.command import main
from service.runtime.settings import Settings, SettingsError, in_words, load_settings


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"EARMARK_{name.upper()}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_means(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description, f"setting {name} has no description"
    assert description.endswith(".")


def test_every_setting_that_is_a_flag_says_its_default_in_the_help() -> None:
    flags = {
        parameter.name: parameter.help or ""
        for command in (main, *main.commands.values())
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name in Settings.model_fields
    }
    assert set(flags) >= {"library", "host", "port", "max_e_value", "jobs"}
    settings = load_settings()
    for name, text in flags.items():
        default = "one per core" if name == "jobs" else in_words(getattr(settings, name))
        assert f"[default: {default}]" in text


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("4 h", 14400),
        ("90 s", 90),
        ("1 h 30 min", 5400),
        ("10min", 600),
        ("0.5 s", 0.5),
        ("PT2H", 7200),
        ("01:30:00", 5400),
    ],
)
def test_durations_are_written_as_people_say_them(
    monkeypatch: pytest.MonkeyPatch, written: str, seconds: float
) -> None:
    monkeypatch.setenv("EARMARK_MAX_DURATION", written)
    assert load_settings().max_duration.total_seconds() == seconds


@pytest.mark.parametrize(
    ("written", "size"), [("2 GiB", 2**31), ("64MiB", 2**26), ("1 kB", 1000), ("12", 12)]
)
def test_sizes_are_written_as_people_say_them(
    monkeypatch: pytest.MonkeyPatch, written: str, size: int
) -> None:
    monkeypatch.setenv("EARMARK_MAX_UPLOAD", written)
    assert load_settings().max_upload == size


@given(st.integers(1, 10**6))
def test_a_duration_in_words_is_read_back_as_it_was(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert load_settings(max_duration=in_words(duration)).max_duration == duration


def test_sizes_in_words() -> None:
    assert in_words(ByteSize(2**31)) == "2.0 GiB"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_duration", "4 parsecs"),
        ("max_duration", "0 s"),
        ("max_upload", "many"),
        ("max_upload", "-1"),
        ("max_e_value", "nan"),
        ("max_e_value", "0"),
        ("jobs", "0"),
        ("port", "http"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_setting_and_its_origin(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"EARMARK_{name.upper()}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"setting {name}, given by EARMARK_{name.upper()}: ")
    assert "\n" not in str(caught.value)


def test_a_configuration_file_that_is_not_toml_is_refused() -> None:
    Path("own.toml").write_text("this is = = not TOML")
    with pytest.raises(SettingsError, match=r"the configuration file cannot be read"):
        load_settings(config="own.toml")


@pytest.mark.parametrize("written", ["0", "0 s", "0 h"])
def test_a_limit_of_no_end_is_written_as_nought(
    monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    without_end = [
        name
        for name, field in Settings.model_fields.items()
        if (field.description or "").endswith("0 for no end.")
    ]
    assert "audio_per_day" in without_end
    for name in without_end:
        value = written if name == "audio_per_day" else "0"
        monkeypatch.setenv(f"EARMARK_{name.upper()}", value)
        assert not getattr(load_settings(), name)
        assert in_words(getattr(load_settings(), name))


def test_another_process_is_told_what_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = "ge heim"
    address = f"postgresql+psycopg://ada:{quote(hidden)}@127.0.0.1/library"
    Path("own.toml").write_text('max_duration = "1 h 30 min"\n')
    monkeypatch.setenv("EARMARK_MAX_UPLOAD", "64 MiB")
    told = load_settings(
        config="own.toml", wrong_per_million="0.1", isolate=False, database=address
    )
    environment = told.as_environment()
    assert len(environment) == 6
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == told

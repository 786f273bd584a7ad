"""The one place that Earmark's configuration comes from.

A value is taken from the first of: a command line flag, the environment (`EARMARK_` and the name in
capitals), a configuration file, the default. The file is the one that `--config` or EARMARK_CONFIG names,
else `earmark.toml` in the user's configuration folder. One in the current folder is ignored, with a warning:
whoever made that folder, a dataset for instance, would decide what Earmark does. Limits are written as people
say them: `4 h`, `90 s`, `2 GiB`. `earmark settings` prints this table.
"""

import logging
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import sqlalchemy as sql
from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, InstanceOf, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from fingerprint.cores import available_cores
from fingerprint.errors import EarmarkError
from fingerprint.hypotheses import LADDER
from index.database import BESIDE, POSTGRESQL

_UNITS = {"h": 3600, "min": 60, "s": 1}
FILE = "earmark.toml"
_log = logging.getLogger(__name__)


class SettingsError(EarmarkError):
    """A setting has a value that cannot be used, or a name that does not exist."""


def _iso_duration(value: object) -> object:
    """Spell `4 h`, `1 h 30 min` or `90 s` the ISO 8601 way (`PT4H`), which pydantic reads."""
    if isinstance(value, str) and value.strip() == "0":
        return timedelta(0)
    if isinstance(value, str) and re.match(r"\s*[\d.]", value) and ":" not in value:
        return "PT" + re.sub(r"\s+", "", value).upper().replace("MIN", "M")
    return value


def _database(value: object) -> object:
    """Read an address; only PostgreSQL's and BESIDE are known."""
    if isinstance(value, str):
        try:
            value = sql.make_url(value)
        except (ValueError, sql.exc.ArgumentError):
            value = None
    if isinstance(value, sql.URL) and (value == BESIDE or value.drivername == POSTGRESQL):
        return value
    raise ValueError(f"it is neither {BESIDE} nor {POSTGRESQL}://USER@HOST/NAME")


Duration = Annotated[timedelta, BeforeValidator(_iso_duration), Field(gt=timedelta(0))]
DurationOrZero = Annotated[timedelta, BeforeValidator(_iso_duration), Field(ge=timedelta(0))]


class Settings(BaseSettings):
    """Every setting, with its default and its meaning. Raises pydantic's ValidationError."""

    model_config = SettingsConfigDict(
        env_prefix="EARMARK_",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
    )

    config: Annotated[Path, AfterValidator(Path.absolute)] | None = Field(
        default=None,
        description="Configuration file (TOML) with settings by their names; by default earmark.toml in the "
        "user's configuration folder, if it is there.",
    )
    library: Path = Field(
        default=Path("earmark-library"),
        description="Folder of the library that commands and the server work on.",
    )
    # not shown where it is wrong: there is a password in it
    database: Annotated[InstanceOf[sql.URL], NoDecode, BeforeValidator(_database)] = Field(
        default=BESIDE,
        repr=False,
        description="Where the catalogue, the keys, the audit log and the server's jobs are: sqlite:// for "
        "files in their folders, or postgresql+psycopg://USER@HOST/NAME for a PostgreSQL database, of one "
        "library alone.",
    )
    ray: str | None = Field(
        default=None,
        description="Address of a Ray cluster, host:port or auto: its nodes hold the library's segments for "
        "queries, and hear the files of a scan.",
    )
    segments: str | None = Field(
        default=None,
        description="Where the cluster's nodes find the segments if not in the library's folder: a folder, "
        "or a URL such as s3://bucket/segments.",
    )
    shard_size: ByteSize = Field(
        default=ByteSize(2**30),
        gt=0,
        description="Most of the segments that one shard in the cluster holds; it takes that much of its "
        "node's memory.",
    )
    replicas: int = Field(
        default=1,
        ge=1,
        description="Copies of each shard in the cluster, on different nodes where there are as many.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address the server listens on; a loopback address while there are no keys.",
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port the server listens on.")
    max_duration: Duration = Field(
        default=timedelta(hours=25),
        description="Longest audio that is fingerprinted, a day's radio log by default; longer is refused as "
        "too-long.",
    )
    max_clip: Duration = Field(
        default=timedelta(minutes=10),
        description="Longest clip that the server answers a query for, as it takes a turn until it is "
        "answered; longer is refused as too-long, and can be scanned.",
    )
    max_size: ByteSize = Field(
        default=ByteSize(4 * 2**30),
        gt=0,
        description="Largest file that the command line reads; larger is refused as too-large.",
    )
    max_upload: ByteSize = Field(
        default=ByteSize(2 * 2**30),
        gt=0,
        description="Largest request body that the server takes; larger is answered with 413.",
    )
    isolate: bool = Field(
        default=True,
        description="Whether the server decodes what it is sent in processes of their own, with limits "
        "on time and memory; without, a file that crashes a decoder ends the server.",
    )
    scans_at_once: int = Field(
        default=1, ge=1, description="Scans that the server runs at the same time."
    )
    scans_per_owner: int = Field(
        default=4, ge=1, description="Unfinished scans that one owner of keys may have."
    )
    keep_scans: Duration = Field(
        default=timedelta(days=30),
        description="For how long the reports of finished scans are kept.",
    )
    ingests_per_owner: int = Field(
        default=4, ge=1, description="Unfinished ingests that one owner of keys may have."
    )
    keep_ingests: Duration = Field(
        default=timedelta(days=30),
        description="For how long it is told what became of finished ingests.",
    )
    max_job_time: Duration = Field(
        default=timedelta(hours=24),
        description="Time after which a scan or an ingest that the server was asked for is ended.",
    )
    stop_within: Duration = Field(
        default=timedelta(seconds=30),
        description="Time in which the server stops: requests in hand get half of it, then running jobs the "
        "other half; jobs that are not done go on with the next server.",
    )
    bodies_at_once: ByteSize = Field(
        default=ByteSize(8 * 2**30),
        gt=0,
        description="Bytes of request bodies that the server takes in at the same time, on its disk; more "
        "are answered with 503, and more than a quarter of it from one key with 429.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port at which /metrics is served without a key, on metrics_host.",
    )
    metrics_host: str = Field(
        default="127.0.0.1", description="Address at which /metrics is served without a key."
    )
    requests_per_minute: int = Field(
        default=600,
        ge=0,
        description="Requests that the server takes of one key in a minute; 0 for no end.",
    )
    bytes_per_day: ByteSize = Field(
        default=ByteSize(100 * 2**30),
        ge=0,
        description="Bytes of request bodies that the server takes of one key in a day; 0 for no end.",
    )
    audio_per_day: DurationOrZero = Field(
        default=timedelta(hours=1000),
        description="Audio that the server decodes for one key in a day; 0 for no end.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="How the server writes its log, to standard error: text, or json, an object a line.",
    )
    log_level: Literal["info", "warning", "error"] = Field(
        default="warning",
        description="From what on the server logs: info has a line for each request.",
    )
    wrong_per_million: float = Field(
        default=1.0,
        gt=0,
        le=10_000,
        allow_inf_nan=False,
        description="Wrong answers of tier `match` that are put up with among a million clips of unrelated "
        "music; less makes for fewer matches, and more of tier `review`.",
    )
    max_e_value: float = Field(
        default=1e-2,
        gt=0,
        allow_inf_nan=False,
        description="Matches expected by chance more often than this, per query, are not shown.",
    )
    hypotheses: int = Field(
        default=len(LADDER),
        ge=0,
        le=len(LADDER),
        description="Hypotheses of altered tempo and pitch that are tried, the commonest first, on "
        "what is not recognised as it is; 0 for none.",
    )
    timestamp_url: Annotated[str | None, Field(pattern="^https?://")] = Field(
        default=None,
        description="Address of a time stamp server (RFC 3161) that confirms when evidence was signed; it "
        "is sent the hash of the signature alone.",
    )
    jobs: int = Field(
        default_factory=available_cores,
        ge=1,
        description="Files that are fingerprinted at the same time; by default one per core.",
    )
    waiting: int = Field(
        default=64,
        ge=0,
        description="Requests with sound that may wait for their turn; more are answered with 503.",
    )
    waiting_per_key: int = Field(
        default=16,
        ge=0,
        description="Requests of one key that may be sent, worked on or wait at once; more are "
        "answered with 429; 0 for no end.",
    )

    def as_environment(self) -> dict[str, str]:
        """What was set, as environment variables that tell another process the same."""
        return {
            variable_of(name): _written(value)
            for name in sorted(self.model_fields_set)
            if (value := getattr(self, name)) is not None
        }

    @property
    def gate(self) -> float:
        """E-value up to which an answer is of tier `match`."""
        return self.wrong_per_million / 1e6

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags first, then the environment, then the configuration file."""
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(settings_cls, _file(init_settings)),
        )


def _file(flags: PydanticBaseSettingsSource) -> Path:
    """The configuration file. Raises ValueError where the one that is named is none."""
    named = flags().get("config") or os.environ.get(variable_of("config"))
    if not named:
        return Path(click.get_app_dir("earmark")) / FILE
    if not Path(named).is_file():
        raise ValueError(f"{named}: there is no such file")
    return Path(named)


def load_settings(**flags: object) -> Settings:
    """Settings with the flags that were given (those that are None were not).

    Raises SettingsError, one line that names the setting and where its value came from.
    """
    here = Path(FILE)
    if here.is_file() and not (flags.get("config") or os.environ.get(variable_of("config"))):
        _log.warning(
            "%s in the current folder is ignored; name it to use it: --config %s", *(2 * (FILE,))
        )
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        field = Settings.model_fields.get(name)
        got = f" (got {first['input']!r})" if field is None or field.repr else ""
        raise SettingsError(
            f"setting {name}, given by {_origin(name, given)}: {first['msg']}{got}; "
            "`earmark settings` lists all of them"
        ) from error
    except (OSError, ValueError) as error:  # the file is not TOML, or not text
        raise SettingsError(f"the configuration file cannot be read: {error}") from error


def _origin(name: str, flags: dict[str, Any]) -> str:
    if name in flags:
        return f"--{name.replace('_', '-')}"
    return variable_of(name) if variable_of(name) in os.environ else "the configuration file"


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"EARMARK_{name.upper()}"


def _written(value: object) -> str:
    """A value as the environment spells it, with the password of a database."""
    if isinstance(value, sql.URL):
        return value.render_as_string(hide_password=False)
    if isinstance(value, timedelta):
        return f"{value.total_seconds()} s"
    return str(int(value) if isinstance(value, ByteSize) else value)


def in_words(value: object) -> str:
    """A setting's value as a person would write it: `4 h`, `2.0 GiB`."""
    if value is None:
        return "none"
    if isinstance(value, ByteSize):
        return value.human_readable(separator=" ")
    if isinstance(value, timedelta):
        left = value.total_seconds()
        parts = []
        for unit, seconds in _UNITS.items():
            count = left if unit == "s" else left // seconds
            left -= count * seconds
            if count:
                parts.append(f"{count:g} {unit}")
        return " ".join(parts) or "0 s"
    return str(value)

"""Whether Earmark works on a Ray cluster, as the setting `ray` says."""

from typing import TYPE_CHECKING

from fingerprint.encoder import Encoder
from index.errors import ClusterError
from index.library import Library
from service.runtime.settings import Settings

if TYPE_CHECKING:
    from index.cluster.shards import Shards


def join(address: str) -> None:
    """Join the Ray cluster at an address. Raises ClusterError, also where Ray is not installed."""
    try:
        from index.cluster.shards import connect
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ClusterError(f'--ray {address}: needs Ray: pip install "earmark[cluster]"') from None
    connect(address)


def jobs_of(settings: Settings) -> int:
    """How many files are worked on at the same time: as set, or one per core, of the cluster if there is."""
    if settings.ray is None or "jobs" in settings.model_fields_set:
        return settings.jobs
    from service.runtime.ray_nodes import cores

    return cores()


def open_searched(settings: Settings, encoder: Encoder, *, create: bool = False) -> Library:
    """The library, to be searched in this process or in the shards of the cluster.

    Raises ClusterError, and LibraryError as `Library.open` does.
    """
    return Library.open(
        settings.library,
        encoder,
        url=settings.database,
        create=create,
        gate=settings.gate,
        shards=_shards(settings, encoder),
    )


def _shards(settings: Settings, encoder: Encoder) -> "Shards | None":
    if settings.ray is None:
        return None
    join(settings.ray)
    from index.cluster.shards import Shards

    where = settings.segments or str(settings.library.absolute() / "segments")
    return Shards(where, encoder, most=int(settings.shard_size), replicas=settings.replicas)

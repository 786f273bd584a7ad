"""How much a container may unpack to: the same for every archive, table and compression."""

# Bytes that are held of a member that can only be read in passing; larger ones are refused as too large.
MOST_IN_MEMORY = 256 * 2**20
# Times its size that what is compressed may unpack to, beyond what is held in memory anyway: sound that is
# compressed already hardly shrinks, and PCM to a half; only silence and bombs do so.
_MOST_RATIO = 200
# Bytes that a row of a table counts for beside its content: what it costs to note it.
ROW = 256


def is_bomb(size: int, packed: int) -> bool:
    """Whether so many bytes are very much more than what they are packed in, and too many to be held."""
    return size > _MOST_RATIO * packed + MOST_IN_MEMORY


class Unpacked:
    """What a container has unpacked to so far, in all."""

    def __init__(self) -> None:
        self.size = 0

    def add(self, size: int, packed: int) -> None:
        """Count bytes that came out of those that are packed. Raises ValueError for a bomb."""
        self.size += size
        if is_bomb(self.size, packed):
            raise ValueError(f"unpacks to more than {self.size / 2**20:,.0f} MiB of almost nothing")

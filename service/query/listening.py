"""A sound heard stretch by stretch, all its sound tracks, so that memory does not grow with its length."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from fingerprint.audio import SAMPLE_RATE, AudioStream, Limits
from fingerprint.encoder import Encoder
from fingerprint.errors import AudioError
from fingerprint.fingerprint import QUERY_EVERY, Fingerprint, fingerprint_samples
from fingerprint.tracks import HeardTrack, heard_tracks, without_name
from service.query.chunks import stretches


@dataclass
class Listening:
    """An open sound, and what of it has been heard so far.

    Attributes
    ----------
    stream : the sound, of whose tracks the others are opened in their turn
    limits : of all tracks together
    encoder : makes the fingerprints
    sha256 : of the file's content
    duration : seconds of the longest track
    undecoded : seconds that the file states and that could not be decoded
    notes : what else was not heard or is odd, one sentence each
    """

    stream: AudioStream
    limits: Limits
    encoder: Encoder
    sha256: str
    duration: float = 0.0
    undecoded: float = 0.0
    notes: list[str] = field(default_factory=list)

    def stretches(self) -> Iterator[tuple[float, Fingerprint]]:
        """The second at which each stretch begins, and its fingerprint; silent ones are left out.

        Raises AudioError where there is nothing to hear in any.
        """
        several = self.stream.tracks > 1
        tracks: Iterator[HeardTrack] = iter([HeardTrack(self.stream.track, self.stream)])
        if several:
            tracks = heard_tracks(self.stream, self.limits, in_order=True)
        heard = False
        problem: AudioError | None = None
        for track in tracks:
            try:
                for begins, made in self._of_track(track):
                    heard = True
                    number = track.number if several else None
                    yield begins, replace(made, sha256=self.sha256, track=number)
            except AudioError as error:
                problem = problem or error
                if not several:
                    raise
                said = without_name(error, self.stream.name)
                self.notes.append(f"track {track.number} is not heard: {said}")
            if isinstance(track.stream, AudioStream):
                self._note(track.stream, f"track {track.number}: " if several else "")
        if not heard and problem is not None:
            raise problem

    def _of_track(self, track: HeardTrack) -> Iterator[tuple[float, Fingerprint]]:
        if isinstance(track.stream, AudioError):
            raise track.stream
        heard = False
        problem: AudioError | None = None
        for begins, samples in stretches(track.stream.blocks()):
            track.seconds = begins + len(samples) / SAMPLE_RATE
            self.duration = max(self.duration, track.seconds)
            try:
                made = fingerprint_samples(samples, self.encoder, QUERY_EVERY, self.stream.name)
            except AudioError as error:  # a silent stretch
                problem = problem or error
                continue
            heard = True
            yield begins, made
        if not heard and problem is not None:
            raise problem

    def _note(self, stream: AudioStream, of: str) -> None:
        self.undecoded += stream.undecoded
        said = [stream.damage] if stream.damage else []
        self.notes += [of + note for note in (*said, *stream.notes)]

"""The truth of a clip as a set: every place in the library with the same audio.

Much music repeats itself exactly, inside a work (loops, patterns) and between editions of one. An answer
that names any place with the same audio is right. Which places these are is decided here from the clean
signals alone, before any system is asked and by no fingerprint's means:

    A place holds a clip's audio if the waveforms, limited to 250 to 3,400 Hz and pre-emphasised so that the
    bass does not decide alone, have a normalised cross-correlation of at least `SAME` over the whole clip,
    at the best lag and in either polarity.

The same to the sample gives 1. Clips of 5 s against themselves through a codec (60 each, real music; lowest,
10th percentile, median): Vorbis 160 kbit/s .974, .984, .992; MP3 at 64 kbit/s .905, .959, .981; AAC at
48 kbit/s .80, .91, .95. Of the places that resemble a clip of 5 s (400 clips, half of them tracker modules,
which repeat most) .9 lies in the valley between "the same drums under another voice" and "the same".

Comparing every clip with every second of the library by correlation would take days, so candidates come
from a sketch: log energies of 16 bands every 0.125 s, 0.9 s of them at a time, standardised over the library;
one such patch of the clip against all of the library by matrix product. What resembles it at `SIMILAR` or
better is correlated, first over the patch's 0.9 s, then over the whole clip. Copies differ in the sketch by
no more than half a hop of alignment. Cost is bounded by `MOST_CANDIDATES` a clip: 27 a second in 5 hours
of music on one core, nearly all of it correlation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import butter, sosfilt

Signal = npt.NDArray[np.float32]
Stored = npt.NDArray[np.int16]

SAMPLE_RATE = 8_000  # Hz of the signals given
BAND = (250.0, 3_400.0)  # Hz
SAME = 0.9  # least correlation of what counts as the same audio
SAME_PATCH = 0.8  # least correlation of the patch alone; below it the clip is not compared

HOP = 1_000  # samples between sketch frames
WINDOW = 2_048  # samples
FRAMES = 6  # of a patch: (FRAMES - 1) * HOP + WINDOW samples, 0.88 s
BANDS = 16
DYNAMICS = 40.0  # dB below a frame's loudest band where its sketch is cut off
SIMILAR = 0.7  # least cosine of two patches worth correlating
MOST_CANDIDATES = 400
SEARCH = HOP // 2 + 160  # samples searched either side of a candidate
MARGIN = 16  # samples searched once the patch has told the lag
UPSAMPLING = 4  # of the correlation, because copies need not be aligned to a sample
PATCH = (FRAMES - 1) * HOP + WINDOW  # samples
SHORTEST = PATCH / SAMPLE_RATE  # s


@dataclass(frozen=True, order=True)
class Place:
    """Where a clip begins in a recording."""

    recording: str
    offset: float  # s


@dataclass(frozen=True)
class Cut:
    """A stretch of the library: what a clip was cut from. A clip at tempo x covers x times its length."""

    recording: str
    offset: float  # s
    seconds: float


def is_right(
    places: Iterable[Place], recording: str, offset: float, tolerance: float = 0.5
) -> bool:
    """Whether an answer (recording, reference time of the clip's beginning) is one of the places."""
    return any(p.recording == recording and abs(p.offset - offset) <= tolerance for p in places)


class Truth:
    """The clean signals of a library, and where in them the same audio is heard again.

    Holds 16 bit a sample: 58 MB for an hour of music.
    """

    def __init__(self) -> None:
        self._signals: dict[str, Stored] = {}
        self._sketches: dict[str, Signal] = {}

    def add(self, recording: str, samples: Signal) -> None:
        """Add a recording: float32 (n,) mono at 8 kHz, undamaged."""
        if recording in self._signals:
            raise ValueError(f"{recording} was added already")
        signal = prepared(samples)
        self._signals[recording] = signal
        self._sketches[recording] = _sketch(signal)

    def places(self, cuts: Sequence[Cut]) -> list[list[Place]]:
        """For every cut all places with the same audio: its own first, then the best correlated.

        Raises `KeyError` for an unknown recording and `ValueError` for a cut shorter than `SHORTEST`.
        """
        if not cuts:
            return []
        anchors = [self._anchor(cut) for cut in cuts]
        candidates = self._candidates(cuts, anchors)
        return [self._confirm(*each) for each in zip(cuts, anchors, candidates, strict=True)]

    def _stretch(self, recording: str, start: int, length: int) -> Signal:
        """`length` samples from `start` on; zeros where the recording has none."""
        signal = self._signals[recording]
        inside = signal[max(start, 0) : max(start + length, 0)].astype(np.float32)
        before = min(max(-start, 0), length - len(inside))
        return np.pad(inside, (before, length - before - len(inside)))

    def _anchor(self, cut: Cut) -> int:
        """Samples from the cut's beginning to the loudest patch in it."""
        length = round(cut.seconds * SAMPLE_RATE)
        if length < PATCH:
            raise ValueError(f"{cut} is shorter than {SHORTEST:.2f} s")
        clip = self._stretch(cut.recording, round(cut.offset * SAMPLE_RATE), length)
        energy = np.concatenate([[0.0], np.cumsum(np.square(clip, dtype=np.float64))])
        starts = np.arange(0, length - PATCH + 1, HOP)
        return int(starts[np.argmax(energy[starts + PATCH] - energy[starts])])

    def _candidates(
        self, cuts: Sequence[Cut], anchors: Sequence[int]
    ) -> list[list[tuple[float, str, int]]]:
        """For every cut (similarity, recording, where the resembling patch begins), best first."""
        mean, spread = self._moments()
        sketches = [
            _sketch(self._stretch(c.recording, round(c.offset * SAMPLE_RATE) + anchor, PATCH))
            for c, anchor in zip(cuts, anchors, strict=True)
        ]
        queries = _standardise(np.stack(sketches), mean, spread)
        found: list[list[tuple[float, str, int]]] = [[] for _ in cuts]
        for recording, sketch in self._sketches.items():
            if len(sketch) < FRAMES:
                continue
            patches = sliding_window_view(sketch, FRAMES, axis=0).transpose(0, 2, 1)
            similarity = _standardise(patches, mean, spread) @ queries.T
            for frame, clip in np.argwhere(_is_peak(similarity) & (similarity >= SIMILAR)).tolist():
                found[clip].append((float(similarity[frame, clip]), recording, frame * HOP))
        return [sorted(entries, reverse=True)[:MOST_CANDIDATES] for entries in found]

    def _moments(self) -> tuple[Signal, Signal]:
        """Mean and standard deviation of every band over the library, relative to the frame."""
        frames = np.concatenate(list(self._sketches.values()))
        frames = frames - frames.mean(axis=1, keepdims=True)
        return frames.mean(axis=0), frames.std(axis=0) + np.float32(1e-3)

    def _confirm(
        self, cut: Cut, anchor: int, candidates: Sequence[tuple[float, str, int]]
    ) -> list[Place]:
        """The candidates whose waveform is the cut's."""
        own = round(cut.offset * SAMPLE_RATE)
        clip = self._stretch(cut.recording, own, round(cut.seconds * SAMPLE_RATE))
        patch = clip[anchor : anchor + PATCH]
        found: list[tuple[float, str, int]] = []
        for _, recording, start in candidates:
            first = start - SEARCH
            likeness, lag = correlate(patch, self._stretch(recording, first, PATCH + 2 * SEARCH))
            if likeness < SAME_PATCH:
                continue
            begin = first + lag - anchor
            if recording == cut.recording and abs(begin - own) < SEARCH:
                continue
            likeness, lag = correlate(
                clip, self._stretch(recording, begin - MARGIN, len(clip) + 2 * MARGIN)
            )
            if likeness >= SAME:
                found.append((likeness, recording, begin - MARGIN + lag))
        places = [Place(cut.recording, cut.offset)]
        for _, recording, begin in sorted(found, reverse=True):
            offset = begin / SAMPLE_RATE
            if not is_right(places, recording, offset, tolerance=SEARCH / SAMPLE_RATE):
                places.append(Place(recording, offset))
        return places


def correlate(clip: Signal, longer: Signal) -> tuple[float, int]:
    """(likeness 0 to 1, lag in samples) of `clip` where it best fits into `longer`, in either polarity.

    The normalised cross-correlation |<clip, x>| / (|clip| |x|), evaluated four times between samples.
    """
    lags = len(longer) - len(clip) + 1
    size = next_fast_len(len(longer), real=True)
    spectrum = np.conj(rfft(clip, size)) * rfft(longer, size)
    fine = irfft(spectrum, size * UPSAMPLING)[: lags * UPSAMPLING] * UPSAMPLING
    energy = np.concatenate([[0.0], np.cumsum(np.square(longer, dtype=np.float64))])
    power = energy[len(clip) :] - energy[:lags]
    loudness = float(np.sum(np.square(clip, dtype=np.float64)))
    scale = np.sqrt(loudness * np.repeat(power, UPSAMPLING))
    # what is quieter than half a quantisation step is silence, however it resembles the clip
    least = 0.5 * np.sqrt(loudness * len(clip))
    likeness = np.abs(fine) / np.maximum(scale, max(least, 1e-3 * scale.max()) + 1e-9)
    best = int(np.argmax(likeness))
    return min(float(likeness[best]), 1.0), round(best / UPSAMPLING)


def prepared(samples: Signal) -> Stored:
    """Band-limited, pre-emphasised (+6 dB per octave) and scaled to 16 bits."""
    limited = sosfilt(butter(4, BAND, "bandpass", fs=SAMPLE_RATE, output="sos"), samples)
    emphasised = np.diff(limited, prepend=0.0)
    return (emphasised * (32_000 / (np.abs(emphasised).max(initial=0.0) + 1e-9))).astype(np.int16)


def _band_edges() -> npt.NDArray[np.int_]:
    edges = np.geomspace(*BAND, BANDS + 1) * WINDOW / SAMPLE_RATE
    return edges.round().astype(int)


def _sketch(signal: Stored | Signal) -> Signal:
    """(frames, BANDS) log energies in dB, each frame cut off `DYNAMICS` below its loudest band."""
    if len(signal) < WINDOW:
        return np.zeros((0, BANDS), np.float32)
    frames = sliding_window_view(signal, WINDOW)[::HOP]
    power = np.abs(rfft(frames * np.hanning(WINDOW).astype(np.float32), axis=1)) ** 2
    bands = np.add.reduceat(power, _band_edges()[:-1], axis=1)
    decibels = 10 * np.log10(bands + 1.0)
    return np.maximum(decibels, decibels.max(axis=1, keepdims=True) - DYNAMICS).astype(np.float32)


def _standardise(patches: Signal, mean: Signal, spread: Signal) -> Signal:
    """(n, FRAMES * BANDS) of unit length: whatever its level, a patch's departure from the usual."""
    levelled = patches - patches.mean(axis=(1, 2), keepdims=True)
    flat = ((levelled - mean) / spread).reshape(len(patches), -1)
    return flat / (np.linalg.norm(flat, axis=1, keepdims=True) + np.float32(1e-6))


def _is_peak(similarity: Signal) -> npt.NDArray[np.bool_]:
    """Where (frames, clips) is no smaller than the frames before and after."""
    padded = np.pad(similarity, ((1, 1), (0, 0)), constant_values=-2.0)
    return (similarity >= padded[:-2]) & (similarity >= padded[2:])

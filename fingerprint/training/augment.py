"""What happens to copies of music, drawn at random, on many 8 kHz segments of a few seconds at once.

Sounds are torch tensors [shape=(segments, samples)] on any device, and so are the draws (`Chance`), so
that a batch can be made again where it was made. Levels are in dB, times in seconds. Rooms are those of
the corpus, simulated ones (`fingerprint.training.rooms`) or exponentially decaying noise; background is the
corpus's ambience, speech and other music, or shaped noise.

A share of the copies (`ACROSS`) is taken up across a room by a phone: a far source, others in the same room,
then the device. The others are milder, and damaged as what Earmark is calibrated on (`benchmarks.damage`,
without torch).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fingerprint.audio import SAMPLE_RATE
from fingerprint.spectrogram import BANDS, BANDS_PER_OCTAVE
from fingerprint.training.picture import resampled

ROOM = SAMPLE_RATE  # samples of the longest impulse response
ACROSS = 0.45  # share of copies that are taken up across a room
MEASURED = 0.6  # share of rooms that are of the corpus or simulated
DIRECT = 20  # samples, 2.5 ms: what of a response is direct sound


class Chance:
    """Random draws on a device, the same for the same seeds."""

    def __init__(self, device: str, *seeds: int) -> None:
        self.device = device
        self._generator = torch.Generator(device)
        seed = 0
        for part in seeds:
            seed = (seed * 1_000_003 + part) % 2**63
        self._generator.manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self._generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator, device=self.device)

    def below(self, end: Tensor | int, *shape: int) -> Tensor:
        """Whole numbers from 0, below `end` (broadcast)."""
        # in double precision: in single, places in hours of samples would be rounded, up to the end
        drawn = torch.rand(
            shape, generator=self._generator, device=self.device, dtype=torch.float64
        )
        return (drawn * end).long()

    def rows(self, probability: float, n: int) -> Tensor:
        """Which of n rows something happens to: their numbers."""
        drawn = torch.rand(n, generator=self._generator, device=self.device)
        return torch.nonzero(drawn < probability)[:, 0]

    def pick(self, weights: Tensor, n: int, again: bool = True) -> Tensor:
        """n numbers of entries of `weights`, by weight; each but once unless `again`."""
        return torch.multinomial(weights, n, replacement=again, generator=self._generator)


# Share, lowest ratio in dB of the music over it, and as many rows of it as are asked for.
Sources = tuple[tuple[float, float, Callable[[int], Tensor]], ...]


@dataclass(frozen=True)
class Background:
    """Where other sound comes from: each draws (rows, samples) of its kind, at any level."""

    music: Callable[[Chance, int, int], Tensor]
    ambience: Callable[[Chance, int, int], Tensor]
    speech: Callable[[Chance, int, int], Tensor]
    rooms: Tensor  # measured or simulated responses [shape=(n, ROOM)], from their direct sound on


def shaped_noise(chance: Chance, rows: int, n: int) -> Tensor:
    """Noise whose power falls by 0 to 6 dB an octave: white, pink (3) to brown (6)."""
    spectrum = torch.fft.rfft(chance.normal(rows, n))
    frequency = torch.arange(spectrum.shape[1], device=chance.device).clamp_min(1).log()
    fall = torch.exp(-chance.uniform(0, 1, rows, 1) * frequency)
    return torch.fft.irfft(spectrum * fall, n)


def _babble(chance: Chance, rows: int, n: int, background: Background) -> Tensor:
    """One to eight voices at once."""
    most = 8
    voices = 1 + chance.below(most, rows)
    heard = torch.arange(most, device=chance.device) < voices[:, None]
    speech = background.speech(chance, rows * most, n).reshape(rows, most, n)
    return (speech * heard[:, :, None]).sum(1)


def rooms(chance: Chance, rows: int, real: Tensor) -> Tensor:
    """Impulse responses [shape=(rows, ROOM)]: real ones, or early reflections and a tail of noise."""
    decay = 10 ** chance.uniform(math.log10(0.08), math.log10(1.2), rows, 1)  # reverberation time
    at = torch.arange(ROOM, device=chance.device)
    tail = chance.normal(rows, ROOM) * 10 ** (-3 * at / SAMPLE_RATE / decay)
    first = chance.uniform(0.002, 0.02, rows, 1) * SAMPLE_RATE
    response = tail * ((at >= first) & (at < decay * SAMPLE_RATE))
    response = response / (response.square().sum(1, keepdim=True).sqrt() + 1e-9)
    direct = 10 ** (chance.uniform(-10, 10, rows, 1) / 20)
    most = 5
    reflections = 1 + chance.below((decay * SAMPLE_RATE).clamp_max(400) - 1, rows, most)
    height = chance.uniform(-0.5, 0.5, rows, most) * direct
    height = height * (torch.arange(most, device=chance.device) < chance.below(6, rows, 1))
    response = response.scatter_add(1, reflections, height)
    response[:, 0] = direct[:, 0]
    taken = chance.rows(MEASURED if len(real) else 0.0, rows)
    response[taken] = real[chance.below(len(real), len(taken))]
    return response


def _octaves(bins: int, device: str) -> Tensor:
    """Octaves above 1 kHz of a transform's bins [shape=(bins,)]."""
    frequency = torch.linspace(0, SAMPLE_RATE / 2, bins, device=device)
    return torch.log2(frequency.clamp_min(30.0) / 1000)


def _tone(chance: Chance, rows: int, octave: Tensor) -> Tensor:
    """Gains in dB [shape=(rows, bins)]: a tilt and a few bumps."""
    gain = chance.uniform(-4, 4, rows, 1) * octave
    bumps = chance.below(4, rows, 1)
    for bump in range(3):
        height = chance.uniform(-9, 9, rows, 1) * (bump < bumps)
        distance = (octave - chance.uniform(-3, 2, rows, 1)) / chance.uniform(0.2, 1, rows, 1)
        gain = gain + height * torch.exp(-0.5 * distance.square())
    return gain


def at_speed(x: Tensor, n: int) -> Tensor:
    """Rows [shape=(rows, m)] played m / n times as fast [shape=(rows, n)], all frequencies with them."""
    if x.shape[1] == n:
        return x
    spectrum = torch.fft.rfft(x)[:, : n // 2 + 1]
    return torch.fft.irfft(spectrum, n) * (n / x.shape[1])


def toned(chance: Chance, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Recordings x and their copies y [shape=(rows, n)], half of them with another tone, alike in both."""
    n = x.shape[1]
    hit = chance.rows(0.5, len(x))
    if len(hit):
        gain = 10 ** (_tone(chance, len(hit), _octaves(n // 2 + 1, chance.device)) / 20)
        for sound in (x, y):
            sound[hit] = torch.fft.irfft(torch.fft.rfft(sound[hit]) * gain, n)
    return x, y


def with_other_music(
    chance: Chance, x: Tensor, y: Tensor, other_x: Tensor, other_y: Tensor
) -> tuple[Tensor, Tensor]:
    """Recordings x and their copies y [shape=(rows, n)], with other music in both, 0 to 12 dB quieter."""
    share = 10 ** (-chance.uniform(0, 12, len(x), 1) / 20) * level(x) / level(other_x)
    return x + share * other_x, y + share * other_y


def _equalisers(chance: Chance, rows: int, bins: int) -> Tensor:
    """Gains: a tilt and a few bumps, then with luck the band of a small loudspeaker or telephone."""
    octave = _octaves(bins, chance.device)
    gain = _tone(chance, rows, octave)
    low = chance.uniform(6, 24, rows, 1) * (chance.uniform(0, 1, rows, 1) < 0.35)
    gain = gain + low * (octave - torch.log2(chance.uniform(0.1, 0.6, rows, 1))).clamp_max(0)
    high = chance.uniform(6, 48, rows, 1) * (chance.uniform(0, 1, rows, 1) < 0.35)
    gain = gain - high * (octave - torch.log2(chance.uniform(1.5, 3.6, rows, 1))).clamp_min(0)
    return 10 ** (gain.clamp_min(-60) / 20)


def level(x: Tensor) -> Tensor:
    """Root mean square of rows [shape=(rows, 1)], never zero."""
    return x.square().mean(1, keepdim=True).sqrt() + 1e-6


def _automatic_gain(chance: Chance, x: Tensor) -> Tensor:
    """Slow levelling or fast compression: gain follows the smoothed envelope with a ratio."""
    step = 80  # samples of 10 ms
    rows, n = x.shape
    envelope = x[:, : n // step * step].unflatten(1, (-1, step)).square().mean(2).sqrt() + 1e-4
    frames = envelope.shape[1]
    width = 1 + chance.below(59, rows, 1)
    kernel = torch.exp(-torch.arange(frames, device=x.device) / width)
    kernel = kernel / kernel.sum(1, keepdim=True)
    smooth = torch.fft.irfft(
        torch.fft.rfft(envelope, 2 * frames) * torch.fft.rfft(kernel, 2 * frames), 2 * frames
    )[:, :frames].clamp_min(1e-6)
    ratio = chance.uniform(0.3, 0.9, rows, 1)
    gain = (smooth / smooth.mean(1, keepdim=True)) ** -ratio
    return x * torch.nn.functional.interpolate(gain[:, None], size=n, mode="linear")[:, 0]


def _clipped(chance: Chance, x: Tensor) -> Tensor:
    """The loudest 1 to 30 % of samples cut off."""
    magnitudes = x[:, ::7].abs().sort(1).values
    at = (chance.uniform(0.7, 0.99, len(x), 1) * magnitudes.shape[1]).long()
    ceiling = magnitudes.gather(1, at) + 1e-6
    return x.clamp(-ceiling, ceiling)


def degrade(chance: Chance, x: Tensor, background: Background) -> Tensor:
    """Copies of segments x [shape=(rows, n)] as a microphone, a codec or an editor left them."""
    across = chance.uniform(0, 1, len(x)) < ACROSS
    y = torch.empty_like(x)
    for which, damage in ((across, _across_room), (~across, _milder)):
        if which.any():
            y[which] = damage(chance, x[which], background)
    return y


def _across_room(chance: Chance, x: Tensor, background: Background) -> Tensor:
    """Far away in a room where people talk or something is going on, by a phone's microphone.

    Direct sound 15 dB under the reverberation to 6 over it; what else is in the room -12 to 12 dB under the
    music as it arrives.
    """
    rows, n = x.shape
    x = _in_rooms(x, at_distance(chance, rooms(chance, rows, background.rooms)))
    x = x / level(x)
    sources: Sources = (
        (0.35, -12, lambda count: _babble(chance, count, n, background)),
        (0.3, -12, lambda count: background.ambience(chance, count, n)),
        (0.15, -12, lambda count: shaped_noise(chance, count, n)),
        (0.15, -12, lambda count: background.speech(chance, count, n)),
        (0.05, -3, lambda count: background.music(chance, count, n)),
    )

    def elsewhere(sound: Tensor) -> Tensor:
        return _in_rooms(sound, rooms(chance, len(sound), background.rooms))

    x = _over(chance, x, sources, 12, elsewhere)
    x = _device(chance, x)
    return x * (0.1 / level(x))


def at_distance(chance: Chance, responses: Tensor) -> Tensor:
    """Responses [shape=(rows, ROOM)] whose direct sound lies -15 to 6 dB over what follows."""
    direct, rest = responses[:, :DIRECT], responses[:, DIRECT:]
    ratio = chance.uniform(-15, 6, len(responses), 1)
    gain = rest.norm(dim=1, keepdim=True) / (direct.norm(dim=1, keepdim=True) + 1e-9)
    # a response without reverberation stays as it is
    gain = torch.where(gain > 1e-3, gain * 10 ** (ratio / 20), torch.ones_like(gain))
    return torch.cat([direct * gain, rest], dim=1)


def _device(chance: Chance, x: Tensor) -> Tensor:
    """A phone: its band, then with luck automatic gain, a gate and clipping."""
    rows, n = x.shape
    octave = _octaves(n // 2 + 1, chance.device)
    gain = _tone(chance, rows, octave)
    low = chance.uniform(12, 24, rows, 1) * (chance.uniform(0, 1, rows, 1) < 0.7)
    gain = gain + low * (octave - torch.log2(chance.uniform(0.15, 0.7, rows, 1))).clamp_max(0)
    high = chance.uniform(12, 48, rows, 1) * (chance.uniform(0, 1, rows, 1) < 0.5)
    gain = gain - high * (octave - torch.log2(chance.uniform(2, 4, rows, 1))).clamp_min(0)
    x = torch.fft.irfft(torch.fft.rfft(x) * 10 ** (gain.clamp_min(-60) / 20), n)
    return _some(
        chance,
        x,
        (
            (0.6, lambda x: _automatic_gain(chance, x)),
            (0.15, lambda x: _gated(chance, x)),
            (0.15, lambda x: _clipped(chance, x)),
        ),
    )


def _gated(chance: Chance, x: Tensor) -> Tensor:
    """A noise gate: the quietest 10 to 50 % of stretches of 20 ms are 6 to 30 dB quieter."""
    step = 160
    rows, n = x.shape
    power = x[:, : n // step * step].unflatten(1, (-1, step)).square().mean(2)
    place = (chance.uniform(0.1, 0.5, rows, 1) * power.shape[1]).long()
    least = power.sort(1).values.gather(1, place)
    quieter = 10 ** (-chance.uniform(6, 30, rows, 1) / 20)
    gain = torch.where(power < least, quieter, torch.ones_like(power))
    return x * torch.nn.functional.interpolate(gain[:, None], size=n, mode="linear")[:, 0]


def _milder(chance: Chance, x: Tensor, background: Background) -> Tensor:
    """What happens to most copies: each of several changes with its own probability."""
    x = x / level(x)
    x = _some(
        chance,
        x,
        (
            (0.5, lambda x: _in_rooms(x, rooms(chance, len(x), background.rooms))),
            (0.6, lambda x: _equalised(chance, x)),
            (0.85, lambda x: _mixed(chance, x, background)),
            (0.25, lambda x: _automatic_gain(chance, x)),
            (0.15, lambda x: _clipped(chance, x)),
            # the microphone's or telephone's own response, noise included
            (0.25, lambda x: _equalised(chance, x)),
        ),
    )
    return x * (0.1 / level(x))


def _some(
    chance: Chance, x: Tensor, changes: tuple[tuple[float, Callable[[Tensor], Tensor]], ...]
) -> Tensor:
    """Rows x after changes, each of which befalls a row with its probability."""
    for probability, change in changes:
        hit = chance.rows(probability, len(x))
        if len(hit):
            x[hit] = change(x[hit])
    return x


def _in_rooms(x: Tensor, responses: Tensor) -> Tensor:
    n = x.shape[1]
    size = n + responses.shape[1]
    return torch.fft.irfft(torch.fft.rfft(x, size) * torch.fft.rfft(responses, size), size)[:, :n]


def _equalised(chance: Chance, x: Tensor) -> Tensor:
    spectrum = torch.fft.rfft(x)
    return torch.fft.irfft(spectrum * _equalisers(chance, *spectrum.shape), x.shape[1])


def _mixed(chance: Chance, x: Tensor, background: Background) -> Tensor:
    """Other sound on top, at -8 to 15 dB, other music at -3 to 15; at times hiss, too."""
    rows, n = x.shape
    x = x / level(x)
    sources: Sources = (
        (0.3, -8, lambda count: shaped_noise(chance, count, n)),
        (0.2, -8, lambda count: background.ambience(chance, count, n)),
        (0.2, -8, lambda count: _babble(chance, count, n, background)),
        (0.15, -8, lambda count: background.speech(chance, count, n)),
        (0.15, -3, lambda count: background.music(chance, count, n)),
    )
    x = _over(chance, x, sources, 15)
    hit = chance.rows(0.2, rows)
    if len(hit):
        hiss = shaped_noise(chance, len(hit), n)
        x[hit] += hiss * 10 ** (-chance.uniform(0, 25, len(hit), 1) / 20) / level(hiss)
    return x


def _over(
    chance: Chance,
    x: Tensor,
    sources: Sources,
    most: float,
    heard: Callable[[Tensor], Tensor] = lambda sound: sound,
) -> Tensor:
    """Rows x of level 1 with one of the sources each, at most `most` dB quieter, as it is `heard`."""
    kinds = chance.pick(torch.tensor([share for share, *_ in sources], device=x.device), len(x))
    for kind, (_, least, source) in enumerate(sources):
        hit = torch.nonzero(kinds == kind)[:, 0]
        if len(hit):
            other = heard(source(len(hit)))
            ratio = chance.uniform(least, most, len(hit), 1)
            x[hit] += other * 10 ** (-ratio / 20) / level(other)
    return x


def warp(chance: Chance, levels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Band levels as a rung of the ladder nearly restores them, and their tempos [shape=(rows,)].

    Between them: which bands are known, which frames inside, as `fingerprint.training.picture` has it.

    What a hypothesis leaves: tempo within 12 % and pitch within 0.6 semitone, and at times the bands
    at one edge unknown, up to an octave of them. Frame t of the levels is at t * tempo.
    """
    rows = len(levels)
    tempo = torch.exp(chance.uniform(-0.12, 0.12, rows) * (chance.uniform(0, 1, rows) < 0.6))
    bands = chance.uniform(-1.2, 1.2, rows) * (chance.uniform(0, 1, rows) < 0.6)
    picture, known, inside = resampled(levels, tempo, bands)
    unknown = (1 + chance.below(BANDS_PER_OCTAVE, rows)) * (chance.uniform(0, 1, rows) < 0.3)
    known = known & within(chance, unknown)
    return picture, known, inside, tempo


def within(chance: Chance, unknown: Tensor) -> Tensor:
    """Bands left [shape=(rows, BANDS), bool] when `unknown` of them at one edge are taken away."""
    band = torch.arange(BANDS, device=unknown.device)
    lowest = (chance.uniform(0, 1, len(unknown)) < 0.5)[:, None]
    unknown = unknown[:, None]
    return torch.where(lowest, band >= unknown, band < BANDS - unknown)

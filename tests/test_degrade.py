"""Degradations: what they do to a clip, what they say of time and pitch, and that a seed repeats them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, fftconvolve, sosfilt

from benchmarks import codecs, corpora, degrade
from benchmarks.degrade import DEGRADATIONS, RATE, Chain, Sources, rng_for

Samples = npt.NDArray[np.float32]
NO_SOURCES = Sources()


def seconds_of(rng: np.random.Generator, seconds: float) -> Samples:
    """Stereo pink noise: sound in every band."""
    channels = [degrade.pink_noise(round(seconds * RATE), rng) for _ in range(2)]
    return 0.1 * np.concatenate(channels, axis=1) / np.std(channels)


@pytest.fixture(scope="module")
def clip() -> Samples:
    return seconds_of(np.random.default_rng(1), 3.0)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Small made-up files, some shorter than a clip."""
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(2)

    def files(kind: str, seconds: float, count: int) -> tuple[Path, ...]:
        paths = [folder / f"{kind}-{i}.wav" for i in range(count)]
        for path in paths:
            sf.write(path, seconds_of(rng, seconds)[: int(seconds * RATE)], RATE)
        return tuple(paths)

    response = folder / "room.wav"
    sf.write(response, degrade.room_response(0.4, 0.0, rng), RATE)
    return Sources(
        noise=files("noise", 1.3, 3),
        speech=files("speech", 0.8, 4),
        impulse_responses=(response,),
        music=files("music", 8.0, 2),
    )


def need(name: str) -> None:
    """Skip if the program that a cell drives is not on this machine."""
    for program, marks in (("rubberband", ("tempo", "pitch", "chain")), ("sox", ("wsola",))):
        if any(mark in name for mark in marks) and not shutil.which(program):
            pytest.skip(f"{program} is not on this machine")


@pytest.mark.parametrize("name", sorted(DEGRADATIONS))
def test_the_same_seed_gives_the_same_bits_and_another_seed_stays_valid(
    name: str, clip: Samples, sources: Sources
) -> None:
    need(name)

    def damaged(seed: int) -> degrade.Degraded:
        rng = rng_for(seed, name)
        return degrade.degrade(clip, RATE, DEGRADATIONS[name].draw(rng), rng, sources)

    first, again, other = damaged(1), damaged(1), damaged(2)
    assert first.chain == again.chain
    assert np.array_equal(first.samples, again.samples)
    for result in (first, other):
        assert result.samples.dtype == np.float32
        assert result.samples.shape[1] in (1, 2)
        assert np.isfinite(result.samples).all()
        assert 0.01 < np.abs(result.samples).max() <= 1.0
        expected = len(clip) / RATE / result.tempo + result.lead
        assert len(result.samples) / result.rate == pytest.approx(expected, abs=0.01)
    assert DEGRADATIONS[name].description


def test_the_registry_has_every_cell_that_the_benchmark_promises() -> None:
    noises = [
        f"{k}{s:+d}dB" for k in ("white", "pink", "babble", "ambience") for s in (10, 5, 0, -5)
    ]
    codecs_ = ["mp3-32", "mp3-64", "mp3-128", "aac-48", "opus-16", "opus-75", "vorbis-160"]
    severities = [f"{k}-{s}" for k in ("phone", "chain") for s in ("easy", "medium", "hard")]
    assert {*noises, *codecs_, *severities} < set(DEGRADATIONS)
    assert {d.family for d in DEGRADATIONS.values()} == {
        *("clean", "codec", "telephone", "noise", "room", "phone", "across", "tone"),
        *("speed", "tempo", "pitch", "mix", "edit", "chain"),
    }


# --- time and pitch ---


def beeps(pitch: float, times: list[float], seconds: float) -> Samples:
    """Short sine bursts of one frequency (Hz) at the given times (s)."""
    signal = np.zeros(round(seconds * RATE), np.float32)
    burst = np.sin(2 * np.pi * pitch * np.arange(RATE // 10) / RATE) * np.hanning(RATE // 10)
    for time in times:
        start = round(time * RATE)
        signal[start : start + len(burst)] += 0.5 * burst[: len(signal) - start]
    return signal


def burst_times(signal: Samples) -> list[float]:
    """Centres (s) of the bursts in a mono signal."""
    loud = fftconvolve(np.abs(signal), np.hanning(RATE // 8), "same")
    edges = np.flatnonzero(np.diff((loud > 0.3 * loud.max()).astype(int)))
    return [float(a + b) / 2 / RATE for a, b in zip(edges[::2], edges[1::2], strict=True)]


def strongest(signal: Samples) -> float:
    """Frequency (Hz) of the strongest spectral line."""
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(len(signal))))
    return float(np.argmax(spectrum)) * RATE / len(signal)


TIMED = [
    n for n, d in DEGRADATIONS.items() if d.family in ("speed", "tempo", "pitch", "edit", "codec")
]


@pytest.mark.parametrize("name", [n for n in TIMED if n != "slowed+reverb"])
def test_truth_of_time_and_pitch_is_what_is_heard(name: str) -> None:
    need(name)
    times = [0.4, 1.1, 1.5, 2.6]
    # Two equal channels but for the crossed wires, which leave nothing of them in the sum.
    reference = np.stack([beeps(800.0, times, 3.5)] * 2, axis=1)
    rng = rng_for(3, name)
    result = degrade.degrade(reference, RATE, DEGRADATIONS[name].draw(rng), rng, NO_SOURCES)
    heard = result.samples[:, 0]
    centres = [(t - result.lead) * result.tempo for t in burst_times(heard)]
    assert centres == pytest.approx([t + 0.05 for t in times], abs=0.03)
    shift = 12 * np.log2(strongest(heard) / 800.0)
    assert shift == pytest.approx(result.pitch_semitones, abs=0.15)


def test_a_chain_adds_up_its_steps() -> None:
    chain = Chain((degrade.LeadingSilence(2.0), degrade.Speed(1.25), degrade.Stretch(0.8, -1.0)))
    assert chain.tempo == pytest.approx(1.0)
    assert chain.pitch_semitones == pytest.approx(12 * np.log2(1.25) - 1)
    assert chain.lead == pytest.approx(2.0)
    silent_first = Chain((degrade.LeadingSilence(2.0), degrade.Speed(1.25)))
    assert silent_first.lead == pytest.approx(1.6)


@given(seed=st.integers(0, 2**32), severity=st.sampled_from(["easy", "medium", "hard"]))
@settings(max_examples=200, deadline=None)
def test_random_chains_keep_within_their_severity(seed: int, severity: str) -> None:
    change, snr = {"easy": (0.06, 10), "medium": (0.18, 5), "hard": (0.37, 0)}[severity]
    chain = DEGRADATIONS[f"chain-{severity}"].draw(rng_for(seed))
    largest = 12 * np.log2(1 + change) + 1e-6
    assert abs(12 * np.log2(chain.tempo)) <= largest
    assert abs(chain.pitch_semitones) <= largest
    assert all(s.snr >= snr for s in chain.steps if isinstance(s, degrade.Noise))
    assert chain.steps


def test_altered_and_unaltered_chains_both_occur() -> None:
    chains = [DEGRADATIONS["chain-medium"].draw(rng_for(i)) for i in range(300)]
    altered = [c for c in chains if c.tempo != 1 or c.pitch_semitones != 0]
    assert 0.3 < len(altered) / len(chains) < 0.5


# --- single damages ---


@pytest.mark.parametrize("kind", ["white", "pink", "babble", "ambience"])
@pytest.mark.parametrize("snr", [10, 0, -5])
def test_noise_is_at_the_stated_ratio_below_4_khz(
    kind: str, snr: int, clip: Samples, sources: Sources
) -> None:
    chain = Chain((degrade.Noise(kind, snr),))
    noisy = chain.steps[0].apply(clip, rng_for(4), sources, degrade.Trace())
    lowpass = butter(8, 4_000, fs=RATE, output="sos")
    ratio = np.var(sosfilt(lowpass, clip, axis=0)) / np.var(sosfilt(lowpass, noisy - clip, axis=0))
    assert 10 * np.log10(ratio) == pytest.approx(snr, abs=0.3)


def test_pink_noise_has_the_same_power_in_every_octave() -> None:
    noise = degrade.pink_noise(RATE * 20, np.random.default_rng(5))
    power = np.abs(np.fft.rfft(noise[:, 0])) ** 2
    octaves = [power[20 * low : 40 * low].sum() for low in (100, 400, 1_600, 6_400)]
    assert 10 * np.log10(np.array(octaves) / octaves[0]) == pytest.approx(0, abs=0.7)


@pytest.mark.parametrize(("rt60", "ratio"), [(0.3, 5.0), (0.8, 0.0), (1.2, -6.0)])
def test_a_synthetic_room_has_its_decay_and_its_direct_sound(rt60: float, ratio: float) -> None:
    response = degrade.room_response(rt60, ratio, np.random.default_rng(6)).astype(float)
    # The first sample is the direct sound and the random tail's first samples are zero.
    assert 10 * np.log10(1.0 / np.sum(response[1:] ** 2)) == pytest.approx(ratio, abs=0.1)
    low = sosfilt(butter(4, 3_000, fs=RATE, output="sos"), response)
    left = 10 * np.log10(np.cumsum(low[::-1] ** 2)[::-1])  # Schroeder's integral
    start, stop = int(0.1 * len(left)) + 4_000, int(0.6 * len(left)) + 1_000
    slope = np.polyfit(np.arange(start, stop) / RATE, left[start:stop], 1)[0]
    assert -60 / slope == pytest.approx(rt60, rel=0.2)


def test_a_measured_room_does_not_move_the_music(tmp_path: Path) -> None:
    late = np.zeros(RATE, np.float32)
    late[RATE // 2] = 1.0  # half a second until the direct sound arrives
    sf.write(tmp_path / "late.wav", late, RATE, subtype="FLOAT")
    signal = beeps(800.0, [0.5], 2.0)[:, None]
    room = Sources(impulse_responses=(tmp_path / "late.wav",))
    heard = degrade.RealRoom().apply(signal, rng_for(1), room, degrade.Trace())
    assert heard == pytest.approx(signal, abs=1e-3)


def test_the_telephone_leaves_its_band_alone(clip: Samples) -> None:
    for name in ("telephone-gsm", "telephone-mulaw", "telephone-amr-12"):
        rng = rng_for(1)
        result = degrade.degrade(clip, RATE, DEGRADATIONS[name].draw(rng), rng, NO_SOURCES)
        power = np.abs(np.fft.rfft(result.mono)) ** 2
        hertz = np.fft.rfftfreq(len(result.mono), 1 / RATE)
        assert power[hertz > 4_200].sum() < 1e-4 * power.sum()
        assert power[hertz < 150].sum() < 0.05 * power.sum()


def test_compression_narrows_the_dynamics_and_clipping_flattens_the_top() -> None:
    quiet_loud = np.concatenate([0.01 * np.ones(RATE), 0.8 * np.ones(RATE)]).astype(np.float32)
    tone = (quiet_loud * np.sin(np.arange(2 * RATE) * 0.1)).astype(np.float32)[:, None]
    pressed = degrade.Compressor().apply(tone, rng_for(1), NO_SOURCES, degrade.Trace())

    def spread(x: Samples) -> float:
        return float(20 * np.log10(np.std(x[-RATE // 2 :]) / np.std(x[RATE // 4 : RATE // 2])))

    assert spread(pressed) < spread(tone) - 10
    clipped = degrade.Clipping(0.3).apply(tone, rng_for(1), NO_SOURCES, degrade.Trace())
    assert np.mean(np.abs(clipped) >= np.abs(clipped).max() * 0.999) == pytest.approx(0.3, abs=0.01)


def test_tilt_is_so_many_decibels_an_octave(clip: Samples) -> None:
    tilted = degrade.Tilt(3.0).apply(clip, rng_for(1), NO_SOURCES, degrade.Trace())
    gain = 10 * np.log10(
        np.abs(np.fft.rfft(tilted[:, 0])) ** 2 / np.abs(np.fft.rfft(clip[:, 0])) ** 2
    )
    at = [round(f * len(clip) / RATE) for f in (500, 1_000, 2_000, 4_000)]
    assert gain[at] == pytest.approx([-3, 0, 3, 6], abs=0.05)


def test_polarity_and_crossed_wires(clip: Samples) -> None:
    trace = degrade.Trace()
    assert np.array_equal(degrade.Polarity().apply(clip, rng_for(1), NO_SOURCES, trace), -clip)
    centred = clip[:, :1]
    crossed = degrade.CrossedChannel().apply(centred, rng_for(1), NO_SOURCES, trace)
    assert crossed.shape[1] == 2
    assert not crossed.sum(axis=1).any()


def test_the_other_work_is_named(clip: Samples, sources: Sources) -> None:
    rng = rng_for(8)
    result = degrade.degrade(clip, RATE, DEGRADATIONS["two-works"].draw(rng), rng, sources)
    [other] = result.mixed
    assert other.source in sources.music
    added = result.samples - clip
    expected = codecs.cut(other.source, other.offset, 3.0)[0].mean(axis=1)
    assert np.corrcoef(added[:, 0], expected[: len(added)])[0, 1] > 0.9


def test_missing_sources_are_one_clear_line(clip: Samples) -> None:
    for name in ("babble+0dB", "ambience+0dB", "room-real", "speech+0dB", "two-works"):
        rng = rng_for(1)
        with pytest.raises(degrade.DegradeError, match="fetch the corpora"):
            degrade.degrade(clip, RATE, DEGRADATIONS[name].draw(rng), rng, NO_SOURCES)


def test_a_missing_stretcher_is_one_clear_line(
    clip: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    rng = rng_for(1)
    with pytest.raises(degrade.DegradeError, match="rubberband-cli"):
        degrade.degrade(clip, RATE, DEGRADATIONS["pitch+1"].draw(rng), rng, NO_SOURCES)


# --- across a room ---


@pytest.mark.parametrize("ratio", degrade.COHERENT)
def test_what_is_coherent_across_a_room_lies_so_far_over_the_rest(
    ratio: int, clip: Samples, sources: Sources
) -> None:
    def heard(at: float) -> Samples:
        return degrade.AcrossRoom(at).apply(clip, rng_for(3), sources, degrade.Trace())

    early = heard(200.0)
    response = sf.read(sources.impulse_responses[0], dtype="float32")[0]
    response = response[np.argmax(np.abs(response)) :][: round(0.05 * RATE)]
    expected = fftconvolve(clip.mean(axis=1), response)[: len(clip)]
    assert np.corrcoef(early[:, 0], expected)[0, 1] > 0.999
    rest = heard(float(ratio)) - early
    measured = 10 * np.log10(degrade.band_power(early) / degrade.band_power(rest))
    assert measured == pytest.approx(ratio, abs=1.0)


def test_a_response_without_a_tail_leaves_music_and_what_is_going_on(
    tmp_path: Path, clip: Samples, sources: Sources
) -> None:
    click = np.zeros(RATE // 50, np.float32)
    click[0] = 1.0
    sf.write(tmp_path / "click.wav", click, RATE, subtype="FLOAT")
    dry = replace(sources, impulse_responses=(tmp_path / "click.wav",))
    heard = degrade.AcrossRoom(0.0).apply(clip, rng_for(1), dry, degrade.Trace())
    assert heard.shape == (len(clip), 1) and np.isfinite(heard).all()


# --- files ---


@pytest.mark.parametrize("codec", sorted(codecs.CODECS))
def test_a_codec_keeps_the_music_in_its_place(codec: str) -> None:
    signal = beeps(800.0, [0.4, 1.1, 1.5, 2.6], 3.5)[:, None]
    heard = codecs.through(signal, RATE, codec)
    assert heard.shape == signal.shape
    assert burst_times(heard[:, 0]) == pytest.approx([0.45, 1.15, 1.55, 2.65], abs=0.02)


@pytest.mark.parametrize("codec", [c for c in sorted(codecs.CODECS) if c != "vorbis-160"])
def test_the_same_samples_give_the_same_bytes(codec: str, clip: Samples) -> None:
    assert codecs.encode(clip, RATE, codec) == codecs.encode(clip, RATE, codec)


@pytest.mark.parametrize("codec", ["wav", "mp3-64", "aac-48", "opus-75", "vorbis-160"])
def test_clips_are_cut_where_asked_from_any_format(codec: str, tmp_path: Path) -> None:
    signal = np.stack([beeps(800.0, [1.0, 4.25, 6.0], 8.0)] * 2, axis=1)
    source = codecs.write(tmp_path / f"source{codecs.CODECS[codec].suffix}", signal, RATE, codec)
    path = codecs.write_clip(source, 3.0, 2.0, tmp_path / "clip.mp3")
    heard, rate = codecs.decode(path.read_bytes())
    assert rate in (44_100, 48_000)
    assert len(heard) / rate == pytest.approx(2.0, abs=0.05)
    loudest = np.argmax(np.convolve(np.abs(heard[:, 0]), np.ones(rate // 20), "same")) / rate
    assert loudest == pytest.approx(1.3, abs=0.03)


def test_a_cut_beyond_the_end_is_refused(tmp_path: Path, clip: Samples) -> None:
    path = codecs.write(tmp_path / "a.wav", clip, RATE)
    assert len(codecs.cut(path, 2.5, 2.0)[0]) == pytest.approx(RATE / 2)
    with pytest.raises(ValueError, match="no sound at"):
        codecs.cut(path, 3.5, 1.0)


def test_make_clip_takes_in_as_much_of_the_reference_as_it_plays(
    tmp_path: Path, clip: Samples
) -> None:
    path = codecs.write(tmp_path / "a.wav", clip, RATE)
    result = degrade.make_clip(path, 0.1, 2.0, "speed+20%", rng_for(1), NO_SOURCES)
    assert len(result.samples) / RATE == pytest.approx(2.0, abs=0.01)
    assert result.tempo == 1.2


@pytest.mark.parametrize("pool", ["noise", "speech", "impulse_responses", "music"])
def test_the_report_split_has_something_of_every_kind(
    pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_file", lambda _path: True)
    assert getattr(Sources.from_corpora("report"), pool)


def test_real_sounds_of_the_report_split_can_be_mixed_in(clip: Samples) -> None:
    real = Sources.from_corpora("report", music=[i.path for i in corpora.items("smoke")])
    for name in ("babble+0dB", "ambience+0dB", "room-real", "two-works", "phone-hard"):
        rng = rng_for(9, name)
        try:
            result = degrade.degrade(clip, RATE, DEGRADATIONS[name].draw(rng), rng, real)
        except degrade.DegradeError as error:
            pytest.skip(str(error))
        assert np.isfinite(result.samples).all()

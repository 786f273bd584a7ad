"""Decoding: what comes out of the files that people have, and what is said of those that are none."""

import io
import os
import pickle
import random
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import resample_poly

from fingerprint.audio import SAMPLE_RATE, AudioStream, Limits, open_audio, read_audio
from fingerprint.errors import AudioError

Signal = NDArray[np.float32]

TAGS = {
    "title": "Ein Stück",
    "artist": "Zoë & Łukasz",
    "isrc": "DEA120000001",
    "label": "Ohrmarke",
    "release_date": "2021-03-04",
}


def music(seconds: float = 2.0, rate: int = 44100, channels: int = 2, seed: int = 0) -> Signal:
    """A chord under slow pink-like noise [shape=(n, channels)], all below 3.4 kHz, unlike itself
    at any lag."""
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    spectrum = np.fft.rfft(rng.standard_normal((n, 1 + channels)), axis=0)
    frequency = np.fft.rfftfreq(n, 1 / rate)[:, None]
    spectrum *= (frequency > 200) & (frequency < min(3400, 0.45 * rate))
    spectrum /= np.sqrt(np.maximum(frequency, 200))
    common, *own = np.fft.irfft(spectrum, n, axis=0).T
    signal = common[:, None] + 0.3 * np.array(own).T
    return (0.25 * signal / max(np.abs(signal).max(), 1e-9)).astype(np.float32)


def encode(
    path: Path,
    signal: Signal,
    rate: int,
    codec: str,
    *,
    layout: str = "stereo",
    tags: dict[str, str] | None = None,
    video: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write `signal` [shape=(n, channels)] with libav's encoders, with moving pictures if asked."""
    with av.open(str(path), "w", options=options or {}) as container:
        pictures: Any = container.add_stream(video, rate=10) if video else None
        track: Any = container.add_stream(codec, rate=rate, layout=layout)
        track.bit_rate = 160_000
        container.metadata.update(tags or {})
        if pictures is not None:
            pictures.width = pictures.height = 64
            pictures.pix_fmt = "yuv420p"
            for i in range(5):
                picture = np.full((64, 64, 3), 40 * i, np.uint8)
                container.mux(pictures.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            container.mux(pictures.encode(None))
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(signal.reshape(1, -1)), "flt", layout
        )
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return path


def wav(signal: Signal, rate: int, subtype: str = "FLOAT") -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, signal, rate, subtype, format="WAV")
    return buffer.getvalue()


def expected(signal: Signal, rate: int) -> NDArray[np.float64]:
    """The plain mean at 8 kHz, by SciPy."""
    ratio = Fraction(SAMPLE_RATE, rate)
    return resample_poly(signal.mean(axis=1, dtype=np.float64), ratio.numerator, ratio.denominator)


def agreement(sound: Signal, reference: NDArray[np.float64]) -> tuple[float, float]:
    """Correlation at the lag (a fraction of a sample) that fits best, and that lag in seconds."""
    n = 1 << (len(sound) + len(reference)).bit_length()
    spectrum = np.fft.rfft(sound, n) * np.conj(np.fft.rfft(reference, n))
    finer = 16
    correlation = finer * np.fft.irfft(spectrum, finer * n)
    best = int(np.argmax(correlation))
    scale = float(np.linalg.norm(sound) * np.linalg.norm(reference))
    lag = best if best < finer * n // 2 else best - finer * n
    return correlation[best] / scale, lag / (finer * SAMPLE_RATE)


def refusal(source: str | Path | BinaryIO, limits: Limits | None = None) -> AudioError:
    with pytest.raises(AudioError) as caught:
        read_audio(source, limits or Limits())
    error = caught.value
    assert str(error) == error.detail
    assert error.detail.isprintable()
    return error


@pytest.mark.parametrize(
    ("file", "codec", "rate", "fidelity"),
    [
        ("a.wav", "pcm_s16le", 44100, 0.9999),
        ("a.aiff", "pcm_s16be", 44100, 0.9999),
        ("a.flac", "flac", 44100, 0.9999),
        ("a.m4a", "alac", 44100, 0.9999),
        ("a.wv", "wavpack", 44100, 0.9999),
        ("a.mp3", "libmp3lame", 44100, 0.98),
        ("a.opus", "libopus", 48000, 0.98),
        ("a.m4a", "aac", 44100, 0.98),
        ("a.aac", "aac", 44100, 0.98),
        ("a.wma", "wmav2", 44100, 0.98),
        ("a.mka", "ac3", 48000, 0.98),
    ],
)
def test_formats(tmp_path: Path, file: str, codec: str, rate: int, fidelity: float) -> None:
    signal = music(rate=rate)
    sound = read_audio(encode(tmp_path / file, signal, rate, codec))
    correlation, lag = agreement(sound, expected(signal, rate))
    assert correlation > fidelity
    assert abs(lag) <= 0.06  # encoders' priming, where the container does not say
    assert abs(len(sound) - 2 * SAMPLE_RATE) <= 0.12 * SAMPLE_RATE
    assert sound.dtype == np.float32


@pytest.mark.parametrize(
    "format", ["WAV", "RF64", "W64", "AIFF", "CAF", "AU", "FLAC", "OGG", "MP3"]
)
def test_files_written_by_libsndfile(tmp_path: Path, format: str) -> None:
    path = tmp_path / "clip"  # what a file is called says nothing
    signal = music()
    sf.write(path, signal, 44100, format=format)
    sound = read_audio(path)
    assert agreement(sound, expected(signal, 44100))[0] > (
        0.98 if format in ("OGG", "MP3") else 0.9999
    )
    assert abs(len(sound) - 2 * SAMPLE_RATE) <= 0.03 * SAMPLE_RATE


@pytest.mark.parametrize(
    ("file", "video", "codec", "rate"),
    [
        ("a.mp4", "mpeg4", "aac", 44100),
        ("a.webm", "libvpx", "libopus", 48000),
        ("a.mkv", "mpeg4", "flac", 44100),
        ("a.avi", "mpeg4", "libmp3lame", 44100),
    ],
)
def test_sound_tracks_of_videos(
    tmp_path: Path, file: str, video: str, codec: str, rate: int
) -> None:
    signal = music(rate=rate)
    sound = read_audio(encode(tmp_path / file, signal, rate, codec, video=video))
    assert agreement(sound, expected(signal, rate))[0] > 0.98


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"]
)
def test_sample_formats_share_one_full_scale(subtype: str) -> None:
    signal = music(0.5)
    sound = read_audio(io.BytesIO(wav(signal, 44100, subtype)))
    reference = expected(signal, 44100)
    assert len(sound) == len(reference)
    np.testing.assert_allclose(sound[100:-100], reference[100:-100], atol=0.02)


@pytest.mark.parametrize("rate", [7350, 8000, 11025, 22050, 32000, 44100, 48000, 96000, 192000])
def test_resampling_agrees_with_scipy(rate: int) -> None:
    signal = music(1.0, rate)
    sound = read_audio(io.BytesIO(wav(signal, rate)))
    reference = expected(signal, rate)
    assert abs(len(sound) - len(reference)) <= 1
    middle = slice(200, 7800)
    error = sound[middle] - reference[middle]
    assert np.sqrt((error**2).mean()) < 0.01 * np.sqrt((reference[middle] ** 2).mean())


@pytest.mark.parametrize("frequency", [240, 1000, 3000, 3600, 3730])
def test_bands_pass_unchanged(frequency: float) -> None:
    t = np.arange(2 * 44100) / 44100
    tone = np.sin(2 * np.pi * frequency * t).astype(np.float32)
    sound = read_audio(io.BytesIO(wav(tone[:, None], 44100)))[2000:-2000]
    assert abs(20 * np.log10(np.sqrt(2) * sound.std())) < 0.3


@pytest.mark.parametrize("frequency", [4300, 5000, 8000, 12345])
def test_what_lies_above_is_not_folded_back(frequency: float) -> None:
    t = np.arange(2 * 44100) / 44100
    tone = np.sin(2 * np.pi * frequency * t).astype(np.float32)
    sound = read_audio(io.BytesIO(wav(tone[:, None], 44100)))[2000:-2000]
    assert sound.std() < 1e-4


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 10, 32])
def test_any_channel_count(channels: int) -> None:
    signal = music(1.0, channels=channels)
    sound = read_audio(io.BytesIO(wav(signal, 44100)))
    reference = expected(signal, 44100)
    np.testing.assert_allclose(sound[100:-100], reference[100:-100], atol=1e-3)


@pytest.mark.parametrize("channels", [6, 10])
def test_many_channels_of_a_lossy_format(channels: int) -> None:
    buffer = io.BytesIO()
    signal = music(1.0, channels=channels)
    sf.write(buffer, signal, 44100, format="OGG", subtype="VORBIS")
    assert agreement(read_audio(buffer), expected(signal, 44100))[0] > 0.95


def test_inverted_channel_does_not_cancel_the_music(tmp_path: Path) -> None:
    mono = music(2.0, channels=1)
    path = encode(tmp_path / "a.mp3", np.hstack([mono, -mono]), 44100, "libmp3lame")
    sound = read_audio(path)
    reference = expected(mono, 44100)
    assert max(agreement(sound, reference)[0], agreement(-sound, reference)[0]) > 0.98
    assert np.linalg.norm(sound) == pytest.approx(np.linalg.norm(reference), rel=0.1)


@given(seconds=st.floats(0.0, 5.0), rate=st.sampled_from([8000, 11025, 44100, 48000]))
@settings(max_examples=15, deadline=None)
def test_decoders_block_size_makes_no_difference(seconds: float, rate: int) -> None:
    """FLAC comes in frames of one length, WAV in others, AIFF in yet others."""
    signal = (2**15 * music(max(seconds, 0.01), rate)).astype(np.int16)
    signal[:, 1] *= np.where(np.arange(len(signal)) > rate, -1, 1).astype(np.int16)
    sounds = []
    for format in ("WAV", "FLAC", "AIFF"):
        buffer = io.BytesIO()
        sf.write(buffer, signal, rate, "PCM_16", format=format)
        sounds.append(read_audio(buffer))
    np.testing.assert_array_equal(sounds[0], sounds[1])
    np.testing.assert_array_equal(sounds[0], sounds[2])


def test_long_files_come_in_small_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    sf.write(path, np.zeros((60 * 44100, 2), np.int16), 44100)
    with open_audio(path) as stream:
        lengths = [len(block) for block in stream.blocks()]
    assert sum(lengths) == 60 * SAMPLE_RATE
    assert max(lengths) < 2 * SAMPLE_RATE


def test_change_of_format_within_a_file(tmp_path: Path) -> None:
    """Radio streams and joined MP3 files switch rate and channels on their way."""
    first, second = tmp_path / "1.mp3", tmp_path / "2.mp3"
    sf.write(first, music(1.0), 44100)
    sf.write(second, music(1.0, 22050, 1), 22050)
    sound = read_audio(io.BytesIO(first.read_bytes() + second.read_bytes()))
    assert abs(len(sound) - 2 * SAMPLE_RATE) < 0.2 * SAMPLE_RATE
    assert sound[-6000:].std() > 0.01


def test_numbers_that_are_none_count_as_silence() -> None:
    signal = music(0.5)
    damaged = signal.copy()
    damaged[5000:5100] = np.nan
    damaged[6000, 0], damaged[6001, 1], damaged[7000] = np.inf, -np.inf, 3e38
    signal[5000:5100] = signal[7000] = signal[6000, 0] = signal[6001, 1] = 0
    np.testing.assert_array_equal(
        read_audio(io.BytesIO(wav(damaged, 44100))), read_audio(io.BytesIO(wav(signal, 44100)))
    )


def test_file_objects() -> None:
    data = wav(music(0.5), 44100)
    file = io.BytesIO(data)
    file.seek(1000)  # as an upload that somebody looked at before
    sound = read_audio(file)
    assert len(sound) == SAMPLE_RATE // 2
    assert not file.closed
    with open_audio(file) as stream:
        assert isinstance(stream, AudioStream)


def test_pipes() -> None:
    data = wav(music(2.0), 44100)
    receiver, sender = os.pipe()

    def send() -> None:
        with os.fdopen(sender, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=send)
    thread.start()
    with os.fdopen(receiver, "rb") as pipe:
        sound = read_audio(pipe)
    thread.join()
    np.testing.assert_array_equal(sound, read_audio(io.BytesIO(data)))


def test_wav_of_unknown_length() -> None:
    """Programs that write WAV to a pipe cannot know its length, and state the largest there is."""
    data = bytearray(wav(music(0.5), 44100, "PCM_16"))
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = b"\xff\xff\xff\xff"
    assert len(read_audio(io.BytesIO(data))) == SAMPLE_RATE // 2


def test_sound_of_no_length_is_no_error() -> None:
    empty = io.BytesIO(wav(np.zeros((0, 2), np.float32), 44100))
    with open_audio(empty) as stream:
        assert list(stream.blocks()) == []
    assert read_audio(empty).shape == (0,)


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_cut_off_files_give_what_they_have(format: str) -> None:
    buffer = io.BytesIO()
    signal = music(4.0)
    sf.write(buffer, signal, 44100, format=format)
    sound = read_audio(io.BytesIO(buffer.getvalue()[: len(buffer.getvalue()) * 6 // 10]))
    assert SAMPLE_RATE < len(sound) < 3 * SAMPLE_RATE
    assert agreement(sound, expected(signal, 44100)[: len(sound)])[0] > 0.97


def test_damage_in_the_middle_costs_only_its_surroundings() -> None:
    buffer = io.BytesIO()
    sf.write(buffer, music(6.0), 44100, format="FLAC")
    data = bytearray(buffer.getvalue())
    middle = len(data) // 2
    data[middle : middle + 3000] = random.Random(0).randbytes(3000)
    assert len(read_audio(io.BytesIO(data))) > 5 * SAMPLE_RATE


@pytest.mark.parametrize(
    ("file", "codec", "rate", "options"),
    [
        ("a.mp3", "libmp3lame", 44100, None),
        ("a.flac", "flac", 44100, None),
        ("a.opus", "libopus", 48000, None),
        ("a.m4a", "aac", 44100, {"movflags": "use_metadata_tags"}),
        ("a.mka", "flac", 44100, None),
        ("a.wma", "wmav2", 44100, None),
    ],
)
def test_tags(
    tmp_path: Path, file: str, codec: str, rate: int, options: dict[str, str] | None
) -> None:
    names = {"release_date": "date"}
    if file == "a.mp3":
        names |= {"isrc": "TSRC", "label": "publisher"}
    tags = {names.get(key, key): value for key, value in TAGS.items()}
    path = encode(tmp_path / file, music(0.5, rate), rate, codec, tags=tags, options=options)
    with open_audio(path) as stream:
        assert stream.tags == TAGS


def test_tags_in_a_legacy_encoding(tmp_path: Path) -> None:
    """WAV's tags are in whatever the writer's code page was."""
    path = encode(tmp_path / "a.wav", music(0.1), 44100, "pcm_s16le", tags={"title": "Caf? Z?e"})
    data = path.read_bytes().replace(b"Caf? Z?e", "Café Zöe".encode("cp1252"))
    with open_audio(io.BytesIO(data)) as stream:
        assert stream.tags == {"title": "Café Zöe"}


def test_wav_source_chunk_is_no_isrc(tmp_path: Path) -> None:
    info = b"INFOISRC" + (8).to_bytes(4, "little") + b"My tape\0"
    data = wav(music(0.1), 44100, "PCM_16") + b"LIST" + len(info).to_bytes(4, "little") + info
    data = data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]
    with open_audio(io.BytesIO(data)) as stream:
        assert stream.tags == {}


def test_isrc_with_hyphens(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.flac", music(0.1), 44100, "flac", tags={"ISRC": "de-a12-00-00001"})
    with open_audio(path) as stream:
        assert stream.tags == {"isrc": "DEA120000001"}


def test_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.mp3").type == "not-found"
    assert refusal(str(tmp_path / "none.mp3")).type == "not-found"
    assert refusal("a\0b").type == "not-found"
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file" / "a.mp3").type == "not-found"


def test_what_is_no_sound_file(tmp_path: Path) -> None:
    empty, text, noise = tmp_path / "empty.mp3", tmp_path / "text.mp3", tmp_path / "noise.mp3"
    empty.touch()
    text.write_text("It was a dark and stormy night.\n" * 500)
    noise.write_bytes(random.Random(1).randbytes(50_000))
    for path in (tmp_path, empty, text, noise):
        error = refusal(path)
        assert error.type == "undecodable"
        assert str(path) in error.detail


def test_a_file_that_leads_libsndfile_before_its_start_is_refused_quietly(
    capfd: pytest.CaptureFixture[str],
) -> None:
    cut_off = b"FORM\0\0d>AIFFNAME\0\0\0\x08A title\0COMM\0\0\0\x12\0\1"
    assert refusal(io.BytesIO(cut_off)).type == "undecodable"
    assert capfd.readouterr() == ("", "")


def test_devices_are_not_waited_for() -> None:
    assert refusal(os.devnull).type == "undecodable"


def test_file_name_of_two_lines_stays_on_one() -> None:
    assert "\n" not in str(refusal("no\nsuch\x1b[31mfile"))


def test_video_without_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        pictures: Any = container.add_stream("mpeg4", rate=10)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        container.mux(pictures.encode(picture))
        container.mux(pictures.encode(None))
    error = refusal(path)
    assert error.type == "undecodable"
    assert "no sound track" in error.detail


@pytest.mark.parametrize("format", ["FLAC", "OGG", "MP3"])
def test_files_cut_off_before_any_sound(format: str) -> None:
    buffer = io.BytesIO()
    sf.write(buffer, music(1.0), 44100, format=format)
    assert refusal(io.BytesIO(buffer.getvalue()[:90])).type == "undecodable"


def test_playlists_open_nothing(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", music(0.5), 44100)
    (tmp_path / "a.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/a.wav\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "a.txt").write_text(f"ffconcat version 1.0\nfile '{tmp_path}/a.wav'\n")
    assert refusal(tmp_path / "a.m3u8").type == "undecodable"
    assert refusal(tmp_path / "a.txt").type == "undecodable"


def test_too_long_by_its_header() -> None:
    data = wav(music(2.0), 44100)
    with pytest.raises(AudioError) as caught:
        open_audio(io.BytesIO(data), Limits(max_seconds=1.5))
    assert caught.value.type == "too-long"
    assert len(read_audio(io.BytesIO(data), Limits(max_seconds=2.0))) == 2 * SAMPLE_RATE


def test_too_long_in_spite_of_its_header(tmp_path: Path) -> None:
    """ADTS states no length: decoding stops at the limit, however much is behind it."""
    path = encode(tmp_path / "a.aac", music(5.0), 44100, "aac")
    with open_audio(path, Limits(max_seconds=3.0)) as stream:
        heard = 0
        with pytest.raises(AudioError) as caught:
            for block in stream.blocks():
                heard += len(block)
    assert caught.value.type == "too-long"
    assert heard <= 3 * SAMPLE_RATE


def test_too_large(tmp_path: Path) -> None:
    data = wav(music(1.0), 44100)
    (tmp_path / "a.wav").write_bytes(data)

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    limits = Limits(max_bytes=len(data) - 1)
    pipe = Pipe(data + bytes(10_000_000))
    for source in (tmp_path / "a.wav", io.BytesIO(data), pipe):
        assert refusal(source, limits).type == "too-large"
    assert pipe.tell() == len(data)  # read no further than needed
    assert len(read_audio(Pipe(data), Limits(max_bytes=len(data)))) == SAMPLE_RATE


def test_source_that_fails_while_being_read() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if 3_000_000 < self.tell() < 5_000_000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    data = wav(music(20.0), 44100)
    assert SAMPLE_RATE < len(read_audio(Broken(data))) < 15 * SAMPLE_RATE


def test_errors_survive_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(AudioError("too-long", "a.mp3: is too long")))
    assert (error.type, error.detail) == ("too-long", "a.mp3: is too long")


def test_damaged_files_end_in_sound_or_in_one_quiet_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bytes changed, cut out and doubled, in every container; nothing else escapes, not even noise
    of the decoders on standard error."""
    stereo = music(0.4)
    originals = []
    for format in ("WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF"):
        sf.write(tmp_path / "a", stereo, 44100, format=format)
        originals.append((tmp_path / "a").read_bytes())
    wide = music(0.4, 48000)
    for file, codec, video in [
        ("a.m4a", "aac", None),
        ("b.m4a", "alac", None),
        ("a.wma", "wmav2", None),
        ("a.opus", "libopus", None),
        ("a.wv", "wavpack", None),
        ("a.mp4", "aac", "mpeg4"),
        ("a.webm", "libopus", "libvpx"),
        ("a.mkv", "libmp3lame", "mpeg4"),
    ]:
        path = encode(tmp_path / file, wide, 48000, codec, video=video, tags=TAGS)
        originals.append(path.read_bytes())

    chance = random.Random(20)
    for original in originals:
        for _ in range(25):
            data = bytearray(original)
            for _ in range(chance.choice([1, 3, 10, 100])):
                # Half of the damage goes to the headers, where it hurts most.
                span = chance.choice([min(600, len(data)), len(data)])
                data[chance.randrange(span)] = chance.choice([0, 255, chance.randrange(256)])
            start = chance.randrange(len(data))
            change = chance.choice(["none", "none", "cut", "remove", "double"])
            if change == "cut":
                del data[start:]
            elif change == "remove":
                del data[start : start + chance.randrange(1000)]
            elif change == "double":
                data[start:start] = data[start : start + chance.randrange(1000)]
            try:
                sound = read_audio(io.BytesIO(data), Limits(max_seconds=60.0))
            except AudioError as error:
                assert error.type in ("undecodable", "too-long")
            else:
                assert np.isfinite(sound).all()
    assert capfd.readouterr() == ("", "")

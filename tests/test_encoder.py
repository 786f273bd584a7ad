"""The encoder computes the convolutions it was trained as; codes keep what matters of embeddings."""

import dataclasses

import numpy as np
import pytest
import scipy.signal

from fingerprint.codec import Codec
from fingerprint.convolution import Layer, convolve
from fingerprint.encoder import SHIPPED, Encoder, EncoderError
from fingerprint.spectrogram import BANDS


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load()


def plain_layer(x: np.ndarray, layer: Layer, channels: int) -> np.ndarray:
    """One layer by SciPy's correlation, channel by channel: x [shape=(time, band, channel)]."""
    kernel = layer.weight.reshape(layer.time, layer.band, channels, -1).astype(np.float64)
    padded = np.pad(x, ((0, 0), (layer.band_padding,) * 2, (0, 0)))
    maps = [
        sum(
            scipy.signal.correlate(padded[:, :, c], kernel[:, :, c, o], mode="valid")
            for c in range(channels)
        )
        for o in range(kernel.shape[3])
    ]
    out = np.stack(maps, axis=2)[:: layer.time_stride, :: layer.band_stride] + layer.bias
    return np.maximum(out, 0) if layer.rectify else out


def random_encoder(geometries) -> Encoder:
    rng = np.random.default_rng(0)
    layers, channels = [], 1
    for time, time_stride, band, band_stride, padding, rectify, outputs in geometries:
        weight = rng.standard_normal((time * band * channels, outputs)).astype(np.float32)
        bias = rng.standard_normal(outputs).astype(np.float32)
        layers.append(Layer(time, time_stride, band, band_stride, padding, rectify, weight, bias))
        channels = outputs
    codec = Codec(np.eye(8, 4, dtype=np.float32), np.zeros((2, 2, 16, 2), np.float32))
    return Encoder(layers, codec, "random", np.zeros(4, np.float32), np.eye(4, dtype=np.float32))


SMALL = [
    (3, 2, 3, 2, 1, True, 3),
    (2, 1, 3, 4, 1, True, 5),
    (3, 1, 12, 1, 0, True, 6),
    (1, 1, 1, 1, 0, False, 4),
]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("frames", [10, 11, 40, 203])
def test_embeddings_are_plain_convolutions_of_length_one(frames, every):
    encoder = random_encoder(SMALL)
    picture = np.random.default_rng(1).standard_normal((frames, BANDS)).astype(np.float32)
    x, channels = picture[:, :, None].astype(np.float64), 1
    for layer in encoder.layers:
        x = plain_layer(x, layer, channels)
        channels = x.shape[2]
    expected = x[::every, 0]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    got = encoder.embed(picture, every)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < 1e-4


def test_the_shipped_encoder_is_the_same_in_pieces_and_alone(encoder):
    picture = np.random.default_rng(2).standard_normal((6000, BANDS)).astype(np.float32)
    dense, sparse = encoder.embed(picture), encoder.embed(picture, 5)
    assert np.abs(dense[::5][: len(sparse)] - sparse).max() < 1e-4
    for k in (0, 700, len(dense) - 1):
        window = picture[k * encoder.hop : k * encoder.hop + encoder.window]
        assert np.abs(encoder.embed(window)[0] - dense[k]).max() < 1e-4
    assert np.allclose(np.linalg.norm(dense, axis=1), 1, atol=1e-4)


def test_too_short_for_a_window_gives_nothing(encoder):
    for frames in (0, 1, encoder.window - 1):
        assert encoder.embed(np.zeros((frames, BANDS), np.float32)).shape == (0, encoder.dimension)


def test_ten_embeddings_a_second_densest(encoder):
    assert encoder.step == pytest.approx(0.1)


def test_weights_ship_small(encoder):
    assert SHIPPED.stat().st_size < 4_000_000
    assert len(encoder.id) == 16


def test_another_front_end_or_a_damaged_file_is_refused(encoder, tmp_path):
    data = SHIPPED.read_bytes()
    other = tmp_path / "other.safetensors"
    other.write_bytes(data.replace(b'"hop\\": 200', b'"hop\\": 100', 1))
    with pytest.raises(EncoderError, match="another spectrogram"):
        Encoder.load(other)
    without = data.replace(b"front_end", b"front_and", 1)
    for content in (b"", data[: len(data) // 2], b"not weights at all", without):
        other.write_bytes(content)
        with pytest.raises(EncoderError, match=r"other\.safetensors"):
            Encoder.load(other)
    with pytest.raises(EncoderError, match="missing"):
        Encoder.load(tmp_path / "missing.safetensors")


def test_any_change_of_the_weights_changes_the_id(encoder, tmp_path):
    data = bytearray(SHIPPED.read_bytes())
    data[-1] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(data)
    assert Encoder.load(tmp_path / "changed.safetensors").id != encoder.id


def test_codes_name_the_nearest_entries():
    rng = np.random.default_rng(3)
    codec = Codec(
        rng.standard_normal((20, 8)).astype(np.float32),
        0.3 * rng.standard_normal((4, 2, 16, 2)).astype(np.float32),
    )
    x = rng.standard_normal((50, 8)).astype(np.float32)
    lists, codes = codec.encode(x)
    decoded = codec.decode(lists, codes)
    for i in range(len(x)):
        nearest = np.argmin(np.sum((codec.coarse - x[i]) ** 2, axis=1))
        assert lists[i] == nearest
        rest = x[i] - codec.coarse[nearest]
        for s in range(4):
            high, low = codec.books[s]
            entries = [high[byte >> 4] + low[byte & 15] for byte in range(256)]
            distances = np.sum((np.array(entries) - rest[2 * s : 2 * s + 2]) ** 2, axis=1)
            assert codes[i, s] == np.argmin(distances)
        entries = [
            codec.books[s, 0, c >> 4] + codec.books[s, 1, c & 15] for s, c in enumerate(codes[i])
        ]
        named = codec.coarse[nearest] + np.concatenate(entries)
        assert np.allclose(decoded[i], named / np.linalg.norm(named), atol=1e-6)


def test_what_codes_leave_of_embeddings_has_their_length_and_silence_has_none(encoder):
    rng = np.random.default_rng(4)
    x = encoder.embed(rng.standard_normal((400, BANDS)).astype(np.float32))
    lists, codes = encoder.codec.encode(np.concatenate([x, np.zeros_like(x[:1])]))
    lengths = np.linalg.norm(encoder.codec.decode(lists, codes), axis=1)
    assert np.allclose(lengths[:-1], 1, atol=1e-5)
    assert lengths[-1] == 0


def test_it_computes_what_the_model_in_torch_does(encoder):
    torch = pytest.importorskip(
        "torch", reason="torch is not installed: pip install earmark[training]"
    )
    from fingerprint.training.export import layers_of
    from fingerprint.training.model import Encoder as Model
    from fingerprint.training.model import start_from

    model = Model()
    start_from(model, encoder.layers)
    assert len(layers_of(model)) == len(encoder.layers)
    picture = np.random.default_rng(5).standard_normal((encoder.window + 40, BANDS))
    picture = picture.astype(np.float32)
    windows = [picture[at : at + encoder.window] for at in range(0, 41, encoder.hop)]
    with torch.no_grad():
        expected = model(torch.from_numpy(np.stack(windows))).numpy()
    assert np.abs(encoder.embed(picture) - expected).max() < 1e-3


def test_codebooks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        Codec(np.zeros((4, 8), np.float32), np.zeros((3, 2, 16, 2), np.float32))


def test_layers_are_immutable(encoder):
    with pytest.raises(dataclasses.FrozenInstanceError):
        encoder.layers[0].time = 5


@pytest.mark.parametrize("taps", [2, 3, 4, 5])
@pytest.mark.parametrize("frames", [5, 6, 7, 11, 29])
def test_products_shared_by_neighbouring_outputs_add_up_to_the_plain_convolution(taps, frames):
    (layer,) = random_encoder([(taps, 1, 3, 2, 1, True, 5)]).layers
    x = np.random.default_rng(frames).standard_normal((frames, 9, 1)).astype(np.float32)
    assert np.abs(convolve(x, layer, 1) - plain_layer(x, layer, 1)).max() < 1e-4

"""What training sees, in torch, is what Earmark computes without it."""

import csv

import numpy as np
import pytest

from fingerprint import hypotheses, spectrogram
from fingerprint.encoder import SHIPPED, Encoder
from fingerprint.spectrogram import BANDS

torch = pytest.importorskip("torch", reason="torch is not installed: pip install earmark[training]")

from fingerprint.training import (  # noqa: E402
    augment,
    batches,
    picture,
    train,
)
from fingerprint.training.augment import (  # noqa: E402
    DIRECT,
    ROOM,
    Background,
    Chance,
    at_distance,
    at_speed,
    degrade,
    warp,
)
from fingerprint.training.batches import WINDOWS, Corpus  # noqa: E402
from fingerprint.training.export import layers_of  # noqa: E402
from fingerprint.training.model import mean_of  # noqa: E402


@pytest.fixture
def sound():
    rng = np.random.default_rng(1)
    quiet = np.concatenate([np.full(9000, 0.01), np.full(15000, 1.0)])
    return (rng.standard_normal((2, 24000)) * 0.1 * quiet).astype(np.float32)


def noise(chance, rows, n):
    return chance.normal(rows, n)


def test_spectrograms_are_the_same(sound):
    many = picture.spectrogram(torch.from_numpy(sound)).numpy()
    for one, x in zip(many, sound, strict=True):
        assert np.abs(one - spectrogram.spectrogram(x)).max() < 2e-3


@pytest.mark.parametrize("tempo", [0.9, 1.0, 1.1])
@pytest.mark.parametrize("pitch", [-0.5, 0.0, 0.4])
def test_resampled_pictures_are_the_same(sound, tempo, pitch):
    levels = spectrogram.band_levels(sound[0])
    expected = hypotheses.restore(levels, hypotheses.Hypothesis(tempo, pitch))
    bands = torch.tensor([pitch * hypotheses.BANDS_PER_SEMITONE])
    made, known, inside = picture.resampled(
        torch.from_numpy(levels)[None], torch.tensor([tempo]), bands
    )
    restored = picture.normalise(made, known, inside)[0, inside[0]].numpy()
    assert restored.shape == expected.shape
    assert np.abs(restored - expected).max() < 5e-3


def test_a_sound_that_is_played_faster_is_as_much_higher():
    seconds = torch.arange(10_000) / 8000
    slow, fast = torch.sin(2 * torch.pi * 800 * seconds)[None], torch.arange(8000) / 8000
    played = at_speed(slow, 8000)
    inside = slice(200, -200)  # what goes round at the ends
    expected = torch.sin(2 * torch.pi * 1000 * fast)[None]
    assert (played - expected)[:, inside].abs().max() < 1e-2


def test_the_same_seeds_draw_the_same_damage(sound):
    background = Background(noise, noise, noise, torch.zeros(0, 8000))
    x = torch.from_numpy(np.tile(sound, (16, 1)))
    once, again = (degrade(Chance("cpu", 3, 4), x, background) for _ in range(2))
    other = degrade(Chance("cpu", 3, 5), x, background)
    assert torch.equal(once, again) and not torch.equal(once, other)
    assert torch.isfinite(once).all()
    levels = picture.band_levels(once)
    changed, known, inside, tempo = warp(Chance("cpu", 6), levels)
    assert torch.isfinite(picture.normalise(changed, known, inside)).all() and (tempo != 1).any()


@pytest.mark.parametrize("across", [0.0, 1.0])
def test_copies_across_a_room_and_milder_ones_are_sound_at_one_level(sound, across, monkeypatch):
    monkeypatch.setattr(augment, "ACROSS", across)
    responses = torch.zeros(2, ROOM)
    responses[:, 0] = responses[1, 300::200] = 1.0  # a click, and one with echoes
    background = Background(noise, noise, noise, responses)
    x = torch.from_numpy(np.tile(sound, (32, 1)))
    copies = degrade(Chance("cpu", 8), x, background)
    assert torch.isfinite(copies).all()
    assert copies.square().mean(1).sqrt() == pytest.approx(np.full(64, 0.1), rel=0.01)
    assert len({row.tobytes() for row in copies.numpy()}) == 64


def test_a_source_is_as_far_as_its_direct_sound_is_under_the_rest():
    responses = Chance("cpu", 9).normal(50, ROOM)
    responses[0, DIRECT:] = 0  # nothing to be under
    far = at_distance(Chance("cpu", 10), responses)
    assert torch.equal(far[:, DIRECT:], responses[:, DIRECT:]) and torch.equal(far[0], responses[0])
    energy = far[1:].square()
    ratio = 10 * torch.log10(energy[:, :DIRECT].sum(1) / energy[:, DIRECT:].sum(1))
    assert -15.01 < ratio.min() < -12 and 3 < ratio.max() < 6.01


def test_simulated_rooms_decay_as_long_as_rooms_do_and_training_hears_them(corpus, monkeypatch):
    pytest.importorskip("pyroomacoustics", reason="pip install earmark[training]")
    from fingerprint.training import rooms

    _, folder = corpus
    monkeypatch.setattr("sys.argv", ["rooms", str(folder), "--rooms", "6"])
    rooms.main()
    made = np.load(folder / "rooms.npy").astype(np.float32)
    rooms.main()
    assert np.array_equal(made, np.load(folder / "rooms.npy").astype(np.float32))
    assert np.square(made).sum(axis=1) == pytest.approx(np.ones(6), rel=0.01)
    assert np.abs(made).argmax(axis=1).tolist() == [0] * 6
    left = np.cumsum(np.square(made[:, ::-1]), axis=1)[:, ::-1]
    decay = 3 * np.argmax(left < left[:, :1] / 100, axis=1) / 8000  # s to 60 dB, from the first 20
    assert decay.min() > 0.02 and decay.max() < 1.5 and decay.std() > 0.05
    assert len(Corpus(*corpus).background.rooms) == 1 + 6


@pytest.fixture
def corpus(tmp_path):
    """Four works, and one of each kind of background, as `fingerprint.training.dataset` leaves them."""
    rng = np.random.default_rng(2)
    kinds = ["music"] * 4 + ["noise", "speech", "impulse-response"]
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "kind"])
        for i, kind in enumerate(kinds):
            rows.writerow([f"{i}", kind])
            sound = rng.standard_normal(8000 * (10 + i)) * 8000 * rng.random(8000 * (10 + i)) ** 4
            np.save(tmp_path / f"{i}.npy", sound.clip(-32768, 32767).astype(np.int16))
    return tmp_path / "manifest.csv", tmp_path


def test_the_losses_are_those_of_their_papers():
    rng = np.random.default_rng(3)
    clean = rng.standard_normal((6, 4))
    both = np.concatenate([clean, clean + 0.5 * rng.standard_normal((6, 4))])
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    same = np.eye(6, dtype=bool)
    same[0, 1] = same[1, 0] = True
    plain, hard, decoupled = [], [], []
    for i in range(12):
        pair = np.exp(both[i] @ both[(i + 6) % 12] / 0.1)
        negatives = np.array(
            [np.exp(both[i] @ both[j] / 0.1) for j in range(12) if not same[i % 6, j % 6]]
        )
        # Robinson et al. 2021, the algorithm of section 4, without its correction for false negatives
        weights = negatives**0.5 / np.mean(negatives**0.5)
        plain.append(-np.log(pair / (pair + negatives.sum())))
        hard.append(-np.log(pair / (pair + (weights * negatives).sum())))
        decoupled.append(-np.log(pair / negatives.sum()))
    clean, degraded = torch.from_numpy(both).chunk(2)
    for expected, options in (
        (plain, {}),
        (hard, {"hardness": 0.5}),
        (decoupled, {"decoupled": True}),
    ):
        loss = train.contrastive_loss(clean, degraded, torch.from_numpy(same), 0.1, **options)
        assert loss.item() == pytest.approx(np.mean(expected), abs=1e-6)


def test_training_begins_from_the_mean_weights_of_another(corpus, tmp_path, monkeypatch):
    def run(checkpoint, *options):
        words = [
            "train",
            *map(str, corpus),
            str(tmp_path / checkpoint),
            "--segments",
            "2",
            *options,
        ]
        monkeypatch.setattr("sys.argv", [*words, "--threads", "1"])
        train.main()
        return mean_of(tmp_path / checkpoint)

    before, pairs = run("first.pt", "--steps", "2")
    after, all_pairs = run("second.pt", "--steps", "1", "--start", str(tmp_path / "first.pt"))
    assert (pairs, all_pairs) == (2 * 2 * WINDOWS, 3 * 2 * WINDOWS)
    weights, begun = before.state_dict(), after.state_dict()
    # a hundredth of the rate, at its beginning, moves no weight by more
    assert all(
        torch.allclose(weights[name], begun[name], atol=1e-4)
        for name in weights
        if "weight" in name or "bias" in name
    )


@pytest.fixture
def training(corpus, tmp_path, monkeypatch):
    """Runs training with these options to a checkpoint."""

    def run(*options):
        words = ["train", *map(str, corpus), str(tmp_path / "it.pt"), "--segments", "2"]
        monkeypatch.setattr("sys.argv", [*words, "--threads", "1", "--save-every", "1", *options])
        train.main()

    return run


def test_training_that_was_stopped_goes_on_as_it_would_have(training, tmp_path):
    training("--steps", "2")
    straight = mean_of(tmp_path / "it.pt")[0].state_dict()
    (tmp_path / "it.pt").unlink()
    training("--steps", "1")
    (tmp_path / "it.partial").write_bytes(b"a checkpoint that a kill cut short")
    training("--steps", "2")
    again = mean_of(tmp_path / "it.pt")[0].state_dict()
    assert all(torch.equal(straight[name], again[name]) for name in straight)


def test_a_gpu_that_goes_away_costs_only_what_was_not_saved(training, tmp_path, monkeypatch):
    training("--steps", "1")
    kept = (tmp_path / "it.pt").read_bytes()

    def gone(*_):
        raise torch.AcceleratorError("CUDA error: device unavailable\nmore of it")

    monkeypatch.setattr(Corpus, "batch", gone)
    with pytest.raises(SystemExit, match=r"device unavailable\n.*goes on from there"):
        training("--steps", "2")
    assert (tmp_path / "it.pt").read_bytes() == kept


@pytest.mark.parametrize("cut", [0, 100, 5000])
def test_a_damaged_checkpoint_is_named_and_kept(cut, training, tmp_path):
    training("--steps", "1")
    whole = (tmp_path / "it.pt").read_bytes()
    (tmp_path / "it.pt").write_bytes(whole[:cut])
    with pytest.raises(SystemExit, match=r"error: .*it\.pt: not a whole checkpoint"):
        training("--steps", "2")
    assert (tmp_path / "it.pt").read_bytes() == whole[:cut]


def test_a_checkpoint_of_another_shape_is_refused(training):
    training("--steps", "1")
    with pytest.raises(SystemExit, match="of another shape"):
        training("--steps", "2", "--dimension", "64")


def test_training_without_music_or_with_too_little_says_so(training, corpus):
    with pytest.raises(SystemExit, match="5 works in a batch are asked for, and 4 are there"):
        training("--steps", "1", "--segments", "5")
    for number in range(4):
        (corpus[1] / f"{number}.npy").unlink()
    with pytest.raises(SystemExit, match=r"none of its music .*training.dataset first"):
        training("--steps", "1")


def test_what_begins_from_shipped_weights_keeps_their_folded_normalisation(
    corpus, tmp_path, monkeypatch
):
    def run(checkpoint, start):
        words = ["train", *map(str, corpus), str(checkpoint), "--segments", "2", "--steps", "1"]
        monkeypatch.setattr("sys.argv", [*words, "--threads", "1", "--start", str(start)])
        train.main()
        return layers_of(mean_of(checkpoint)[0])

    from_shipped = run(tmp_path / "first.pt", SHIPPED)
    from_that = run(tmp_path / "second.pt", tmp_path / "first.pt")
    for shipped, first, second in zip(Encoder.load().layers, from_shipped, from_that, strict=True):
        # a hundredth of the rate, at its beginning, moves no weight by more
        np.testing.assert_allclose(first.weight, shipped.weight, atol=1e-4)
        np.testing.assert_allclose(second.weight, shipped.weight, atol=2e-4)


def test_batches_are_pairs_of_the_same_moments_of_different_works(corpus, monkeypatch):
    monkeypatch.setattr(batches, "degrade", lambda chance, x, background: x)
    corpus = Corpus(*corpus)
    batch = corpus.batch(Chance("cpu", 1, 2), segments=4, frames=43)
    assert batch.clean.shape == batch.degraded.shape == (4 * WINDOWS, 43, BANDS)
    assert torch.isfinite(batch.degraded).all()
    assert torch.equal(batch.same, torch.eye(4 * WINDOWS, dtype=torch.bool))
    alike = torch.nn.functional.normalize(batch.clean.flatten(1), dim=1) @ (
        torch.nn.functional.normalize(batch.degraded.flatten(1), dim=1).T
    )
    assert (alike.argmax(0) == torch.arange(4 * WINDOWS)).float().mean() > 0.9
    again = corpus.batch(Chance("cpu", 1, 2), segments=4, frames=43)
    assert torch.equal(batch.degraded, again.degraded)

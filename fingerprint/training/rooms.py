"""Rooms by simulation: impulse responses of boxes, by image sources and traced rays (pyroomacoustics).

    python -m fingerprint.training.rooms FOLDER [--rooms 400]

writes FOLDER/rooms.npy [shape=(rooms, ROOM), float16], which training takes beside the measured responses
of its corpus (`fingerprint.training.batches`). Rooms are from a cell to a hall, their reverberation times
0.15 to 1.2 s; source and microphone stand anywhere in them, half a metre from the walls.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pyroomacoustics as pra
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm import tqdm

from fingerprint.audio import SAMPLE_RATE
from fingerprint.training.augment import ROOM
from fingerprint.training.batches import SIMULATED_ROOMS

SMALLEST, LARGEST = (2.2, 2.2, 2.2), (12.0, 9.0, 4.5)  # m
REVERBERATION = (0.15, 1.2)  # s, RT60
FROM_WALLS = 0.5  # m
IMAGES = 6  # order of the image sources; later sound is traced


def response(rng: Generator) -> NDArray[np.float32]:
    """One room's response from its direct sound on, of energy 1 [shape=(ROOM,)]."""
    while True:
        size = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST)))
        wanted = np.exp(rng.uniform(*np.log(REVERBERATION)))
        try:
            absorption, _ = pra.inverse_sabine(wanted, size)
        except ValueError:  # too large a room to be as dry
            continue
        break
    room = pra.ShoeBox(
        size,
        fs=SAMPLE_RATE,
        materials=pra.Material(absorption, scattering=float(rng.uniform(0.05, 0.5))),
        max_order=IMAGES,
        ray_tracing=True,
        air_absorption=True,
    )
    room.set_ray_tracing(receiver_radius=0.3, n_rays=3000)
    for add in (room.add_source, room.add_microphone):
        add(rng.uniform(FROM_WALLS, size - FROM_WALLS))
    room.compute_rir()
    x = room.rir[0][0]
    x = x[int(np.argmax(np.abs(x))) :][:ROOM]
    return np.pad(x / np.linalg.norm(x), (0, ROOM - len(x))).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rooms", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    pra.random.seed(args.seed)  # of the rays
    rng = np.random.default_rng(args.seed)
    made = [response(rng) for _ in tqdm(range(args.rooms), "rooms", disable=None)]
    beside = args.folder / "rooms.partial.npy"
    np.save(beside, np.array(made, np.float16))
    os.replace(beside, args.folder / SIMULATED_ROOMS)


if __name__ == "__main__":
    main()

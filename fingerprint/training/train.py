"""Contrastive training of the encoder, resumable; the same command on a CPU and on a GPU.

    python -m fingerprint.training.train MANIFEST SAMPLES CHECKPOINT --steps 4000 [--start FILE]

What is exported is the mean of the weights over the last steps, which is better than the last ones at any
step of a constant rate: so there is no schedule to be finished, and training can go on for as long as there
is time (Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization"; here
with exponentially falling weight).

With --start, training begins from the mean weights of another training's checkpoint, with an optimiser of its
own, or from a shipped weights file, whose batch normalisation stays as it was folded into the convolutions:
what costs days of CPU need not be done twice.

NT-Xent (Chen et al. 2020, "A simple framework for contrastive learning of visual representations",
eq. 1) between clean and degraded windows, as Chang et al. 2021 ("Neural audio fingerprint") apply it
to music, with moments of the same sound left out of the negatives.
"""

import argparse
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fingerprint.cores import available_cores
from fingerprint.encoder import Encoder as ShippedEncoder
from fingerprint.errors import reason_of
from fingerprint.training.augment import Chance
from fingerprint.training.batches import Corpus
from fingerprint.training.model import (
    Encoder,
    Shape,
    TrainingError,
    checkpoint_of,
    mean_of,
    start_from,
)

WARM_UP = 100  # steps over which the rate rises
FORGET = 0.997  # of the mean of the weights, a step: it is that of the last few hundred


def contrastive_loss(
    clean: Tensor,
    degraded: Tensor,
    same: Tensor,
    temperature: float,
    hardness: float = 0.0,
    decoupled: bool = False,
) -> Tensor:
    """NT-Xent over 2n embeddings [shape=(n, d) each]; same [shape=(n, n)] marks true repeats.

    hardness : how much more than others negatives count that are near (β of Robinson et al. 2021,
        "Contrastive learning with hard negative samples")
    decoupled : the pair itself is left out of what it is compared with (Yeh et al. 2022, "Decoupled
        contrastive learning")
    """
    n = len(clean)
    both = torch.cat([clean, degraded])
    similarity = both @ both.T / temperature
    repeat = same.repeat(2, 2)
    rows = torch.arange(2 * n, device=both.device)
    partner = rows.roll(n)
    pair = similarity[rows, partner]
    repeat[rows, partner] = True
    negatives = similarity.masked_fill(repeat, float("-inf"))
    if hardness:
        mean = torch.logsumexp(hardness * negatives, 1) - torch.log((~repeat).sum(1))
        negatives = (1 + hardness) * negatives - mean[:, None]
    others = torch.logsumexp(negatives, 1)
    return (others if decoupled else torch.logaddexp(others, pair)).sub(pair).mean()


def train(args: argparse.Namespace) -> None:
    """Train up to args.steps steps, from args.checkpoint if it is there."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.backends.cudnn.benchmark = True
    shape = Shape(tuple(args.channels), args.last, args.dimension)
    model = Encoder(shape)
    step = pairs = 0
    if args.start and args.start.suffix == ".safetensors":
        start_from(model, ShippedEncoder.load(args.start).layers)
    elif args.start:
        before, pairs = mean_of(args.start)
        model.load_state_dict(before.state_dict())
        if before.folded:
            model.hold_normalisation()
    model.to(device, memory_format=torch.channels_last)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(FORGET), use_buffers=True)

    def rise_and_fall(step: int) -> float:
        fall = (args.steps - step) / args.cool_down if args.cool_down else 1.0
        return min(1.0, (step + 1) / WARM_UP, fall)

    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rise_and_fall)
    if args.checkpoint.exists():
        state = checkpoint_of(args.checkpoint, device)
        if state["shape"] != asdict(shape):
            raise TrainingError(
                f"{args.checkpoint}: of another shape than asked for: {state['shape']}"
            )
        model.load_state_dict(state["model"])
        if state["folded"]:
            model.hold_normalisation()
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, pairs = state["step"], state["pairs"]
        schedule.last_epoch = step
        # what was saved at the end of fewer steps is the rate of their end
        for group in optimiser.param_groups:
            group["lr"] = args.rate * rise_and_fall(step)
    # a CPU without instructions for bfloat16 emulates it, at twenty times the cost of float32
    half = device == "cuda" or _has_bfloat16()
    corpus = Corpus(args.manifest, args.samples, device)
    began, first = time.monotonic(), step
    while step < args.steps:
        # a resumed run goes on as it would have
        batch = corpus.batch(Chance(device, args.seed, step), args.segments, shape.frames)
        windows = torch.cat([batch.clean, batch.degraded])
        with torch.autocast(device, torch.bfloat16, enabled=half):
            embeddings = model(windows)
        clean, degraded = embeddings.float().chunk(2)
        loss = contrastive_loss(
            clean, degraded, batch.same, args.temperature, args.hardness, args.decoupled
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        average.update_parameters(model)
        step += 1
        pairs += len(clean)
        if step % 20 == 0:
            with torch.no_grad():
                best = (degraded @ clean.T).argmax(1)
                hits = batch.same.gather(1, best[:, None]).float().mean().item()
            pace = (time.monotonic() - began) / (step - first)
            print(
                f"step {step} loss {loss.item():.3f} found in batch {hits:.3f} {pace:.3f} s/step",
                flush=True,
            )
        if step % args.save_every == 0 or step == args.steps:
            save(args.checkpoint, model, average, optimiser, step, pairs)


def save(
    path: Path,
    model: Encoder,
    average: AveragedModel,
    optimiser: torch.optim.Optimizer,
    step: int,
    pairs: int,
) -> None:
    """Write a checkpoint beside, then rename: a kill leaves the last one whole."""
    beside = path.with_suffix(".partial")
    state = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "pairs": pairs,
        "shape": asdict(model.shape),
        "folded": model.folded,
    }
    torch.save(state, beside)
    os.replace(beside, path)


def _has_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16, as far as torch tells."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--start", type=Path, help="checkpoint or weights file to begin from")
    parser.add_argument("--segments", type=int, default=64, help="works in a batch")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--temperature", type=float, default=0.05)
    parser.add_argument("--hardness", type=float, default=0.0, help="of negatives")
    parser.add_argument("--decoupled", action="store_true", help="decoupled contrastive loss")
    parser.add_argument(
        "--cool-down", type=int, default=0, help="last steps, over which the rate falls"
    )
    parser.add_argument("--channels", type=int, nargs=6, default=Shape.channels)
    parser.add_argument("--last", type=int, default=Shape.last, help="frames of the last layer")
    parser.add_argument("--dimension", type=int, default=Shape.dimension)
    parser.add_argument("--threads", type=int, default=available_cores(), help="of torch")
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    try:
        train(args)
    except TrainingError as error:
        sys.exit(f"error: {error}")
    except torch.AcceleratorError as error:
        sys.exit(
            f"error: the GPU failed: {reason_of(error).splitlines()[0]}\n{args.checkpoint} keeps the last "
            f"{args.save_every} steps but what came after: the same command goes on from there"
        )


if __name__ == "__main__":
    main()

"""What runs the encoder: Earmark's kernels beside ONNX Runtime, on the same spectrograms, on one core.

    python -m benchmarks.experiments.runtimes [--minutes 10] [--rounds 5]

Needs `onnx` and `onnxruntime` (pip install onnx onnxruntime), which Earmark does not. The same layers are
written as an ONNX graph and run with all of its optimisations. Rounds alternate between the two, CPU time is
counted, medians are given. One thread each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import corpora
from benchmarks.throughput import measure
from fingerprint.audio import read_audio
from fingerprint.encoder import Encoder
from fingerprint.fingerprint import QUERY_EVERY, REFERENCE_EVERY
from fingerprint.spectrogram import BANDS, spectrogram

CHUNK = 2560  # frames given to the graph at once, as in `fingerprint.encoder`
Picture = NDArray[np.float32]


def onnx_graph(encoder: Encoder, every: int) -> bytes:
    """The encoder's layers as a graph: [shape=(1, 1, frames, BANDS)] → [shape=(1, d, n, 1)]."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights = [], []
    channels, last = 1, "picture"
    in_time = max(i for i, layer in enumerate(encoder.layers) if layer.time > 1)
    for i, layer in enumerate(encoder.layers):
        shape = (layer.time, layer.band, channels, layer.weight.shape[1])
        kernel = np.ascontiguousarray(layer.weight.reshape(shape).transpose(3, 2, 0, 1))
        weights.append(numpy_helper.from_array(kernel, f"weight{i}"))
        weights.append(numpy_helper.from_array(layer.bias, f"bias{i}"))
        stride = layer.time_stride * (every if i == in_time else 1)
        nodes.append(
            helper.make_node(
                "Conv",
                [last, f"weight{i}", f"bias{i}"],
                [f"sum{i}"],
                kernel_shape=[layer.time, layer.band],
                strides=[stride, layer.band_stride],
                pads=[0, layer.band_padding, 0, layer.band_padding],
            )
        )
        last, channels = f"sum{i}", layer.weight.shape[1]
        if layer.rectify:
            nodes.append(helper.make_node("Relu", [last], [f"rectified{i}"]))
            last = f"rectified{i}"
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 1, "frames", BANDS])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, channels, "n", 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def onnx_encoder(encoder: Encoder, every: int) -> Callable[[Picture], Picture]:
    """Like `Encoder.embed`, of one thread of ONNX Runtime; silence is not looked for."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        onnx_graph(encoder, every), options, providers=["CPUExecutionProvider"]
    )
    hop = encoder.hop * every

    def embed(picture: Picture) -> Picture:
        count = max(0, (len(picture) - encoder.window) // hop + 1)
        pieces = []
        per_chunk = CHUNK // hop
        for first in range(0, count, per_chunk):
            last = min(first + per_chunk, count) - 1
            piece = picture[first * hop : last * hop + encoder.window]
            (out,) = session.run(None, {"picture": piece[None, None]})
            pieces.append(out[0, :, :, 0].T)
        found = np.concatenate(pieces)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)

    return embed


def _all(embed: Callable[[Picture], Picture], pictures: list[Picture]) -> None:
    for picture in pictures:
        embed(picture)


@click.command()
@click.option("--minutes", default=10.0, help="Of music.")
@click.option("--rounds", default=5)
def main(minutes: float, rounds: int) -> None:
    """Earmark's kernels beside ONNX Runtime."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        sys.exit("needs onnx and onnxruntime: pip install onnx onnxruntime")
    encoder = Encoder.load()
    pictures: list[Picture] = []
    seconds = 0.0
    for item in corpora.items("report"):
        if seconds >= 60 * minutes:
            break
        pictures.append(spectrogram(read_audio(item.audio())))
        seconds += item.duration
    if not pictures:
        sys.exit("no music of the report split is there: make benchmark fetches it")
    click.echo(
        f"{len(pictures)} recordings, {seconds / 60:.0f} min; ONNX Runtime {onnxruntime.__version__}"
    )
    for step, every in (("reference's", REFERENCE_EVERY), ("query's", QUERY_EVERY)):
        other = onnx_encoder(encoder, every)
        ours, theirs = encoder.embed(pictures[0], every), other(pictures[0])
        loud = np.linalg.norm(ours, axis=1) > 0
        difference = float(np.abs(ours - theirs)[loud].max())
        speeds = measure(
            {
                "Earmark": (seconds, partial(_all, partial(encoder.embed, every=every), pictures)),
                "ONNX Runtime": (seconds, partial(_all, other, pictures)),
            },
            rounds,
            "Earmark",
        )
        click.echo(f"at the {step} step, largest difference of a component {difference:.1e}")
        for speed in speeds:
            click.echo(
                f"  {speed.stage}: {speed.times_real_time:,.0f} times real time,"
                f" {speed.share_of_decoding} of Earmark's CPU time"
            )


if __name__ == "__main__":
    main()

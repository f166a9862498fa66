"""``python -m tools.gpu_stats.fp16``: how much of a 3x3 layer's result fp16 loses, by form. No device is needed: sums
are rounded after each multiply-add, which is what a GPU's fused multiply-add in fp16 does."""

from collections.abc import Callable

import click
import numpy as np

from pcc.codegen.kernels.winograd_forms import FORMS
from tools.gpu_stats.forms import PATTERNS, RATE

SIZE, FILTERS = 16, 16


def rounded(values: np.ndarray) -> np.ndarray:
    """fp32 numbers that fp16 has."""
    return values.astype(np.float16).astype(np.float32)


def product(u: np.ndarray, v: np.ndarray, *, in_fp16: bool) -> np.ndarray:
    """``u @ v`` of batches (.., O, K) and (.., K, T), summed in fp32, or in fp16 one after the other."""
    if not in_fp16:
        return np.matmul(u, v)
    total = np.zeros((*u.shape[:-1], v.shape[-1]), np.float32)
    for at in range(u.shape[-1]):
        total = rounded(total + u[..., at : at + 1] * v[..., at : at + 1, :])
    return total


def columns(x: np.ndarray) -> np.ndarray:
    """(C * 9, H * W): what each output reads, padding 1."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    return windows.transpose(0, 3, 4, 1, 2).reshape(-1, x.shape[1] * x.shape[2])


def direct(x: np.ndarray, weight: np.ndarray, *, in_fp16: bool) -> np.ndarray:
    """Only weights that are not zero are multiplied."""
    taps, flat = columns(x), weight.reshape(len(weight), -1)
    rows = [product(row[None, row != 0], taps[row != 0], in_fp16=in_fp16) for row in flat]
    return rounded(np.concatenate(rows))


def winograd(outputs: int) -> Callable[..., np.ndarray]:
    form = FORMS[outputs]
    b, a = (np.array(matrix, np.float64).astype(np.float32) for matrix in (form.input_matrix, form.output_matrix))

    def compute(x: np.ndarray, weight: np.ndarray, *, in_fp16: bool) -> np.ndarray:
        step = rounded if in_fp16 else (lambda values: values)
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        tiles = np.lib.stride_tricks.sliding_window_view(padded, (form.inputs,) * 2, (1, 2))[:, ::outputs, ::outputs]
        v = rounded(step(b @ tiles) @ b.T)
        u = rounded(form.transformed(weight).astype(np.float32))
        count = tiles.shape[1]
        flat_v = v.reshape(len(x), count * count, -1).transpose(2, 0, 1)
        m = rounded(product(u.reshape(*u.shape[:2], -1).transpose(2, 0, 1), flat_v, in_fp16=in_fp16))
        m = m.reshape(form.inputs, form.inputs, len(weight), count, count).transpose(2, 3, 4, 0, 1)
        y = rounded(step(a @ m) @ a.T)
        return y.transpose(0, 1, 3, 2, 4).reshape(len(weight), -1)

    return compute


def pruned(random: np.random.Generator, channels: int) -> np.ndarray:
    """Eight patterns of four taps, one connection in `RATE`."""
    weight, kept = np.zeros((FILTERS, channels, 9), np.float32), max(1, round(channels / RATE))
    for row in weight:
        for channel in random.permutation(channels)[:kept]:
            row[channel, PATTERNS[random.integers(len(PATTERNS))]] = random.standard_normal(4)
    return rounded(weight.reshape(FILTERS, channels, 3, 3) * np.float32((2 / (4 * kept)) ** 0.5))


def errors(channels: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """By form: root mean square of the error to that of the outputs, summed in fp32 and all in fp16. All numbers in
    memory are fp16; inputs are what ReLU leaves of random ones."""
    random = np.random.default_rng(seed)
    x = rounded(np.maximum(random.standard_normal((channels, SIZE, SIZE)), 0).astype(np.float32))
    dense = rounded(
        (random.standard_normal((FILTERS, channels, 3, 3)) * (2 / (9 * channels)) ** 0.5).astype(np.float32)
    )
    forms: dict[str, tuple[Callable[..., np.ndarray], np.ndarray]] = {
        "dense direct": (direct, dense),
        "sparse": (direct, pruned(random, channels)),
        "F(2x2)": (winograd(2), dense),
        "F(4x4)": (winograd(4), dense),
    }
    found = {}
    for name, (compute, weight) in forms.items():
        exact = weight.reshape(len(weight), -1).astype(np.float64) @ columns(x).astype(np.float64)
        size = np.sqrt((exact**2).mean())
        in_fp32, in_fp16 = (
            float(np.sqrt(((compute(x, weight, in_fp16=half) - exact) ** 2).mean()) / size) for half in (False, True)
        )
        found[name] = in_fp32, in_fp16
    return found


@click.command()
@click.option("--channels", type=int, multiple=True, default=(64, 256, 512), show_default=True)
def main(channels: tuple[int, ...]) -> None:
    """Error of a layer's outputs (rms over rms): summed in fp32, and all in fp16."""
    for count in channels:
        found = errors(count)
        if count == channels[0]:
            click.echo(f"{'channels':<10}" + "".join(f"{name:>22}" for name in found))
        click.echo(f"{count:<10}" + "".join(f"{f'{a:.1e}, {b:.1e}':>22}" for a, b in found.values()))


if __name__ == "__main__":
    main()

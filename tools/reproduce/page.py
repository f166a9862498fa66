"""docs/results.md, from the results that are there."""

from pathlib import Path

from tools.reconstruct import results, show
from tools.reproduce.result import Result, load
from tools.reproduce.rows import PUBLISHED, ROWS, Row
from tools.table import table

PAGE = Path("docs/results.md")

_RATES = ["weights", "weight data (counted)", "with index (counted)", "MACs"]
_HEADERS = ["method and structure", "accuracy", "dense", *_RATES, "latency", "epochs", "minutes", "paper"]

_TITLES = {
    "lenet5": "LeNet-5 (20-50-500-10, 430,500 weights) on MNIST",
    "vgg8": "VGG-8 on CIFAR-10",
    "resnet20": "ResNet-20 on CIFAR-10",
    "vgg16_cifar": "VGG-16 on CIFAR-10",
    f"{PUBLISHED}:resnet20": "ResNet-20 with published weights on CIFAR-10",
    f"{PUBLISHED}:resnet56": "ResNet-56 with published weights on CIFAR-10",
}

_INTRODUCTION = """# Results

Made by `python -m tools.reproduce all` (without VGG-16 where there is no GPU, and without rows called `public-...` where no `--checkpoints` are named), or one row
by `python -m tools.reproduce ROW`; a row first runs the row it starts from, if that is not there.
Accuracy is on the whole test set, in fp32, with the weights of the last epoch: no epoch was picked by it. Rates are over the weights of all
convolutions and linear layers, those left dense included: *weights* counts those that are not zero, *weight data* the bytes that the structure's values take
(weights, codes of a few bits, code books), *with index* also those that say where they belong, *MACs* multiply-accumulates with weights that are not zero.
These bytes are counted, as papers count them, and no file has so few: the checkpoint of a row (`model.safetensors`) holds every weight as fp32, zeros too, and
a compiled package the fp32 weights and the tables that its kernels read. *Latency* is that of the compiled dense network over that of the compiled pruned
one, on one AVX-512 core; a dash where no kernel uses the structure. Epochs and minutes are the row's own, minutes those of two busy cores;
for VGG-16 those of the GPU that is named, with torch 2.11, which after the dense network trained six pruned ones at the same time.
Rows called `public-...` start from weights that others publish, and take the folder where these lie, `--checkpoints FOLDER`; their minutes are of one core beside other work, those of ResNet-56 with patterns, and the last third of DCP's, of two processes.
"""

_IMAGENET = """## ImageNet networks without the ImageNet set

Made by `python -m tools.reconstruct --photos FOLDER --labelled LIST`, one structure by `python -m tools.reconstruct NETWORK STRUCTURE` with the same options.
Every convolution but the first and depthwise ones is cut in one shot, and no label is used. *Fitted on*: 256 samples, `package`: crops of photos that a
package for machine vision carries, and CIFAR-10 enlarged; `photos`: of 1,000 photos of ImageNet's classes. With `--minutes N` the network is also
reconstructed on all of those and distilled for N minutes, as `pcc compress --minutes N` does it. *As many weights by layer*: structure and rate are chosen for
each layer, as `pcc compress` chooses them, with as many weights in all as layers that are cut alike keep. *Top-1* is on 650 images of ImageNet's validation set,
beside the dense network's (95 % intervals are of 3 to 4 points to either side, and narrower for differences). *Agree*: how often the network names the class
that its dense self names, on images of the package and of CIFAR-10 that were held out; there the error of the logits is squared, over the variance of the
dense network's. Seconds are those of one busy core, of two for the 57 minutes; the 24 minutes of the choice by layer are not counted.
"""


def write_page() -> None:
    """Writes the page."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page's text."""
    parts = [_INTRODUCTION]
    for network, title in _TITLES.items():
        found = [(row, result) for row in ROWS.values() if row.network == network and (result := load(row.name))]
        if found:
            parts += [
                f"## {title}\n",
                *_accelerators(found),
                *_missing(network),
                table(_HEADERS, [_cells(row, result) for row, result in found]),
                "",
                *_commands(found),
            ]
    parts += [_IMAGENET, show(results()), ""]
    return "\n".join(parts)


def _accelerators(found: list[tuple[Row, Result]]) -> list[str]:
    names = sorted({result.device for _, result in found} - {"cpu"})
    return [f"Trained on {' and '.join(names)}.\n"] if names else []


def _missing(network: str) -> list[str]:
    names = [name for name, row in ROWS.items() if row.network == network and load(name) is None]
    return [f"No result is kept of {', '.join(f'`{name}`' for name in names)}.\n"] if names else []


def _cells(row: Row, result: Result) -> list[str]:
    rates = [
        f"{rate:.1f}x" if rate < 100 else f"{rate:,.0f}x"
        for rate in (result.weight_rate, result.data_rate, result.data_and_index_rate, result.mac_rate)
    ]
    gain = f"{result.speedup:.2f}x" if result.speedup else "-"
    return [
        row.title,
        f"{result.accuracy:.2%}",
        f"{result.dense_accuracy:.2%}",
        *rates,
        gain,
        str(result.epochs),
        f"{result.seconds / 60:.0f}",
        row.claim,
    ]


def _commands(found: list[tuple[Row, Result]]) -> list[str]:
    return ["```", *(f"{result.command}    # seed {result.seed}" for _, result in found), "```", ""]

"""Trains a small AdderNet on handwritten digits, in a few minutes on a CPU.

The data are scikit-learn's 1,797 digits of 8 x 8 pixels (a copy of the test set of UCI's *Optical
Recognition of Handwritten Digits*). A fifth of them, drawn evenly over the classes, is held out and
written as PNG files in one folder per class, which adder-run reads; the network never sees it.

    python examples/digits/train.py

writes ``resnet8_digits.pth`` and ``test/`` beside this file. The network is the reference
implementation's CIFAR ResNet with one block per stage, for one input channel.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

from adder_onnx.export.resnet import ResNet, ResNetConfig

FOLDER = Path(__file__).resolve().parent
CONFIG = ResNetConfig(
    stem="cifar", block="basic", depths=(1, 1, 1), widths=(16, 32, 64), classes=10, in_channels=1
)
# Mean and standard deviation of the training images' pixels, scaled to [0, 1].
MEAN, STD = 0.3054, 0.3760


def load_split() -> tuple[
    NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]
]:
    """Training and test images (N, 8, 8) and their labels."""
    digits = load_digits()
    # The values are counts 0 … 16 of dark pixels in a 4 x 4 square.
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=0.2, stratify=labels, random_state=0
    )
    return train_x, test_x, train_y, test_y


def write_test_images(images: NDArray[np.uint8], labels: NDArray[np.int64], folder: Path) -> None:
    """One PNG per image in a folder per class, replacing what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, optimize=True)


def to_input(images: NDArray[np.uint8]) -> Tensor:
    """Normalised images (N, 1, 8, 8)."""
    return (torch.from_numpy(images).float()[:, None] / 255 - MEAN) / STD


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by up to one pixel in each direction, the border filled with background."""
    background = -MEAN / STD
    padded = functional.pad(x, (1, 1, 1, 1), value=background)
    offsets = torch.randint(0, 3, (len(x), 2), generator=generator)
    return torch.stack(
        [
            p[:, dy : dy + 8, dx : dx + 8]
            for p, (dy, dx) in zip(padded, offsets.tolist(), strict=True)
        ]
    )


def accuracy(model: ResNet, x: Tensor, y: Tensor) -> float:
    """Share of right answers."""
    model.eval()
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


def train(epochs: int, batch_size: int, seed: int, output: Path) -> None:
    """Trains from scratch and writes the state dict."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    train_images, test_images, train_labels, test_labels = load_split()
    write_test_images(test_images, test_labels, output.parent / "test")
    x, y = to_input(train_images), torch.from_numpy(train_labels)
    test_x, test_y = to_input(test_images), torch.from_numpy(test_labels)

    model = ResNet(CONFIG)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    start = time.monotonic()
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(x), generator=generator)
        total = 0.0
        for batch in order.split(batch_size):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(shifted(x[batch], generator)), y[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        schedule.step()
        print(
            f"epoch {epoch + 1:3} of {epochs}: loss {total / len(x):.3f}, held out "
            f"{100 * accuracy(model, test_x, test_y):.2f} %, {time.monotonic() - start:.0f} s",
            flush=True,
        )
    torch.save(model.state_dict(), output)
    print(f"wrote {output}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=FOLDER / "resnet8_digits.pth")
    options = parser.parse_args()
    train(options.epochs, options.batch_size, options.seed, options.output)


if __name__ == "__main__":
    main()

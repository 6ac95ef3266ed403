"""Train the demo network that ships with erfattr, on Caltech-101.

    python scripts/train_demo_model.py --data caltech101.tar --run-dir /tmp/demo_run

``--data`` is the folder of class folders (``101_ObjectCategories`` of the original download; the class
BACKGROUND_Google is left out) or a tar file of it. Every epoch ends with a checkpoint in ``--run-dir``; the
same command continues from it. At the end the weights and the record of the run are written to ``--out``.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import platform
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms.v2 import functional as F

from erfattr._files import write_json, write_whole
from erfattr.datasets.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    read_image,
    resize_and_crop,
    standardize,
)
from erfattr.models.demo import DemoNet

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
TEST_SIZE = 224


def class_folders(data: Path, extract_to: Path) -> list[Path]:
    """Return the sorted class folders under ``data``, a folder or a tar file of one."""
    if data.is_file():
        root = extract_to / data.stem
        if not root.exists():
            partial = root.with_suffix(".partial")
            with tarfile.open(data) as archive:
                archive.extractall(partial, filter="data")
            partial.rename(root)
        data = root
    for nested in ("caltech101", "101_ObjectCategories"):
        if (data / nested).is_dir():
            data = data / nested
    return sorted(path for path in data.iterdir() if path.is_dir() and path.name != "BACKGROUND_Google")


def stratified_split(folders: list[Path], seed: int) -> dict[str, list[tuple[Path, int]]]:
    """Split every class 70 : 15 : 15 in the order of a hash of its file names, the same on every machine."""
    split: dict[str, list[tuple[Path, int]]] = {"train": [], "validation": [], "test": []}
    for label, folder in enumerate(folders):
        files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
        files.sort(
            key=lambda path: hashlib.sha256(f"{seed}/{path.parent.name}/{path.stem}".encode()).hexdigest()
        )
        held_out = round(0.15 * len(files))
        split["test"] += [(path, label) for path in files[:held_out]]
        split["validation"] += [(path, label) for path in files[held_out : 2 * held_out]]
        split["train"] += [(path, label) for path in files[2 * held_out :]]
    return split


def evaluation_images(items: list[tuple[Path, int]]) -> tuple[Tensor, Tensor]:
    images = torch.stack([resize_and_crop(read_image(path), TEST_SIZE) for path, _ in items])
    return images, torch.tensor([label for _, label in items])


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return top-1 accuracy over images, and its mean over classes, in percent, in float32."""
    model.eval()
    with torch.inference_mode():
        predicted = torch.cat([model(standardize(batch)).argmax(1) for batch in images.split(100)])
    right = (predicted == labels).double()
    classes = torch.stack([right[labels == label].mean() for label in labels.unique()])
    return 100 * right.mean().item(), 100 * classes.mean().item()


def augmented(images: list[Tensor], size: int) -> Tensor:
    """Random resized crop and flip of each image; brightness, contrast and saturation by up to 20 %."""
    crops = []
    for image in images:
        top, left, height, width = crop_box(*image.shape[-2:])
        crop = F.resized_crop(image, top, left, height, width, [size, size], antialias=True)
        crops.append(crop.flip(-1) if torch.rand(()) < 0.5 else crop)
    batch = torch.stack(crops).float()
    brightness, contrast, saturation = (1 + 0.2 * (2 * torch.rand(3, len(batch), 1, 1, 1) - 1)).unbind()
    batch = batch * brightness
    mean = batch.mean((1, 2, 3), keepdim=True)
    batch = mean + (batch - mean) * contrast
    grey = batch.mean(1, keepdim=True)
    batch = grey + (batch - grey) * saturation
    return standardize(batch.clamp_(0, 255))


def crop_box(height: int, width: int) -> tuple[int, int, int, int]:
    """Draw a box of 30 to 100 % of the area and aspect ratio 3:4 to 4:3: top, left, height, width."""
    for _ in range(10):
        area = height * width * float(torch.empty(()).uniform_(0.3, 1.0))
        ratio = math.exp(float(torch.empty(()).uniform_(math.log(3 / 4), math.log(4 / 3))))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if box_width <= width and box_height <= height:
            top = int(torch.randint(height - box_height + 1, ()))
            left = int(torch.randint(width - box_width + 1, ()))
            return top, left, box_height, box_width
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def parse_plan(text: str) -> list[int]:
    """Turn "112x30,224x4" into the image size of each epoch."""
    return [int(size) for part in text.split(",") for size, n in [part.split("x")] for _ in range(int(n))]


def half_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights with floating-point tensors stored as float16, to be read back as float32."""
    return {
        name: tensor.detach().half().clone() if tensor.is_floating_point() else tensor.clone()
        for name, tensor in model.state_dict().items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of class folders, or a tar file of it"
    )
    parser.add_argument(
        "--run-dir", type=Path, required=True, help="checkpoints and log; continued if it exists"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "erfattr" / "data")
    parser.add_argument("--plan", default="112x30,160x10,224x4", help="image size x epochs, in order")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.run_dir.mkdir(parents=True, exist_ok=True)
    folders = class_folders(args.data, args.run_dir)
    split = stratified_split(folders, args.seed)
    print({name: len(items) for name, items in split.items()}, len(folders), "classes", flush=True)
    started = time.time()
    train = [torch.from_numpy(np.array(read_image(path))).permute(2, 0, 1) for path, _ in split["train"]]
    train_labels = torch.tensor([label for _, label in split["train"]])
    validation = evaluation_images(split["validation"])
    print(f"decoded in {time.time() - started:.0f} s", flush=True)

    plan = parse_plan(args.plan)
    model: nn.Module = DemoNet(len(folders)).to(memory_format=torch.channels_last)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.995), use_buffers=True)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=args.learning_rate,
        momentum=0.9,
        nesterov=True,
    )
    loss_function = nn.CrossEntropyLoss(label_smoothing=0.1)
    steps_per_epoch = len(train) // args.batch_size
    total, warmup = steps_per_epoch * len(plan), steps_per_epoch * 3

    history: list[dict[str, Any]] = []
    best: dict[str, Any] = {"validation": -1.0}
    checkpoint = args.run_dir / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        history, best = saved["history"], saved["best"]
        torch.set_rng_state(saved["rng"])
        print(f"continuing after epoch {len(history)}", flush=True)

    for epoch in range(len(history), len(plan)):
        started, size, losses = time.time(), plan[epoch], []
        model.train()
        order = torch.randperm(len(train))
        for step in range(steps_per_epoch):
            chosen = order[step * args.batch_size : (step + 1) * args.batch_size]
            done = epoch * steps_per_epoch + step
            cosine = 0.5 * (1 + math.cos(math.pi * max(0, done - warmup) / (total - warmup)))
            for group in optimizer.param_groups:
                group["lr"] = args.learning_rate * min(1.0, (done + 1) / warmup) * cosine
            images = augmented([train[index] for index in chosen.tolist()], size)
            images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
                logits = model(images)
            loss = loss_function(logits.float(), train_labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update_parameters(model)
            losses.append(loss.item())
        seconds = time.time() - started
        record = {"epoch": epoch + 1, "size": size, "loss": sum(losses) / len(losses), "seconds": seconds}
        # Full-size validation is only worth its time every few epochs, and where the best epoch is chosen.
        if size == TEST_SIZE or (epoch + 1) % 4 == 0 or epoch + 1 == len(plan):
            record["validation"], record["validation_class_mean"] = accuracy(average.module, *validation)
            if size == plan[-1] and record["validation"] >= best["validation"]:
                best = {**record, "weights": half_state(average.module)}
        history.append(record)
        rate = steps_per_epoch * args.batch_size / seconds
        print(" ".join(f"{k}={v:.4g}" for k, v in record.items()), f"images/s={rate:.0f}", flush=True)
        write_whole(args.run_dir / "latest_weights.pt", half_state(average.module))
        write_whole(
            checkpoint,
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "history": history,
                "best": best,
                "rng": torch.get_rng_state(),
            },
        )

    final = DemoNet(len(folders))
    final.load_state_dict(best["weights"])  # float16 values, copied into float32 parameters
    top1, class_mean = accuracy(final, *evaluation_images(split["test"]))
    args.out.mkdir(parents=True, exist_ok=True)
    write_whole(args.out / "demo_model.pt", best["weights"])
    card = {
        "architecture": "DemoNet: ResNet-18 with a quarter of the channels",
        "parameters": sum(p.numel() for p in final.parameters()),
        "data": "Caltech-101, 101 object classes",
        "split": {name: len(items) for name, items in split.items()},
        "split_seed": args.seed,
        "image_size": TEST_SIZE,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "test_accuracy_percent": round(top1, 3),
        "test_class_mean_accuracy_percent": round(class_mean, 3),
        "validation_accuracy_percent": round(best["validation"], 3),
        "epoch": best["epoch"],
        "plan": args.plan,
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "weight_decay": args.weight_decay,
        "precision": args.precision,
        "seed": args.seed,
        "training_seconds": round(sum(record["seconds"] for record in history)),
        "machine": f"{os.cpu_count()}-core {platform.machine()} CPU, torch threads: {args.threads}",
        "torch": torch.__version__.split("+")[0],
        "torchvision": torchvision.__version__.split("+")[0],
        "classes": [folder.name for folder in folders],
    }
    write_json(args.out / "demo_model.json", card)
    write_json(args.run_dir / "history.json", history)
    print(f"held-out test accuracy at {TEST_SIZE}: {top1:.2f} % ({class_mean:.2f} % class mean)")


if __name__ == "__main__":
    main()

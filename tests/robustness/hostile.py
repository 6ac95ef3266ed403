"""What the table is tried with: networks that misbehave, files that are no such files. Made, not stored."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

NETWORKS = '''
import sys
import torch
from torch import nn

class Net(nn.Module):
    """Answers with what a function makes of its logits."""

    def __init__(self, answer=lambda logits: logits, channels=3, classes=5):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, 4, 3, 2, 1)
        self.act = nn.ReLU()
        self.last = nn.Conv2d(4, 6, 3, 2, 1)
        self.head = nn.Linear(6, classes)
        self.answer = answer

    def forward(self, images):
        return self.answer(self.head(self.last(self.act(self.conv(images))).relu().mean((2, 3))))

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.head = nn.Linear(4 * 56 * 56, 5)

    def forward(self, images):
        return self.head(self.conv(images).flatten(1))

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, images):
        return self.head(self.conv(images).relu().mean((2, 3)))

class Unprintable(Exception):
    def __str__(self):
        raise ValueError("not even this")

class Odd(BaseException):
    pass

def fail(error):
    def answer(logits):
        raise error
    return answer

def good(): return Net()
def factory_raises(): raise RuntimeError("no such thing")
def factory_exits(): sys.exit(3)
def factory_raises_base(): raise Odd("odd")
def factory_wants_more(argument): return Net()
def factory_gives_a_number(): return 3
def factory_gives_a_class(): return Net
def raises(): return Net(fail(RuntimeError("the layer is tired")))
def raises_key(): return Net(fail(KeyError("nothing")))
def raises_lines(): return Net(fail(RuntimeError("first line\\nsecond line\\nthird")))
def raises_tensor(): return Net(fail(ValueError(f"bad: {torch.zeros(100, 100)}")))
def raises_long(): return Net(fail(ValueError("x" * 100000)))
def raises_nothing(): return Net(fail(AssertionError()))
def raises_odd(): return Net(fail(Odd("odd")))
def raises_unprintable(): return Net(fail(Unprintable()))
def raises_control(): return Net(fail(ValueError("a\\x1b[2Jb\\rc")))
def raises_system(): return Net(fail(OSError(5, "Input/output error")))
def raises_stop(): return Net(fail(StopIteration()))
def exits(): return Net(fail(SystemExit(3)))
def recurses():
    def answer(logits):
        return answer(logits)
    return Net(answer)
def too_much(): return Net(lambda logits: logits + torch.empty(10 ** 15).sum())
def memory_error(): return Net(fail(MemoryError()))
def not_finite(): return Net(lambda logits: logits / 0 * 0)
def a_dict(): return Net(lambda logits: {"a": logits, "b": logits})
def a_tuple(): return Net(lambda logits: (logits, logits))
def a_list_of_lists(): return Net(lambda logits: [[logits]])
def nothing(): return Net(lambda logits: None)
def a_number(): return Net(lambda logits: 3.0)
def a_scalar(): return Net(lambda logits: logits.mean())
def one_each(): return Net(lambda logits: logits[:, 0])
def one_class(): return Net(lambda logits: logits[:, :1])
def integers(): return Net(lambda logits: logits.argmax(1, keepdim=True).expand(-1, 5))
def truths(): return Net(lambda logits: logits > 0)
def complex_numbers(): return Net(lambda logits: logits + 1j)
def detached(): return Net(lambda logits: logits.detach())
def one_too_many(): return Net(lambda logits: torch.cat([logits, logits[:1]]))
def two_channels(): return Net(channels=2)
def five_channels(): return Net(channels=5)
def lazy():
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5))
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), pooled)
def fixed(): return Fixed()
def empty(): return nn.Sequential()
def no_map(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(5))
def blind():
    model = Plain()
    nn.init.zeros_(model.conv.weight)
    return model
def broken_weights():
    model = Plain()
    nn.init.constant_(model.head.weight, float("nan"))
    return model
def scripted(): return torch.jit.script(Plain())
def scripted_fixed(): return torch.jit.script(Fixed())
not_callable = 3
'''

# What a name of a file may hold.
HOSTILE_NAMES = (
    "a b.png",
    " leading.png",
    "new\nline.png",
    "tab\there.png",
    "quote'.png",
    'double".png',
    "$HOME.png",
    "`id`.png",
    "-rf.png",
    "--output.png",
    "*.png",
    "percent%s.png",
    "{brace}.png",
    "back\\slash.png",
    "\u00fcml\u00e4ut.png",
    "u\u0308combining.png",
    "\u202eright-to-left.png",
    "\U0001f600.png",
    "\x1b[31mred.png",
    "nul\udcff.png",
)


def write_networks(folder: Path) -> None:
    (folder / "hostile_nets.py").write_text(NETWORKS)
    (folder / "hostile_import.py").write_text("import no_such_package_at_all\n")
    (folder / "hostile_syntax.py").write_text("def broken(:\n")
    (folder / "hostile_raise.py").write_text("raise RuntimeError('while importing')\n")
    (folder / "hostile_exit.py").write_text("import sys\nsys.exit('bye')\n")


def write_image(path: Path, size: tuple[int, int] = (24, 24), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")


def write_files(folder: Path) -> None:
    """Write images that serve, and files of every kind that do not."""
    for index in range(100):
        write_image(folder / "data" / ("cat", "dog")[index % 2] / f"{index}.png", seed=index)
    for index in range(40):
        write_image(folder / "one_class" / "cat" / f"{index}.png", seed=index)
    for index in range(6):
        write_image(folder / "few" / ("cat", "dog")[index % 2] / f"{index}.png", seed=index)
    write_image(folder / "single" / "a.png")
    (folder / "nothing").mkdir()
    (folder / "garbage").mkdir()
    for index in range(30):
        for name, content in (("a.png", b"no image"), ("b.jpg", b""), ("c.webp", b"\xff" * 50)):
            (folder / "garbage" / f"{index}{name}").write_bytes(content)
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe" / "pipe.jpg")
    (folder / "dangling").mkdir()
    (folder / "dangling" / "a.png").symlink_to(folder / "gone.png")
    (folder / "a file").write_text("text")
    for name, content in (
        ("empty", b""),
        ("dot", b"."),
        ("text", b"hello world"),
        ("zeros", bytes(1000)),
        ("header", b"\x93NUMPY\x01\x00"),
        ("ours", b"erfattr 2\n" + b"0" * 64 + b"\n"),
        ("pickle", b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00."),
    ):
        for ending in ("npy", "pt", "state", "png", "safetensors"):
            (folder / f"{name}.{ending}").write_bytes(content)
    arrays = {
        "three": np.ones((3, 8, 8)),
        "line": np.ones(8),
        "point": np.ones(()),
        "nothing": np.ones((0, 4)),
        "nan": np.full((32, 32), np.nan),
        "all_zero": np.zeros((32, 32)),
        "negative": -np.ones((32, 32)),
        "texts": np.array([["a", "b"]]),
        "other_size": np.ones((16, 20)),
        "complex": np.ones((32, 32), dtype=complex),
    }
    for name, values in arrays.items():
        np.save(folder / f"map_{name}.npy", values)
    np.save(folder / "map_objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.savez(folder / "archive.npz", a=np.ones((4, 4)))
    (folder / "archive.npz").rename(folder / "map_archive.npy")
    torch.save({"weight": torch.ones(3)}, folder / "other.pt")
    torch.save(3, folder / "number.pt")
    torch.save({}, folder / "no_weights.pt")
    torch.save(Exception, folder / "class.pt")
    (folder / "folder.npy").mkdir()
    (folder / "folder.pt").mkdir()
    (folder / "taken").mkdir()
    (folder / "taken" / "run.pt").write_bytes(b"hello world")
    (folder / "taken" / "result.json").write_text("{}")

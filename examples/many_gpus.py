# %% [markdown]
# One map, computed by several processes. Inside a `torch.distributed` group every attribution takes its share
# of the batches, and each process returns the statistics of all images.
#
# `torchrun --nproc-per-node=4 many_gpus.py` uses four GPUs, one for each process. Where there are not that
# many the processes run on the CPU. `python many_gpus.py` starts torchrun itself.

# %%
from __future__ import annotations

import os
import subprocess
import sys

import matplotlib.pyplot as plt
import torch
from torch import distributed as dist

from erfattr import DeadPixelMap, Execution, ImageLoader, demo_model, sample_images
from erfattr.report.map_plots import plot_map

if not dist.is_torchelastic_launched():
    gpus = torch.cuda.device_count()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, f"--nproc-per-node={gpus if gpus > 1 else 2}", __file__]
    sys.exit(subprocess.run(command).returncode)

# %% [markdown]
# From here on each process runs this file. GPUs talk to each other by nccl, processes on the CPU by gloo.

# %%
on_gpus = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpus else torch.device("cpu")
if on_gpus:
    torch.cuda.set_device(device)
dist.init_process_group("nccl" if on_gpus else "gloo")
rank, world = dist.get_rank(), dist.get_world_size()

# %% [markdown]
# Every process is given the same images and asks for the same map. Process r of k takes the batches r, r + k,
# and so on; `ImageLoader` does not even read the others. In float32 other sums could flip single ReLUs of the
# network, so float64 is used here to compare.

# %%
images = ImageLoader(sample_images(64, size=96), batch_size=6)
attribution = DeadPixelMap(demo_model().to(device), execution=Execution(precision="float64"))
_, shared = attribution.attribute(images, return_statistics=True)
dist.destroy_process_group()
print(f"process {rank} of {world} on {device}: statistics of {shared.n_images} images")

# %% [markdown]
# All processes hold the same result, so one is enough to go on. Outside the group it is a process like any
# other: it computes the same map alone.

# %%
if rank > 0:
    sys.exit()
_, alone = attribution.attribute(images, return_statistics=True)
difference = (shared.mean - alone.mean).abs() / alone.mean.max()

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
plot_map(shared.mean, left, title=f"dead-pixel map by {world} processes ({device.type})")
right.hist(1e16 * difference.flatten(), bins=40)
right.set(xlabel="difference / largest value ($10^{-16}$)", ylabel="pixels", yscale="log")
right.set_title(f"from one process: at most {difference.max():.1g}")
plt.show()

# %% [markdown]
# Processes add the same numbers in another order, which changes the last digits of float64 and no more.

# %%
assert shared.n_images == alone.n_images == 64
assert difference.max() < 1e-12, difference.max()

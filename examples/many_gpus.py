"""
One map from many GPUs
======================

`torchrun --nproc-per-node=4 many_gpus.py` gives each process a GPU, and every process the map of all images.
`python many_gpus.py` starts two processes on the CPU instead, and compares with one.
"""

import os
import subprocess
import sys

import matplotlib.pyplot as plt
import torch
from torch import distributed as dist

from erfattr import DeadPixelMap, Execution, ImageLoader, demo_model, sample_images

images = ImageLoader(sample_images(64, size=96), batch_size=6)  # a process reads its own batches only
attribution = DeadPixelMap(demo_model(), execution=Execution(precision="float64"))

if dist.is_torchelastic_launched():
    on_gpus = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        attribution.forward_func.cuda()
    dist.init_process_group("nccl" if on_gpus else "gloo")
    shared = attribution.attribute(images)  # every process has to ask
    if dist.get_rank() == 0:
        torch.save(shared, "shared.pt")
    dist.destroy_process_group()
else:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*torchrun, sys.argv[0]], check=True)
    shared, alone = torch.load("shared.pt"), attribution.attribute(images)
    difference = (shared - alone).abs() / alone.max()
    plt.hist(1e16 * difference.flatten(), bins=40, log=True)
    plt.xlabel("two processes against one: difference / largest value ($10^{-16}$)")
    assert difference.max() < 1e-12  # sums in another order, and nothing else

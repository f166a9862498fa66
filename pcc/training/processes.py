"""One process or several: what a run under ``torchrun`` needs to know. gloo on processors, nccl on GPUs.

All processes compute the same decisions from the same weights, so only gradients, losses and counts travel. A failure
is told once: the first process that fails says why, and whatever then fails in the others because of it ends them
silently.
"""

import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from pcc.errors import PccError

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16")
"""Of x86-64, where oneDNN multiplies with them, and of arm64; by the names of `torch.cpu.get_capabilities`."""


class OtherFailed(Exception):
    """Another process failed before this one did, and says why."""


@dataclass(frozen=True)
class Processes:
    """Which of the processes this is, and the device it computes on."""

    rank: int
    ranks: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    @property
    def device_name(self) -> str:
        """``cpu``, or the GPU's name."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    @property
    def multiplies_bf16(self) -> bool:
        """Whether the device has instructions for it: without, bf16 takes ten times as long as fp32."""
        if self.device.type == "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        return any(torch.cpu.get_capabilities().get(name, False) for name in BF16_INSTRUCTIONS)

    def share(self, model: nn.Module) -> None:
        """Every process takes the first one's weights and buffers."""
        if self.ranks > 1:
            for value in model.state_dict().values():
                distributed.broadcast(value, src=0)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module to call: gradients are averaged over the processes. Batch norms keep statistics of their own
        process until they are averaged."""
        if self.ranks == 1 or not any(parameter.requires_grad for parameter in model.parameters()):
            return model
        return DistributedDataParallel(
            model, device_ids=[self.device.index] if self.device.type == "cuda" else None, forward_sync_buffers=False
        )

    def total(self, *values: float) -> list[float]:
        """Each value summed over all processes."""
        if self.ranks == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(sums)
        return sums.tolist()

    @contextmanager
    def first_ahead(self) -> Generator[None]:
        """The first process is through the block before the others enter it: what it fetches into the cache they find
        there."""
        if self.ranks > 1 and not self.first:
            distributed.barrier()
        yield
        if self.ranks > 1 and self.first:
            distributed.barrier()


@contextmanager
def processes() -> Generator[Processes]:
    """Joins the other processes, if ``torchrun`` started some. Raises `OtherFailed` in place of what fails after
    another process failed."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
        # Torch's default would round the inputs of fp32 convolutions to TF32's ten bits.
        torch.backends.cudnn.allow_tf32 = False
    if ranks == 1:
        yield Processes(0, 1, device)
        return
    try:
        store, rank, ranks = next(rendezvous("env://"))
        distributed.init_process_group("nccl" if gpu else "gloo", store=store, rank=rank, world_size=ranks)
    except (ValueError, RuntimeError) as error:
        raise PccError(f"cannot join the other of {ranks} processes, does torchrun start them? {error}") from None
    try:
        with warnings.catch_warnings():
            # Of weights with one channel, whose gradients have the strides of either layout.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            yield Processes(rank, ranks, device)
    except BaseException:
        if store.add("pcc/failed", 1) > 1:
            raise OtherFailed from None
        raise
    finally:
        distributed.destroy_process_group()

"""The peak of memory of a training, in a process of its own."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from analysis.cost.settings import Settings
from analysis.fixtures.trainee import batch_of
from analysis.framework.meters import (
    ProcessMemory,
)
from analysis.framework.tables import Row
from ntk_propulsion.models.loaded import Head
from ntk_propulsion.models.loading import load_model
from ntk_propulsion.tasks import Task

MEMORY_STEPS = 2  # the second is the first with the state of AdamW beside the activations


def bytes_of(tensor: Tensor) -> int:
    """Return how many bytes a tensor holds."""
    return tensor.numel() * tensor.element_size()


def memory_of(settings: Settings, task: Task, method: str, threads: int) -> Row:
    """Train on all of a task's training texts, a batch, in a process of its own; weigh that.

    Before the measurement all weights are read, one short text goes forward and a layer of two
    neurons takes a step, which brings up libraries but leaves no memory free that training could
    use unseen. Then the peak is taken over a few steps, above what was resident.

    Returns:
        ``weights_bytes``: of the model, with what the method adds. ``process_bytes``: how far the
        process rose. ``rise_bytes``: what training added; on a CPU the same, on CUDA by torch's
        own count.
        ``peak_bytes``: the weights with it.
    """
    torch.set_num_threads(threads)
    head = cast(Head, "random" if settings.head == "probe" else settings.head)
    loaded = load_model(settings.model, task, device=settings.device, head=head)
    model = loaded.model
    batch, labels = batch_of(loaded, task.train, pad_to=settings.length)
    trainee = settings.trainee(model, method)
    weights = sum(bytes_of(t) for t in (*model.parameters(), *model.buffers()))
    for parameter in model.parameters():
        parameter.detach().sum()  # a file's pages come into memory when they are read
    trainee.forward({key: value[:1, :4] for key, value in batch.items()})
    _first_step(model.device)
    cuda, before = model.device.type == "cuda", 0
    if cuda:
        torch.cuda.reset_peak_memory_stats(model.device)
        before = torch.cuda.memory_allocated(model.device)
    meter = ProcessMemory()
    for _ in range(MEMORY_STEPS):
        trainee.step(batch, labels)
    process = rise = meter.rise()
    if cuda:
        rise = torch.cuda.max_memory_allocated(model.device) - before
    found = {"weights_bytes": weights, "process_bytes": process}
    return {**found, "rise_bytes": rise, "peak_bytes": weights + rise}


def _first_step(device: torch.device) -> None:
    layer = nn.Linear(2, 2, device=device)
    layer(torch.ones(1, 2, device=device)).sum().backward()
    torch.optim.AdamW(layer.parameters()).step()

"""What the ranks of one training say to each other, such that together they compute what one process would.

The batch of a step is divided: each rank gathers and augments its share, and since every random number is keyed by
(seed, epoch, scan, view), the views are those of one process. A rank r has a loss L_r; what is minimised is their mean.
Three things need the others' values: gradients (mean over ranks), batch norm (statistics of the whole batch), and
methods with negatives (`Ranks.gather`). Each is exact up to rounding: sums are taken in another order.

Gradients are averaged in flat buckets after the backward pass, in the order of the parameters: no wrapper around the
network, nothing that depends on timing. Hiding the exchange behind the backward pass (as DDP does) would pay for large
networks on slow links only.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fewscans.cluster.deadline import ToBeContinuedError
from fewscans.errors import UserError
from fewscans.ranks import Place

log = logging.getLogger("fewscans")
T = TypeVar("T")

# A rank whose process is gone is noticed at once. One that is silent (its machine lost power, it hangs) ends the others
# after so long; it must be more than rank 0 takes to write a checkpoint, or to begin later than the others.
TIMEOUT_S = 600.0
_BUCKET = 2**24  # numbers in a message: 64 MB


class RankLostError(Exception):
    """Another rank is gone or silent; what was saved last stands."""


class Ranks:
    """The processes that share this training; made without `Place`: this one alone, and all below costs nothing."""

    def __init__(self, place: Place | None = None) -> None:
        self.rank = 0 if place is None else place.rank
        self.size = 1 if place is None else place.size

    @property
    def leads(self) -> bool:
        """Whether this is the rank that reads, writes and reports for all."""
        return self.rank == 0

    def share(self, batch: Sequence[Any] | Any) -> Any:
        """Part of a batch that is for this rank; the batch's length is a multiple of the number of ranks."""
        each = len(batch) // self.size
        return batch[self.rank * each : (self.rank + 1) * each]

    def gather(self, x: Tensor) -> Tensor:
        """Rows of all ranks [size * B, ...], floats as float32 or wider; gradients flow back to whose rows they are."""
        if self.size == 1:
            return x
        if x.is_floating_point():
            x = x.to(torch.promote_types(x.dtype, torch.float32))
        return _Gather.apply(x, self.rank)  # type: ignore[no-any-return, no-untyped-call]

    def average(self, module: nn.Module, loss: Tensor) -> Tensor:
        """Replace gradients by their mean over ranks; the mean of the detached `loss`."""
        if self.size == 1:
            return loss
        # Ranks have the same network and the same steps, so the same parameters have gradients everywhere.
        tensors = [p.grad for p in module.parameters() if p.grad is not None]
        loss = loss.clone()
        for bucket in _buckets([*tensors, loss]):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            with told():
                dist.all_reduce(flat)
            flat /= self.size
            for tensor, part in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                tensor.copy_(part.view(tensor.shape))
        return loss

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether it is true on any rank; asked in each step, on the CPU: no device is waited for."""
        if self.size == 1:
            return flags
        found = torch.tensor(flags, dtype=torch.int32)
        with told():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in found)

    def first(self, action: Callable[[], T]) -> T:
        """What `action` returns on rank 0, on all of them; it runs there alone. What it raises is raised on all."""
        if self.size == 1:
            return action()
        said: list[Any] = [None, None]
        if self.leads:
            try:
                said[0] = action()
            except Exception as error:
                said[1] = error
        with told():
            dist.broadcast_object_list(said, src=0, device=torch.device("cpu"))
        if said[1] is not None:
            raise said[1]
        return said[0]  # type: ignore[no-any-return]


ALONE = Ranks()


@contextlib.contextmanager
def join(
    place: Place | None, device: torch.device, *, timeout_s: float = TIMEOUT_S
) -> Iterator[Ranks]:
    """Meet the other ranks; where there are none, nothing happens. GPUs talk by NCCL, CPUs by gloo.

    Raises
    ------
    UserError
        Some ranks have a GPU and others do not.
    RankLostError
        Not all came within `timeout_s`.
    """
    if place is None:
        yield ALONE
        return
    timeout = timedelta(seconds=timeout_s)
    with told("not all ranks have come"):
        store = _store(place, timeout)
        store.set(f"device-{place.rank}", device.type)
        kinds = [store.get(f"device-{rank}").decode() for rank in range(place.size)]
    if len(set(kinds)) > 1:
        lacking = ", ".join(str(rank) for rank, kind in enumerate(kinds) if kind == "cpu")
        raise UserError(
            f"ranks {lacking} of {place.size} have no GPU, and the others have one. Ask for one GPU per task, or set "
            "`compute.device: cpu`."
        )
    # Gloo also where there are GPUs: flags and checkpoints are on the CPU, and a dead process is noticed at once.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with told("not all ranks have come"):
        dist.init_process_group(
            backend, store=store, rank=place.rank, world_size=place.size, timeout=timeout
        )
    log.info("%d processes share this training (%s)", place.size, backend)
    try:
        yield Ranks(place)
    except ToBeContinuedError:  # of all ranks, after the same step
        with contextlib.suppress(RankLostError):
            _leave()
        raise
    _leave()


def _leave() -> None:
    """End together: rank 0 keeps the store that others may read from, and its lease until now.

    After another error than a stop there is no together.
    """
    with told():
        dist.barrier()
    dist.destroy_process_group()


def _store(place: Place, timeout: timedelta) -> dist.Store:
    kind, _, address = place.rendezvous.partition("://")
    if kind == "file":
        store: dist.Store = dist.FileStore(address, place.size)
        store.set_timeout(timeout)
        return store
    host, _, port = address.rpartition(":")
    return dist.TCPStore(host, int(port), place.size, place.rank == 0, timeout)


@contextlib.contextmanager
def told(what: str = "another rank is gone or silent") -> Iterator[None]:
    """Turn the libraries' errors into one that says what to do."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise RankLostError(
            f"{what} ({reason}). Look for its error above; the state saved last stands, so start again to go on."
        ) from error


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Consecutive `tensors`, cut where a message would be too long."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > _BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    yield bucket


class _Gather(torch.autograd.Function):
    """Rows of all ranks; backward is its transpose: the gradients that all ranks have for our rows, summed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int) -> Tensor:
        ctx.rank, ctx.n = rank, len(x)
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        with told():
            dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        with told():
            dist.all_reduce(total)
        return total[ctx.rank * ctx.n : (ctx.rank + 1) * ctx.n], None

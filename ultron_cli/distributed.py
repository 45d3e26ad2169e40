"""The processes of one training or extraction, as torchrun starts them; alone, every function here does nothing and
costs nothing."""

import datetime
import os
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.autograd.function import FunctionCtx

# torch documents these names; its list of exports lacks them.
from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from ultron_cli.errors import UltronError
from ultron_cli.processes import stop_with_launcher

T = TypeVar("T")

TIMEOUT = datetime.timedelta(minutes=30)  # the other processes wait while the first validates


def started_by_torchrun() -> bool:
    """Whether torchrun (or a launcher that sets the same variables) started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ


def restart_count() -> int:
    """How often torchrun has restarted the run after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def process_device(device: torch.device) -> torch.device:
    """This process's device: a GPU each, chosen by LOCAL_RANK. Raises UltronError where there are fewer GPUs than
    processes."""
    if device.type != "cuda" or not started_by_torchrun():
        return device
    local = int(os.environ.get("LOCAL_RANK", "0"))
    n_gpus = torch.cuda.device_count()
    if local >= n_gpus:
        raise UltronError(
            f"torchrun started {local + 1} or more processes on a machine with {n_gpus} GPUs; use "
            f"--nproc-per-node {n_gpus} of torchrun, or `device` cpu"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def join_processes(device: torch.device) -> None:
    """Joins the process group (NCCL on GPUs, Gloo on CPUs); nothing outside torchrun or when joined already."""
    if not started_by_torchrun() or dist.is_initialized():
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:
        stop_with_launcher()  # one that is killed tells its processes nothing
    is_gpu = device.type == "cuda"
    backend = "nccl" if is_gpu else "gloo"
    device_id = device if is_gpu else None
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        dist.init_process_group(backend, timeout=TIMEOUT, device_id=device_id)
        return
    # torchrun keeps its store over a restart; without a prefix the new processes would read the addresses of the
    # dead ones in it.
    n_expected = int(os.environ["WORLD_SIZE"])
    address = os.environ["MASTER_ADDR"]
    port = int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, n_expected, is_master=False, timeout=TIMEOUT)
    prefixed = PrefixStore(f"ultron-{restart_count()}", store)
    dist.init_process_group(
        backend,
        timeout=TIMEOUT,
        device_id=device_id,
        store=prefixed,
        rank=int(os.environ["RANK"]),
        world_size=n_expected,
    )


def leave_processes() -> None:
    """Leaves the process group, if any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def n_processes() -> int:
    """Number of processes of this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_index() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first_process() -> bool:
    """Whether this is the process that speaks for the run; known before joining and after leaving the others."""
    return os.environ.get("RANK", "0") == "0"


def wait_for_processes() -> None:
    """Returns when every process has called it."""
    if n_processes() > 1:
        dist.barrier()


def from_first_process(value: T) -> T:
    """`value` (plain data) as the first process has it."""
    if n_processes() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def gather_rows(values: torch.Tensor) -> torch.Tensor:
    """(B, ...) of every process -> (processes * B, ...), without gradient. B must be the same everywhere."""
    values = values.detach().contiguous()
    if n_processes() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(n_processes())]
    dist.all_gather(parts, values)
    return torch.cat(parts)


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Element-wise sum over the processes, without gradient."""
    total = values.detach().clone()
    if n_processes() > 1:
        dist.all_reduce(total)
    return total


def max_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Element-wise maximum over the processes, without gradient."""
    highest = values.detach().clone()
    if n_processes() > 1:
        dist.all_reduce(highest, op=dist.ReduceOp.MAX)
    return highest


def sum_numbers(values: list[float], device: torch.device) -> list[float]:
    """Sums of a few numbers over the processes."""
    if n_processes() == 1:
        return values
    return sum_over_processes(torch.tensor(values, dtype=torch.float64, device=device)).tolist()


def max_numbers(values: list[float], device: torch.device) -> list[float]:
    """Maxima of a few numbers over the processes."""
    if n_processes() == 1:
        return values
    return max_over_processes(torch.tensor(values, dtype=torch.float64, device=device)).tolist()


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Replaces each gradient by its mean over the processes, as DistributedDataParallel does for what it wraps."""
    if n_processes() == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= n_processes()


class _SumWithGradient(torch.autograd.Function):
    """As sum_with_gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: torch.Tensor) -> torch.Tensor:
        return sum_over_processes(values)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


class _GatherWithGradient(torch.autograd.Function):
    """As gather_with_gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: torch.Tensor) -> torch.Tensor:
        return gather_rows(values)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: torch.Tensor) -> torch.Tensor:
        total = sum_over_processes(gradients[0].contiguous())
        n_rows = len(total) // n_processes()
        return total[process_index() * n_rows : (process_index() + 1) * n_rows] * n_processes()


class _GatherBatch(torch.autograd.Function):
    """As gather_batch."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: torch.Tensor) -> torch.Tensor:
        return gather_rows(values)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: torch.Tensor) -> torch.Tensor:
        n_rows = len(gradients[0]) // n_processes()
        return gradients[0][process_index() * n_rows : (process_index() + 1) * n_rows] * n_processes()


def sum_with_gradient(values: torch.Tensor) -> torch.Tensor:
    """Sum over processes of parts of ONE loss that every process computes whole: the gradient of each part is that of
    the sum."""
    total: torch.Tensor = _SumWithGradient.apply(values)
    return total


def gather_with_gradient(values: torch.Tensor) -> torch.Tensor:
    """(B, D) of every process -> (processes * B, D), for ONE loss that every process computes in part from its own
    classes.

    Backward: the parts of the gradient are summed; times the number of processes, as DistributedDataParallel takes the
    mean afterwards.
    """
    rows: torch.Tensor = _GatherWithGradient.apply(values)
    return rows


def gather_batch(values: torch.Tensor) -> torch.Tensor:
    """(B, D) of every process -> (processes * B, D), for ONE loss that every process computes whole.

    Backward: each process takes the gradient of its own rows, which is whole already; times the number of processes, as
    DistributedDataParallel takes the mean afterwards.
    """
    rows: torch.Tensor = _GatherBatch.apply(values)
    return rows

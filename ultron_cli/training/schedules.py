"""Learning-rate schedules by name: the share of the full rate that a step has after the warm-up.

Importing this module loads no torch.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from ultron_cli import user_code
from ultron_cli.configs import one_of
from ultron_cli.errors import UltronError

if TYPE_CHECKING:
    from ultron_cli.training.config import TrainConfig

COMPARED_PLACES = 256  # of a schedule by import path, when a run is to go on with more epochs


class UserSchedule(Protocol):
    """A schedule that a user names by import path: an object of a class that is made of its settings,
    `schedule_settings.NAME`."""

    def __call__(self, epoch: float, epochs: int) -> float:
        """The share of the full rate, 0 or more. epoch: from 0, with the part of it that is done; epochs: of the whole
        run."""
        ...


Share = Callable[["TrainConfig", int, int], float]


def rate_at(step: int, n_steps: int, n_warmup: int, restarts: Iterable[int] = ()) -> float:
    """Share of the full learning rate: linear warm-up, then half a cosine down to 0, which begins anew at the steps
    `restarts`, ascending."""
    if step < n_warmup:
        return (step + 1) / n_warmup
    ends = [*restarts, n_steps]
    place = bisect.bisect_right(ends[:-1], step)
    start, end = (ends[place - 1] if place else n_warmup), ends[place]
    return 0.5 * (1.0 + math.cos(math.pi * (step - start) / max(1, end - start)))


def n_warmup_steps(config: TrainConfig, steps_per_epoch: int) -> int:
    """Steps over which the rate rises from 0 to the full one, whatever the schedule."""
    return round(config.warmup_epochs * steps_per_epoch)


def _cosine(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    restarts = [epoch * steps_per_epoch for epoch in config.restart_epochs]
    return rate_at(step, config.epochs * steps_per_epoch, n_warmup_steps(config, steps_per_epoch), restarts)


def _steps(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    n_drops = bisect.bisect_right(sorted(config.step_epochs), step / steps_per_epoch)
    return config.step_factor**n_drops


def _constant(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    return 1.0


def share_of_schedule(name: str, settings: Mapping[str, object] | None) -> Share:
    """The schedule of a name of SCHEDULES, or of an import path (`my.py:Schedule`) with its settings. Raises
    UltronError for an unknown name, and for a class that is no schedule."""
    if not user_code.is_import_path(name):
        one_of("schedule", name, SCHEDULES)
        if settings:
            raise UltronError(
                f"schedule_settings are of a schedule by import path, found schedule {name}; leave them out"
            )
        return SCHEDULES[name]
    part = user_code.load(name, "schedule", SCHEDULES)
    part.require_method("__call__(epoch, epochs)", UserSchedule)
    schedule: UserSchedule = part.made(settings=settings, prefix="schedule_settings.")

    def share(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
        with user_code.blaming(schedule, "__call__"):
            value = schedule(step / steps_per_epoch, config.epochs)
        if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise UltronError(
                f"{part.place('__call__')}: {part.name} must give a share of the learning rate, 0 or more; found "
                f"{value!r} for epoch {step / steps_per_epoch:g} of {config.epochs}"
            )
        return value

    return share


def schedule_until(config: TrainConfig, epoch: int) -> list[float]:
    """What tells whether two schedules have the same rates up to `epoch`, counted from 0: the epochs at which the rate
    drops, or a cosine ends; of a schedule by import path the rates themselves, at many places."""
    if user_code.is_import_path(config.schedule):
        return [config.schedule_share(config, epoch * place, COMPARED_PLACES) for place in range(COMPARED_PLACES)]
    if config.schedule == "cosine":
        return [end for end in (*config.restart_epochs, config.epochs) if end <= epoch]
    return [drop for drop in sorted(config.step_epochs) if drop < epoch]


# Each gives the share of the full rate that a step after the warm-up has. Beside these an import path names a
# UserSchedule.
SCHEDULES: dict[str, Share] = {"cosine": _cosine, "steps": _steps, "constant": _constant}

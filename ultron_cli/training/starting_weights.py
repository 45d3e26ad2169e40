"""Starts a training from a checkpoint: its network, and its class weights of the landmarks that both know."""

from pathlib import Path

import torch

from ultron_cli.configs import differences, to_dict
from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.models.weights.checkpoints import load_checkpoint, read_weights_file
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.learner import Learner
from ultron_cli.training.optimisers import RunningMean


def require_start(config: TrainConfig) -> None:
    """Before a new run opens its photos. Raises UltronError if it needs weights to start from and has none, or if the
    file is not there."""
    if config.tuple_size and not (config.weights or config.pretrained):
        raise UltronError(
            "the second stage of CFCD goes on from a trained network, found none; give that of the first with "
            "--set weights=CHECKPOINT"
        )
    if config.weights and not Path(config.weights).expanduser().is_file():
        raise UltronError(
            f"weights must be a checkpoint to start from, there is no file {config.weights}; give another with "
            "--set weights=CHECKPOINT"
        )


def start_from(learner: Learner, path: Path, landmark_names: list[str]) -> torch.Tensor | None:
    """Gives the learner the weights of a checkpoint of the same model. Returns the (N, D) class weights of all
    landmarks, None without.

    Landmarks that the checkpoint does not know keep their fresh class weights. Raises UltronError if it is of another
    model.
    """
    path = path.expanduser()
    loaded, model = load_checkpoint(path), learner.model
    stored, wanted = ({"model": one.name, **to_dict(one.settings)} for one in (loaded.model, model))
    differing = differences(stored, wanted)
    if differing:
        raise UltronError(
            f"{path} holds another model than the one to train: {'; '.join(differing)}; set the model to that "
            "of the checkpoint"
        )
    model.load_state_dict(loaded.model.state_dict())
    if learner.running_mean:
        learner.running_mean = RunningMean(model, learner.running_mean.decay)
    weight = _class_weights(learner, path, landmark_names)
    log.info(
        "starting from %s%s",
        path,
        "" if weight is not None else ", which has no class weights of these landmarks: they start anew",
    )
    return weight


@torch.no_grad()
def _class_weights(learner: Learner, path: Path, landmark_names: list[str]) -> torch.Tensor | None:
    """Copies the known class weights into the loss. (N, D), N classes times centres, on its device; None if the
    checkpoint has none that fit."""
    content, loss = read_weights_file(path), learner.loss
    known = content.get("loss_state", {}).get("weight")
    number = {name: i for i, name in enumerate(content.get("landmarks", []))}
    found = [(i, number[name]) for i, name in enumerate(landmark_names) if name in number]
    if known is None or not found or known.shape != (len(number) * loss.n_centres, loss.weight.shape[1]):
        return None
    if len(found) < len(landmark_names):
        log.info(
            "%s knows %d of the %d landmarks; the class weights of the others start anew",
            path.name,
            len(found),
            len(landmark_names),
        )
    fresh = torch.empty(len(landmark_names), loss.n_centres, known.shape[1])
    torch.nn.init.xavier_uniform_(fresh.view(-1, known.shape[1]))
    first, last = loss.first_class, loss.first_class + len(loss.weight) // loss.n_centres
    fresh[first:last] = loss.weight.cpu().view(last - first, *fresh.shape[1:])
    here, there = (torch.tensor(column) for column in zip(*found, strict=True))
    fresh[here] = known.float().view(-1, *fresh.shape[1:])[there]
    everyones = fresh.flatten(0, 1).to(loss.weight.device)
    loss.weight.copy_(everyones[first * loss.n_centres : last * loss.n_centres])
    return everyones

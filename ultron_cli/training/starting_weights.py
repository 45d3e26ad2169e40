"""Starts a training from a checkpoint: its network, and its class weights of the landmarks that both know."""

from pathlib import Path

import torch

from ultron_cli.configs import differences, to_dict
from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.checkpoints import load_checkpoint
from ultron_cli.models.weights.reading import read_weights_file
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.learner import Learner
from ultron_cli.training.losses.base import MarginLoss


def require_start(config: TrainConfig) -> None:
    """Before a new run opens its photos. Raises UltronError if it needs weights to start from and has none, or if the
    file is not there."""
    if config.tuple_settings and not (config.weights or config.pretrained):
        raise UltronError(
            "the second stage of CFCD goes on from a trained network, found none; give that of the first with "
            "`weights=CHECKPOINT`"
        )
    if config.weights and not Path(config.weights).expanduser().is_file():
        raise UltronError(
            f"weights must be a checkpoint to start from, there is no file {config.weights}; give another with "
            "`weights=CHECKPOINT`"
        )


def start_from(learner: Learner, path: Path, landmark_names: list[str]) -> torch.Tensor | None:
    """Gives the learner the weights of a checkpoint of the same model. Returns the (N, D) class weights of all
    landmarks, None without.

    Landmarks that the checkpoint does not know keep their fresh class weights. Raises UltronError if it is of another
    model.
    """
    path = path.expanduser()
    stored_model = load_checkpoint(path).model
    differing = differences(_settings(stored_model), _settings(learner.model))
    if differing:
        raise UltronError(
            f"{path} holds another model than the one to train: {'; '.join(differing)}; set the model to that "
            "of the checkpoint"
        )
    learner.load_model(stored_model.state_dict())
    if not isinstance(learner.loss, MarginLoss):
        log.info("starting from %s", path)
        return None
    weight = _class_weights(learner.loss, path, landmark_names)
    log.info(
        "starting from %s%s",
        path,
        "" if weight is not None else ", which has no class weights of these landmarks: they start anew",
    )
    return weight


def _settings(model: RetrievalModel) -> dict[str, object]:
    """What a model is made from, its name among it."""
    return {"model": model.name, **to_dict(model.settings)}


@torch.no_grad()
def _class_weights(loss: MarginLoss, path: Path, landmark_names: list[str]) -> torch.Tensor | None:
    """Copies the known class weights into the loss. (N, D), N classes times centres, on its device; None if the
    checkpoint has none that fit."""
    content = read_weights_file(path)
    stored_weight = content.get("loss_state", {}).get("weight")
    stored_row = {name: row for row, name in enumerate(content.get("landmarks", []))}
    rows = [row for row, name in enumerate(landmark_names) if name in stored_row]
    stored_shape = (len(stored_row) * loss.n_centres, loss.weight.shape[1])
    if stored_weight is None or not rows or stored_weight.shape != stored_shape:
        return None
    if len(rows) < len(landmark_names):
        log.info(
            "%s knows %d of the %d landmarks; the class weights of the others start anew",
            path.name,
            len(rows),
            len(landmark_names),
        )
    weight = torch.empty(len(landmark_names), loss.n_centres, stored_weight.shape[1])
    torch.nn.init.xavier_uniform_(weight.view(-1, stored_weight.shape[1]))
    first = loss.first_class
    last = first + loss.n_local_classes
    weight[first:last] = loss.weight.cpu().view(last - first, *weight.shape[1:])
    stored_rows = [stored_row[landmark_names[row]] for row in rows]
    weight[rows] = stored_weight.float().view(-1, *weight.shape[1:])[stored_rows]
    class_weights = weight.flatten(0, 1).to(loss.weight.device)
    loss.weight.copy_(class_weights[first * loss.n_centres : last * loss.n_centres])
    return class_weights

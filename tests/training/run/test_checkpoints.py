"""What a training checkpoint says of itself is checked before a run goes on from it."""

from pathlib import Path

import pytest
import torch

from ultron_cli.errors import UltronError
from ultron_cli.training.run.checkpoints import load_latest_state


@pytest.mark.parametrize(("key", "value"), [("version", "1"), ("version", None), ("n_ranks", [1]), ("step", None)])
def test_a_checkpoint_of_wrong_types_is_refused(key: str, value: object, tmp_path: Path) -> None:
    content = {"format": "ultron-training", "version": 1, "step": 3, "n_ranks": 1, key: value}
    if value is None:
        del content[key]
    (tmp_path / "checkpoints").mkdir()
    torch.save(content, tmp_path / "checkpoints" / "step-00000003.pt")
    with pytest.raises(UltronError, match=rf"step-00000003\.pt is not sound \(.*{key}.*\); start a new run"):
        load_latest_state(tmp_path, is_sharded=False)

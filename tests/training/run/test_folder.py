"""A run's folder stays one that a run may use, wherever a kill leaves it."""

import json
import shutil
from pathlib import Path

import pytest

from ultron_cli.training.run.folder import clear_folder, refuse_foreign_folder


def test_a_folder_that_was_not_cleared_to_the_end_is_still_a_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"config": {}, "provenance": {"ultron_version": "0.1.0"}}))
    (tmp_path / "split.json").write_text("{}")
    (tmp_path / "checkpoints").mkdir()

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", kill)
        clear_folder(tmp_path, torn_only=False)
    assert not (tmp_path / "split.json").exists()
    refuse_foreign_folder(tmp_path)
    clear_folder(tmp_path, torn_only=False)
    assert list(tmp_path.iterdir()) == []

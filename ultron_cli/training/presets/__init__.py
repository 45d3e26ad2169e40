"""The configuration of a run: preset, then --config, then --set; and where each value came from."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from ultron_cli import user_code
from ultron_cli.configs import apply_set, differences, flatten, from_dict, read_run, read_toml_config
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.training.autola.config import AutolaConfig, as_stored
from ultron_cli.training.config import TrainConfig, binding_settings
from ultron_cli.training.run.folder import is_finished
from ultron_cli.training.schedules import schedule_until

Config = TrainConfig | AutolaConfig


DEFAULT_PRESET = "quickstart"
HEAD_PRESET = "linear-adaptation"  # of a training on stored descriptors


def start_preset(preset: str | None, assignments: Sequence[str]) -> str:
    """The preset of a new run: the one named, else by what it is trained on."""
    is_of_head = any(assignment.startswith("descriptors=") for assignment in assignments)
    return preset or (HEAD_PRESET if is_of_head else DEFAULT_PRESET)


def list_presets() -> list[str]:
    """Names that --preset takes."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in resources.files(__name__).iterdir()
        if entry.name.endswith(".toml")
    )


def read_preset(name: str) -> dict[str, object]:
    """The values that a preset sets. Raises UltronError for an unknown name."""
    if name not in list_presets():
        raise UltronError(
            f"unknown preset {name!r}{nearest_names(name, list_presets())} (known: {', '.join(list_presets())})"
        )
    with resources.as_file(resources.files(__name__) / f"{name}.toml") as path:
        return read_toml_config(path)


def _merge(values: dict[str, object], changes: dict[str, object]) -> dict[str, object]:
    """`values` with `changes` over them. A table that names another loss or model starts anew: the old one's settings
    are not its own."""
    merged = dict(values)
    for key, change in changes.items():
        table = merged.get(key)
        if not isinstance(change, dict) or not isinstance(table, dict):
            merged[key] = change
            continue
        is_renamed = "name" in change and "name" in table and change["name"] != table["name"]
        merged[key] = dict(change) if is_renamed else table | change
    return merged


def make_config(values: dict[str, object], is_stored: bool = False) -> Config:
    """The configuration of a training, or of a search where `task` says so. Raises UltronError for an unknown key or
    value.

    is_stored: the values are those of a run's folder, of this version or an earlier one.
    """
    if "task" not in values:
        return from_dict(TrainConfig, values)
    return from_dict(AutolaConfig, as_stored(values) if is_stored else values)


def load_config(preset: str, file: Path | None, assignments: Sequence[str]) -> Config:
    """The final configuration. Raises UltronError for an unknown preset, key or value, naming near ones."""
    return _configured(read_preset(preset), file, assignments)


def _configured(values: dict[str, object], file: Path | None, assignments: Sequence[str]) -> Config:
    """`values` with those of --config over them, then --set; code that these two name is run. Raises UltronError, which
    names the file if it is to blame."""
    user_code.permit_in(apply_set({}, assignments))
    if not file:
        return make_config(_assign(values, assignments))
    from_file = read_toml_config(file)
    user_code.permit_in(from_file)
    try:
        return make_config(_assign(_merge(values, from_file), assignments))
    except UltronError as error:
        make_config(_assign(values, assignments))  # raises where the file is not to blame
        raise _of_file(file, error) from None


def _of_file(file: Path, error: UltronError) -> UltronError:
    """The error with the file that it is about."""
    return error if str(file) in error.message else UltronError(f"{file}: {error.message}", *error.ways)


def _stored_config(stored: Path) -> Config:
    """The configuration in a run's config.json. Raises UltronError, which names the file."""
    try:
        return make_config(read_run(stored.parent).config, is_stored=True)
    except UltronError as error:
        raise _of_file(stored, error) from None


def _assign(values: dict[str, object], assignments: Sequence[str]) -> dict[str, object]:
    """`values` with --set applied; model.name and loss.name first, as they start their table anew."""
    for assignment in sorted(assignments, key=lambda text: not text.startswith(("model.name=", "loss.name="))):
        key, _, name = assignment.partition("=")
        if key in ("model.name", "loss.name"):
            table = values.get(key[:-5], {})
            if isinstance(table, dict) and table.get("name") != name.strip("\"'"):
                values = values | {key[:-5]: {}}
        values = apply_set(values, [assignment])
    return values


def changed_config(config: Config, assignments: Sequence[str]) -> Config:
    """A configuration with --set over it. Raises UltronError."""
    return make_config(_assign(config.to_plain(), assignments)) if assignments else config


def resumed_config(
    stored: Path,
    preset: str | None,
    file: Path | None,
    assignments: Sequence[str],
    requested_config: Config | None = None,
) -> Config:
    """The configuration of a run that goes on, whose config.json is `stored`. Raises UltronError if what is asked for
    now (a preset, or a whole configuration) is another one, but for more epochs where the rates of the steps that were
    planned stay as they are."""
    stored_config = _stored_config(stored)
    if requested_config is not None:
        config = changed_config(requested_config, assignments)
    elif preset is not None:
        config = load_config(preset, file, assignments)
    else:
        config = _configured(stored_config.to_plain(), file, assignments)
    old, new = binding_settings(stored_config.to_plain()), binding_settings(config.to_plain())
    if new["epochs"] != old["epochs"]:
        _require_same_schedule(stored.parent, stored_config, config)
        new |= {key: old[key] for key in ("epochs", "restart_epochs", "step_epochs")}
    elif is_finished(stored.parent):
        more = f"go on with more epochs (`epochs={2 * stored_config.epochs}`), or " * isinstance(config, TrainConfig)
        raise UltronError(
            f"{stored.parent} is finished after epoch {stored_config.epochs}, there is nothing to resume; {more}leave "
            "out `resume` (with `overwrite` to train it again)"
        )
    differing = differences(old, new)
    if differing:
        raise UltronError(
            f"{stored.parent} was started with another configuration: {'; '.join(differing)}; leave these "
            "settings out to resume it, or start a new run"
        )
    return config


def _require_same_schedule(folder: Path, stored: Config, config: Config) -> None:
    """Raises UltronError unless a run can go on with other epochs: with more, and the same rates until the epoch it was
    to end with."""
    where = f"{folder} was started with epochs={stored.epochs}"
    if config.epochs < stored.epochs:
        raise UltronError(f"{where}, and can go on with more, not with {config.epochs}; give more, or start a new run")
    if not isinstance(stored, TrainConfig) or not isinstance(config, TrainConfig):
        raise UltronError(f"{where}, over which a search's rate falls; resume without `epochs`, or start a new run")
    if schedule_until(stored, stored.epochs) == schedule_until(config, stored.epochs):
        return
    if stored.schedule == config.schedule == "cosine":
        restarts = ",".join(map(str, (*stored.restart_epochs, stored.epochs)))
        raise UltronError(
            f"{where}, over which the cosine of its rate falls to 0; go on with a second cosine after it with "
            f"`restart_epochs={restarts}` beside `epochs={config.epochs}`, or start a new run"
        )
    raise UltronError(f"{where}, and other rates until then; give the same, or start a new run")


def explain_config(preset: str, file: Path | None, assignments: Sequence[str]) -> list[tuple[str, object, str]]:
    """(key, final value, where it came from) of every setting, in the order of TrainConfig."""
    final = flatten(load_config(preset, file, assignments).to_plain())
    sources = [(f"preset {preset}", flatten(read_preset(preset)))]
    if file:
        sources.append((str(file), flatten(read_toml_config(file))))
    sources.append(("set", flatten(apply_set({}, assignments))))
    origin = {key: name for name, values in sources for key in values}
    return [(key, value, origin.get(key, "default")) for key, value in final.items()]

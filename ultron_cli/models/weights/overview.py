"""What is to be said of files of weights, of which nothing is run: `ultron weights inspect`."""

from pathlib import Path

from ultron_cli.configs import to_dict
from ultron_cli.console import counted, lines, named, table
from ultron_cli.models.weights.checkpoints import FORMAT
from ultron_cli.models.weights.network_record import KEY, NetworkRecord
from ultron_cli.models.weights.onnx_reading import OnnxContents, onnx_contents, stored_record
from ultron_cli.models.weights.reading import bare_state_dict, read_weights_file

MOST_SHOWN = 100  # characters of a text of the file
WITHOUT_RECORD = (
    "mean and sd of ImageNet, unless `model.mean` and `model.sd` say others when it is used (of uint8 nothing is "
    "subtracted)"
)


def describe_weights(path: Path) -> tuple[dict[str, object], str]:
    """Facts of a file of torch or safetensors, and the same as text. Raises UltronError if it is none."""
    content = read_weights_file(path)
    state = bare_state_dict(content, path)
    ours = content.get("format") == FORMAT
    kind = (
        f"checkpoint of ultron {content['ultron_version']}: {content['model']['name']} {content['model']['settings']}"
        if ours
        else "state dict"
    )
    tensors = [
        {"name": name, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
        for name, value in state.items()
    ]
    n_values = sum(value.numel() for value in state.values())
    rows = [(entry["name"], "x".join(map(str, entry["shape"])) or "scalar", entry["dtype"]) for entry in tensors]
    text = lines(
        table(("tensor", "shape", "type"), rows, what="tensors"),
        f"{kind}; {counted(len(tensors), 'tensor')}, {n_values / 1e6:.2f} M values",
    )
    return {"kind": kind, "values": n_values, "tensors": tensors}, text


def describe_onnx(path: Path) -> tuple[dict[str, object], str]:
    """Facts of a network in ONNX, and the same as text. Raises UltronError if it is none, or what it says of itself is
    not sound."""
    contents = onnx_contents(path)
    record = stored_record(path, contents.metadata.get(KEY))
    files = sorted({tensor.file for tensor in contents.tensors if tensor.file is not None})
    facts = {
        "kind": "network in ONNX",
        "values": contents.n_values,
        "weights_beside": files,
        **to_dict(contents),
        "record": record.to_dict() if record else None,
    }
    n_operators = sum(contents.operators.values())
    opsets = ", ".join(f"{domain} {version}" for domain, version in contents.opsets.items())
    rows = [
        ("takes", "; ".join(map(str, contents.inputs))),
        ("gives", "; ".join(map(str, contents.outputs))),
        (
            "operators",
            f"{n_operators} of {opsets} (IR version {contents.ir_version}): {_names(list(contents.operators))}",
        ),
        ("custom operators", _names(list(contents.custom_operators)) or "none"),
        ("weights beside it", _names(files) or "none"),
        ("written by", contents.producer[:MOST_SHOWN] or "not said"),
        *((key.replace("_", " "), value) for key, value in _preparation(record).items()),
        *_metadata(contents),
    ]
    tensors = [
        (tensor.name[:MOST_SHOWN], "x".join(map(str, tensor.shape)) or "scalar", tensor.dtype)
        for tensor in contents.tensors
    ]
    text = lines(
        table(("tensor", "shape", "type"), tensors, what="tensors"),
        table(("", ""), rows, left=2),
        f"network in ONNX; {counted(len(tensors), 'tensor')}, {contents.n_values / 1e6:.2f} M values",
    )
    return facts, text


def _names(names: list[str]) -> str:
    return named([name[:MOST_SHOWN] for name in names], most=8)


def _metadata(contents: OnnxContents) -> list[tuple[str, str]]:
    return [
        (f"metadata {key[:MOST_SHOWN]}", value[:MOST_SHOWN]) for key, value in contents.metadata.items() if key != KEY
    ]


def _preparation(record: NetworkRecord | None) -> dict[str, str]:
    """How photos are prepared for it, and what is inside."""
    if record is None:
        return {"preprocessing": f"not said: {WITHOUT_RECORD}"}
    sides = (
        f"all resized to {record.sides_px[0]} x {record.sides_px[1]} px (height x width)"
        if record.sides_px
        else f"sides of {record.least_side_px} px at least, scaled down to {record.max_side_px} px before"
    )
    whitening = record.whitening
    return {
        "model": f"{record.label} (weights {record.weights_sha256[:12]}), ultron {record.ultron_version}"[:200],
        "photos": f"RGB, {record.pixels}; {sides}; {record.interpolation}, boxes {record.box_edges}",
        "preprocessing": f"inside: mean {list(record.mean)}, sd {list(record.sd)}",
        "scales": f"inside: {', '.join(f'{scale:g}' for scale in record.scales)} ({record.scaling})",
        "whitening": f"inside: {whitening.method} to {whitening.dim}-d" if whitening else "none",
        "descriptors": f"{record.descriptor_dim}-d",
    }

"""A network as an ONNX file that takes photos of any size, written once and then taken from the user's cache.

It goes from one normalised photo (1, 3, H, W) to its unit descriptor (1, D): scales, and how they are joined, stay with
extraction/describe.py.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from onnxscript import opset18
from torch import nn
from ultron_kernels.ops import standard_operators

from ultron_cli import __version__
from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file
from ultron_cli.guarded import one_line
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.runtimes.same_padding import TRANSLATIONS, same_convolutions
from ultron_cli.models.runtimes.window_padding import counted_windows
from ultron_cli.models.weights.checkpoints import LoadedModel

EXAMPLE_SIDES_PX = (192, 256)  # of the photo with which a network is traced, or the model's least where that is more
CACHE_VARIABLE = "ULTRON_NETWORK_CACHE"
INT64 = 7  # ONNX's number of the type
DIGITS = 32  # of the hash in a file's name


def cache_folder() -> Path:
    """Where exported networks lie: ULTRON_NETWORK_CACHE, else a folder in the user's cache."""
    folder = os.environ.get(CACHE_VARIABLE)
    if folder:
        return Path(folder)
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(user_cache) / "ultron" / "networks"


def exported_network(loaded: LoadedModel) -> Path:
    """The ONNX file of a model, exported now where it is not in the cache.

    The file is named by all that it was made of: weights, settings and the versions of ultron and torch. Raises
    UltronError if the network cannot be exported.
    """
    made_of = {
        "weights_sha256": loaded.weights_sha256,
        "model": loaded.model.made_of(),
        "ultron": __version__,
        "torch": torch.__version__,
    }
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()
    path = cache_folder() / f"{digest[:DIGITS]}.onnx"
    if not path.exists():
        log.info("exporting %s for other runtimes, once: %s", loaded.model.label, path)
        content = onnx_bytes(loaded)
        with whole_file(path) as output:
            output.write(content)
    return path


def example_photo(model: RetrievalModel) -> torch.Tensor:
    """(1, 3, H, W) float32: a grey photo of few pixels, normalised, that the model takes."""
    return torch.zeros(1, 3, *(max(side, model.min_side_px) for side in EXAMPLE_SIDES_PX))


def onnx_bytes(loaded: LoadedModel) -> bytes:
    """The ONNX model. Raises UltronError, with the exporter's reason, if it cannot be made."""
    model = loaded.model.cpu().eval()
    dynamic = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    try:
        return onnx_model(model, {"images": example_photo(model)}, {"images": dynamic}, "descriptors")
    except CannotExport as error:
        raise UltronError(
            f"{model.label} cannot be written as ONNX for photos of any size ({error})", "use `runtime=torch`"
        ) from error


class CannotExport(Exception):
    """The exporter does not take a module; the text is its reason, in one line."""


def onnx_model(
    module: nn.Module,
    examples: Mapping[str, torch.Tensor],
    dynamic_shapes: Mapping[str, Mapping[int, object]] | None,
    output_name: str,
) -> bytes:
    """A module in evaluation mode as an ONNX model of standard operators.

    examples: by the names of forward's arguments, which the inputs bear. dynamic_shapes: by argument, the axes that are
    of any size; None for none. Raises CannotExport.
    """
    with _quiet(), torch.no_grad(), same_convolutions(module), counted_windows(module), standard_operators():
        try:
            program = torch.onnx.export(
                module,
                tuple(examples.values()),
                dynamo=True,
                input_names=list(examples),
                output_names=[output_name],
                custom_translation_table={**TRANSLATIONS, round: _onnx_round},
                dynamic_shapes=None if dynamic_shapes is None else dict(dynamic_shapes),
            )
            assert program is not None
            return program.model_proto.SerializeToString()
        except (torch.onnx.OnnxExporterError, RuntimeError, ValueError) as error:
            raise CannotExport(one_line(error)) from error


# Of a side that stands for any.
def _onnx_round(number, ndigits: None = None):
    return opset18.Cast(opset18.Round(number), to=INT64)  # pyright: ignore[reportArgumentType]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the exporter's warnings and progress are kept to themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

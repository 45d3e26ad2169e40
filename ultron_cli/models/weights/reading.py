"""Reads weights files from anywhere: nothing in them is run, and what is none is called what it is.

A .pth or .pt file of torch may name tensors, plain data and the types of HARMLESS, no more (weights_only=True).
"""

import argparse
import contextlib
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
import numpy as np
import torch

from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.files import require_regular_file
from ultron_cli.guarded import limited_memory, one_line
from ultron_cli.memory import check_memory

T = TypeVar("T")

CONTAINERS = ("state_dict", "model_state", "model", "state_dict_ema")  # keys under which files keep a state dict
WRAPPERS = ("module.", "_orig_mod.")  # of data-parallel training and of torch.compile: no network names a layer so
PREFIXES = (*WRAPPERS, "model.", "backbone.")  # stripped where the names fit without
SPARE_BYTES = 1 << 30  # beside three times what a file holds: what torch and Python themselves need
LFS_POINTER = b"version https://git-lfs"


class _PlainDict:
    """In the place of the dictionaries of configuration libraries: torch fills no others than its own kinds."""

    def __new__(cls, *arguments: object) -> Any:
        return OrderedDict()


def _numpy_parts() -> list[Callable | tuple[Callable, str]]:
    """What a pickle of plain numpy arrays and numbers names. Files of numpy 1 and 2 name it differently."""
    from numpy._core import multiarray

    named = [
        (getattr(multiarray, part), f"numpy.{core}.multiarray.{part}")
        for core in ("core", "_core")
        for part in ("_reconstruct", "scalar")
    ]
    kinds = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "U1", "S1")
    return [np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in kinds}, *named]


# Types that published checkpoints hold beside tensors, and that run nothing when they are made.
HARMLESS: list[Callable | tuple[Callable, str]] = [
    argparse.Namespace,
    *_numpy_parts(),
    *(
        (_PlainDict, name)
        for name in (
            "yacs.config.CfgNode",
            "fvcore.common.config.CfgNode",
            "detectron2.config.config.CfgNode",
            "mmcv.utils.config.ConfigDict",
            "easydict.EasyDict",
            "addict.addict.Dict",
        )
    ),
]


def read_weights_file(path: Path) -> dict[str, Any]:
    """The state dict in a .pth/.pt or .safetensors file. Raises UltronError, beside what load_torch_file does, for a
    file of anything else."""
    content = load_torch_file(path)
    if not isinstance(content, dict):
        raise UltronError(f"{path} must hold a state dict (names to tensors), found {type(content).__name__}")
    return content


def load_torch_file(path: Path, what: str = "weights") -> Any:
    """The content of a .pth/.pt or .safetensors file. Code in it is never run; a file that needs that is refused.

    what: the file is said to be. Raises UltronError for a file that cannot be read, is none, or does not fit the memory
    budget.
    """
    require_regular_file(path, what)
    is_safetensors = _is_safetensors(path)
    n_bytes = _unpacked_bytes(path)
    check_memory(n_bytes, f"{path}: the {what}")
    try:
        with limited_memory(3 * n_bytes + SPARE_BYTES):
            if is_safetensors:
                from safetensors.torch import load_file

                return load_file(path)
            with torch.serialization.safe_globals(HARMLESS):
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise many types on damaged files; the reason is kept
        if isinstance(error, pickle.UnpicklingError) and (place := _foreign_part(str(error), path)):
            raise UltronError(
                f"{path} was refused, and nothing in it was run: it holds {place}, which is neither a tensor nor plain "
                "data; save its state dict alone where it was made: torch.save(model.state_dict(), PATH)"
            ) from error
        if _is_program(path):
            raise UltronError(
                f"{path} is a program for torch.export.load and not weights; name a checkpoint, a state dict or ONNX"
            ) from error
        reason = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split(". ")[0] or type(error).__name__
        if reason.startswith("Weights only load failed"):  # torch's advice for other files
            reason = "torch cannot read it"
        raise UltronError(
            f"{path} is truncated or not a weights file ({one_line(Exception(reason))}); get it again"
        ) from error


def fit_content(content: dict[str, Any], kind: type[T], path: Path, advice: str) -> T:
    """What a weights file holds beside its tensors, as a dataclass of what is read of it. Raises UltronError, naming
    the place, for what is missing or of another type; advice: what to do then."""
    try:
        return msgspec.convert(content, kind)
    except (ValueError, RecursionError) as error:
        raise UltronError(f"{path} is not sound ({one_line(error)}); {advice}") from error


def _is_safetensors(path: Path) -> bool:
    """Whether a file is in that format, whatever its name. Raises UltronError for what is no weights file at first
    sight."""
    with open(path, "rb") as handle:
        start = handle.read(256)
    text = start.lstrip().lower()
    if not start:
        raise UltronError(f"{path} is truncated or not a weights file (it is empty); get it again")
    if start.startswith(LFS_POINTER):
        raise UltronError(
            f"{path} is a pointer of git-LFS and not the weights that it stands for; fetch them: git lfs pull"
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UltronError(
            f"{path} is a web page and not the weights: a server answered with a page (a login, a warning); "
            "open its address in a browser and save the file that it offers"
        )
    if b"\n" in start and not re.search(rb"[^\t\n\r\x20-\xff]", start):  # no byte that a text has not
        raise UltronError(f"{path} is a text file and not weights; name the file that holds them")
    header_bytes = int.from_bytes(start[:8], "little")
    return path.suffix.lower() == ".safetensors" or (start[8:9] == b"{" and 2 <= header_bytes < path.stat().st_size)


def _unpacked_bytes(path: Path) -> int:
    """Bytes of a file, or of all that a zip declares; torch writes its zips uncompressed."""
    n_bytes = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            return max(n_bytes, sum(entry.file_size for entry in archive.infolist()))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return n_bytes  # no zip, or a damaged one, of which torch says what is wrong


def _is_program(path: Path) -> bool:
    """Whether torch.export wrote a file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "archive_format" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _foreign_part(reason: str, path: Path) -> str | None:
    """`mypkg.nets.Net (under the key 'model')`: what torch refused, by what it says; None if it refused nothing."""
    match = re.search(r"GLOBAL ([\w.]+?)\.? (?:was not|whose module)", reason)
    if match:
        key = _key_of(match[1], path)
        return match[1][:80] + (f" (under the key {key[:60]!r})" if key else "")
    return "a call of a function" if re.search(r"unrecognized function|Can only (create|build)", reason) else None


def _key_of(type_name: str, path: Path) -> str | None:
    """The key before the first thing of a type in a file of torch. Reads the file's instructions and follows none."""
    try:
        with contextlib.ExitStack() as files:
            pickled: IO[bytes] = files.enter_context(open(path, "rb"))
            if zipfile.is_zipfile(path):
                archive = files.enter_context(zipfile.ZipFile(path))
                name = next(name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "data.pkl")
                pickled = files.enter_context(archive.open(name))
            key = None
            while True:  # before 2020 torch wrote a number, a version and a description first, each a pickle
                for instruction, argument, _ in pickletools.genops(pickled):
                    if instruction.name == "GLOBAL" and str(argument).replace(" ", ".").endswith(type_name):
                        return key
                    if "UNICODE" in instruction.name:
                        key = str(argument)
    except Exception:  # where the instructions cannot be followed, the type alone is named
        return None


def bare_state_dict(
    content: dict[str, Any], path: Path, is_known: Callable[[str], bool] | None = None
) -> dict[str, torch.Tensor]:
    """The names and tensors inside usual containers, without the prefixes that all names share and that a wrapper of
    the network gave them.

    is_known: whether the network that the weights are for has a name; only then names such as `model.` and `backbone.`
    count as prefixes, and only where a name is known without. What is left out is said.
    """
    for key in CONTAINERS:
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise UltronError(f"{path} holds no tensors by name; it must be a state dict or a checkpoint of ultron")
    prefix = shared_prefix(list(tensors), WRAPPERS if is_known is None else PREFIXES, is_known)
    if prefix not in ("", "module."):
        log.info("weights %s: the prefix %s of all names is left out", path.name, prefix)
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def shared_prefix(names: Sequence[str], prefixes: Sequence[str], is_known: Callable[[str], bool] | None) -> str:
    """The prefixes, one after the other, that all names begin with; with `is_known` no more than make a name known, and
    the wrappers alone where none becomes known."""
    wrappers = whole = ""
    for _ in range(8):
        rest = [name.removeprefix(whole) for name in names]
        if is_known is not None and any(map(is_known, rest)):
            return whole
        prefix = next((prefix for prefix in prefixes if all(name.startswith(prefix) for name in rest)), None)
        if prefix is None:
            break
        wrappers += prefix if wrappers == whole and prefix in WRAPPERS else ""
        whole += prefix
    return wrappers

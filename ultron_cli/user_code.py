"""Parts of a user's own by import path: `my.py:Mixed` or `mypkg.pools:Mixed` wherever the name of a registry is taken.

Code is run because a person named it and for no other reason: on the command line, in a configuration of theirs, or
from Python, all of which call `permit`. What a checkpoint or another file says it was made with is looked for among
what was named, by its SHA-256 (`stored_code`), and asked for where it was not.
"""

import contextlib
import contextvars
import hashlib
import importlib
import importlib.util
import inspect
import logging
import os
import re
import sys
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from ultron_cli.configs import flatten, from_dict, from_signature
from ultron_cli.errors import UltronError, nearest_names

Settings = TypeVar("Settings")

log = logging.getLogger("ultron")

FOLDER = "code"  # of a run: copies of the files that made it
SHOWN_OF_SHA256 = 12  # characters
MOST_BYTES = 1 << 24  # of a file that only a checkpoint names and that is looked at, not run
_FRAME = re.compile(r'^  File "(?P<file>[^"\n]+)", line (?P<line>\d+), in (?P<function>.+)$', re.MULTILINE)
_IMPORT_PATH = re.compile(r"(?P<source>[^:]+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")


@dataclass(frozen=True, kw_only=True)
class CodeRecord:
    """The code behind an import path, as checkpoints and runs store it."""

    sha256: str  # of the file; what that imports is not in it
    file: str | None = None  # where it was


@dataclass(frozen=True, kw_only=True)
class UserPart:
    """What an import path names, imported."""

    text: str  # the import path as it was written
    target: type  # the class that the file defines under the name; of an importer the function
    file: Path
    source: bytes  # of the file
    sha256: str

    @property
    def name(self) -> str:
        """The last part of the import path, for example Mixed."""
        return self.text.rpartition(":")[2]

    def place(self, method: str | None = None) -> str:
        """`my.py, line 12`: where the part begins, or a method of it that the file defines."""
        return _place_of(self.target, self.file, method)

    def made(self, *arguments: object, settings: Mapping[str, object] | None, prefix: str) -> Any:
        """The part made of `arguments` and the settings that its signature, or a dataclass, takes.

        prefix: of the settings' names in messages. Raises UltronError for a setting that does not exist or does not
        fit, naming the place.
        """
        try:
            values = from_signature(self.target, settings or {}, prefix=prefix, n_passed=len(arguments))
        except UltronError as error:
            raise UltronError(f"{self.place('__init__')}: {self.name}: {error.message}") from None
        with blaming(self.target, "__init__"):
            return self.target(*arguments, **values)

    def settings(self, kind: type[Settings], values: Mapping[str, object], prefix: str) -> Settings:
        """The dataclass of its settings, checked. Raises UltronError, naming the place, for those that do not fit."""
        try:
            return from_dict(kind, values, prefix=prefix)
        except UltronError as error:
            raise UltronError(f"{self.place()}: {self.name}: {error.message}", *error.ways) from None

    def require_made_of(self, *names: str) -> None:
        """Raises UltronError, naming the place, unless the class is made of arguments of these names, in their
        order."""
        signature = inspect.signature(self.target)
        try:
            signature.bind(*names)
        except TypeError:
            form = f"{self.name}({', '.join(names)})"
            raise UltronError(
                f"{self.place('__init__')}: {self.name} must be made by {form}; found {signature}"
            ) from None

    def require_method(self, call: str, protocol: type) -> None:
        """Raises UltronError, naming the place and the protocol that says more, unless it has a method or property.

        call: its name, or as it is called: `__call__(epoch, draws)`.
        """
        if not self.has_method(call.partition("(")[0]):
            raise UltronError(
                f"{self.place()}: {self.name} needs the method {call}, see {protocol.__name__} of "
                f"{protocol.__module__}; write it"
            )

    def has_method(self, name: str) -> bool:
        """Whether its class, or a class that this derives, has a method or property of this name."""
        return any(name in vars(base) for base in self.target.__mro__)

    def record(self) -> CodeRecord:
        """What is stored of it."""
        return CodeRecord(sha256=self.sha256, file=str(self.file))


@dataclass(frozen=True)
class _StoredCode:
    """What a file says of code, and where that may be."""

    record: CodeRecord
    maker: str  # the file
    copies: Path | None  # a folder


@dataclass
class _Permissions:
    """What the person named who started this process."""

    sources: list[str] = field(default_factory=list)  # files and modules, in their order
    takes_changed: bool = False  # also where it is no longer the code that a file was made with


_permissions = _Permissions()
_modules: dict[tuple[Path, str], types.ModuleType] = {}  # by file and SHA-256
# Within `stored_code`: what a file says of the code behind its import paths.
_stored: contextvars.ContextVar[Mapping[str, "_StoredCode"]]
_stored = contextvars.ContextVar("stored", default=MappingProxyType({}))


def is_import_path(text: object) -> bool:
    """Whether a text has the form FILE.py:NAME or MODULE:NAME, which no name of a registry has."""
    return isinstance(text, str) and _IMPORT_PATH.fullmatch(text) is not None


def permit(*sources: str) -> None:
    """Lets code be run that a person has named: files, modules, or import paths of something in them."""
    for text in sources:
        source = text.rpartition(":")[0] if is_import_path(text) else text
        if source not in _permissions.sources:
            _permissions.sources.append(source)


def require_source(text: str) -> None:
    """Raises UltronError unless a text names code that can be there: a file or a module, or something in one."""
    _file_of(text.rpartition(":")[0] if is_import_path(text) else text)


def permit_in(values: Mapping[str, object]) -> None:
    """`permit` of every import path among settings that a person wrote."""
    for value in flatten(values).values():
        if isinstance(value, str) and is_import_path(value):
            permit(value)


def take_changed() -> None:
    """Lets code stand for what a file was made with that has changed since."""
    _permissions.takes_changed = True


def permissions() -> tuple[Sequence[str], bool]:
    """What `take_over` in another process takes."""
    return tuple(_permissions.sources), _permissions.takes_changed


def take_over(of_parent: tuple[Sequence[str], bool]) -> None:
    """Has a worker process run what its parent may run."""
    permit(*of_parent[0])
    _permissions.takes_changed |= of_parent[1]


def forget_permissions() -> None:
    """Begins anew: a process may run several commands."""
    global _permissions
    _permissions = _Permissions()


def load(text: str, kind: str, names: Collection[str] = (), *, is_function: bool = False) -> UserPart:
    """What an import path names. The first time its file is run.

    kind: what it is to be (`pooling`), for messages. names: of the registry, which it may not bear. is_function: it is
    a function instead of a class. Raises UltronError if a person has not named the code, if it cannot be imported or
    does not define such a thing.
    """
    if (stored := _stored.get().get(text)) is not None:
        part = _part_of_then(text, stored)
    else:
        source, _, name = text.rpartition(":")
        if source not in _permissions.sources:
            raise UltronError(
                f"{kind} {text} is code, which is run only if you name it; add `code` {source}, if you trust it"
            )
        part = _defined(text, name, _file_of(source), source)
    if not (inspect.isfunction if is_function else inspect.isclass)(part.target):
        form = "function" if is_function else "class"
        raise UltronError(
            f"{part.place()}: {part.name} must be a {form}, found {type(part.target).__name__}; name {_a(kind)}"
        )
    if part.name in names:
        raise UltronError(f"{part.place()}: {part.name} is the name of {_a(kind)} of ultron; give it another name")
    return part


def _a(kind: str) -> str:
    """`a pooling`, `an index`."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def parts_of(values: Mapping[str, object], kind: str = "part") -> dict[str, UserPart]:
    """The parts that settings name by import path, by that path."""
    texts = [value for value in flatten(values).values() if isinstance(value, str) and is_import_path(value)]
    return {text: load(text, kind) for text in texts}


def same_part(a: object, b: object) -> bool:
    """Whether two settings are equal, or name the same part of a file that may have moved."""
    if not (is_import_path(a) and is_import_path(b)):
        return a == b
    return _without_folder(str(a)) == _without_folder(str(b))


def _without_folder(text: str) -> str:
    return text.rpartition("/")[2]


@contextlib.contextmanager
def stored_code(records: Mapping[str, CodeRecord], maker: str | Path, copies: Path | None = None) -> Iterator[None]:
    """Has import paths that a file holds mean the code that it was made with, inside the block: `load` then raises
    UltronError where a person has not named that code, with what to name, and where it has changed.

    records: by import path. maker: the file. copies: a folder that may hold copies of the code.
    """
    stored = {text: _StoredCode(record, str(maker), copies) for text, record in records.items()}
    token = _stored.set({**_stored.get(), **stored})
    try:
        yield
    finally:
        _stored.reset(token)


def _part_of_then(text: str, stored: _StoredCode) -> UserPart:
    """The part that a file was made with, of the code that a person named."""
    source, _, name = text.rpartition(":")
    record, maker = stored.record, stored.maker
    namesakes: list[Path] = []
    for permitted in _permissions.sources:
        try:
            file = _file_of(permitted)
        except UltronError:  # gone; the part that names it says so when it is loaded
            continue
        if _sha256(file.read_bytes()) == record.sha256:
            return _defined(text, name, file, permitted)
        if permitted == source or file.name == Path(record.file or source).name:
            namesakes.append(file)
    if namesakes and _permissions.takes_changed:
        log.warning("%s has changed since %s was made with it", namesakes[-1], maker)
        return _defined(text, name, namesakes[-1], str(namesakes[-1]))
    where = _place_of_code(record, stored.copies)
    code_of_then = f"`code` {where or 'FILE'}" + ("" if where else f" (SHA-256 {record.sha256[:SHOWN_OF_SHA256]})")
    if namesakes:
        raise UltronError(
            f"{namesakes[-1]} has changed since {maker} was made with it; name the code of then with {code_of_then}",
            "take the changed one with `changed_code`",
        )
    raise UltronError(
        f"{maker} was made with {text}, code that is run only if you name it; if you trust it, add {code_of_then}"
    )


def code_named(values: Mapping[str, object]) -> dict[str, str]:
    """By import path among settings, or lists of names with commas between: the SHA-256 of its file, which is not run.
    Raises UltronError where there is no such file."""
    texts = [part for value in flatten(values).values() if isinstance(value, str) for part in value.split(",")]
    return {text: _sha256(_file_of(text.rpartition(":")[0]).read_bytes()) for text in texts if is_import_path(text)}


def _place_of_code(record: CodeRecord, copies: Path | None) -> Path | None:
    """A file that is the code of a record: a copy, or where it was; None where there is none."""
    candidates = sorted(copies.glob("*.py")) if copies and copies.is_dir() else []
    for file in [*candidates, *([Path(record.file)] if record.file else [])]:
        is_code = file.suffix == ".py" and os.path.isfile(file) and file.stat().st_size <= MOST_BYTES
        if is_code and _sha256(file.read_bytes()) == record.sha256:
            return file
    return None


def copy_into(folder: Path, parts: Collection[UserPart]) -> None:
    """Writes the files of parts into folder/code, under their names; of two files of one name both are kept."""
    for part in parts:
        target = folder / FOLDER / part.file.name
        if target.exists() and target.read_bytes() != part.source:
            target = target.with_stem(f"{target.stem}-{part.sha256[:SHOWN_OF_SHA256]}")
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(part.source)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file_of(source: str) -> Path:
    """The file of a FILE.py or a module. Raises UltronError if there is none."""
    if source.endswith(".py"):
        file = Path(source).expanduser().absolute()
        if not os.path.isfile(file):
            raise UltronError(f"{source} must be a file with Python code, there is none; check its path")
        return file
    spec = None
    if re.fullmatch(r"\w+(\.\w+)*", source):
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(source)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise UltronError(
            f"{source} must be a module of Python that can be imported; install it, put its folder into PYTHONPATH, "
            "or name a file (my.py)"
        )
    return Path(spec.origin)


def _defined(text: str, name: str, file: Path, source: str) -> UserPart:
    """What a file defines under a name. Raises UltronError with the place if it fails, or has no such name."""
    content = file.read_bytes()
    sha256 = _sha256(content)
    module = _modules.get((file, sha256))
    if module is None:
        try:
            module = _run(file, content, sha256) if source.endswith(".py") else importlib.import_module(source)
        except Exception as error:
            raise UltronError(_fault_in(error, {str(file)}) or f"{file}: {_said_by(error)}; mend it") from error
        _modules[file, sha256] = module
    if not hasattr(module, name):
        known = [key for key in vars(module) if not key.startswith("_")]
        raise UltronError(f"{file} must define {name}{nearest_names(name, known)}; name what it defines")
    return UserPart(text=text, target=getattr(module, name), file=file, source=content, sha256=sha256)


def _run(file: Path, content: bytes, sha256: str) -> types.ModuleType:
    """A file as a module. It may import what lies beside it."""
    name = f"ultron_user_{_sha256(f'{file} {sha256}'.encode())[:16]}"
    module = types.ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses and inspect look a class's module up
    sys.path.insert(0, str(file.parent))
    try:
        exec(compile(content, str(file), "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(file.parent))
    return module


def _line_of(target: object) -> int:
    """Where a class begins; 1 if that is not known."""
    try:
        return inspect.getsourcelines(target)[1]  # type: ignore[arg-type]  # it says itself what it does not take
    except (OSError, TypeError):
        return 1


def _said_by(error: BaseException) -> str:
    """An exception as its traceback ends, the first line of it."""
    text = str(error).strip().split("\n")[0][:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _fault_in(error: BaseException, files: Collection[str]) -> str | None:
    """The line for an exception that passed through one of the files: the innermost place in them."""
    if isinstance(error, SyntaxError) and error.filename in files:
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}; mend it"
    place = None
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename in files:
            within = "" if code.co_name == "<module>" else f", in {code.co_name}"
            place = f"{code.co_filename}, line {trace.tb_lineno}{within}"
        trace = trace.tb_next
    return place and f"{place}: {_said_by(error)}; mend it"


def _fault_in_text(text: str, files: Collection[str]) -> str | None:
    """As _fault_in, of the message by which torch hands on an exception of a DataLoader's process: its traceback."""
    _, is_handed_on, trace = text.partition("\nOriginal Traceback (most recent call last):\n")
    frames = [frame for frame in _FRAME.finditer(trace) if frame["file"] in files]
    if not is_handed_on or not frames:
        return None
    reasons = [line for line in trace[frames[-1].end() :].splitlines() if line and not line.startswith(" ")]
    return f"{frames[-1]['file']}, line {frames[-1]['line']}, in {frames[-1]['function']}: {reasons[0][:300]}; mend it"


def _place_of(target: object, file: str | Path, method: str | None) -> str:
    """`my.py, line 12`: where a class or function begins, or a method of it that the file defines."""
    code = getattr(getattr(target, method or "", None), "__code__", None)
    if code is not None and code.co_filename == str(file):
        return f"{file}, line {code.co_firstlineno}"
    return f"{file}, line {_line_of(target)}"


@contextlib.contextmanager
def blaming(part: object, method: str | None = None) -> Iterator[None]:
    """Inside, a part is called and what it gives is used. Where that fails outside of a user's file, as with arguments
    that it does not take or a result that nobody can use, it is told as a fault of the part: UltronError with its
    place.

    part: a class, a function, or an object of a class; of ultron's own nothing is told. method: the one that is called.
    """
    try:
        yield
    except (UltronError, OSError, MemoryError):
        raise
    except Exception as error:
        target = part if inspect.isclass(part) or inspect.isfunction(part) else type(part)
        file = getattr(sys.modules.get(target.__module__), "__file__", None)
        is_of_user = file in {str(path) for path, _ in _modules}
        if not is_of_user or fault_of_user(error) or type(error).__name__ == "OutOfMemoryError":  # torch's
            raise
        place = _place_of(target, str(file), method)
        raise UltronError(f"{place}: {target.__name__}: {_said_by(error)}; mend it") from error


def fault_of_user(error: BaseException) -> str | None:
    """What a person is told of an exception that came through code of theirs; None for any other."""
    files = {str(file) for file, _ in _modules}
    reason: BaseException | None = error
    while reason is not None:
        if line := _fault_in(reason, files) or _fault_in_text(str(reason), files):
            return line
        reason = reason.__cause__ or reason.__context__
    return None

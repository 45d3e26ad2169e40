"""The two errors that a person sees as one line; everything else is a bug and keeps its traceback."""

import difflib
import re
from collections.abc import Iterable, Mapping

_SETTING = re.compile(r"`([a-zA-Z_][\w.]*)(?:=([^`]*))?`")
MOST_CHARACTERS = 1800  # of a message: paths and names from files may be longer than anybody reads
_UNIT = re.compile(r"_(px|mib|s)$")  # a setting tells its unit, a flag leaves it to its help: side_px and --side


class UltronError(Exception):
    """Bad usage or input: the rule, what was found, and what to do next, in one line. Exit code 2.

    A setting stands between backquotes under its name in Python (`gnd`, `batch_size=32`); a command shows its flag.
    `ways` are further things to do, each of which names a setting, for example "go on without it with `skip_bad`". A
    command that lacks the setting leaves the way out.
    """

    exit_code = 2

    def __init__(self, message: str, *ways: str) -> None:
        super().__init__(message, *ways)  # both, so that an error crosses processes whole
        self.message = one_line(message)
        self.ways = ways

    def __str__(self) -> str:
        return ", or ".join((self.message, *self.ways))

    def for_command(self, flags: Mapping[str, str]) -> str:
        """The text for someone who calls a command with these flags, by the names of their settings."""
        ways = [way for way in self.ways if all(name in flags for name, _ in _SETTING.findall(way))]
        return with_flags(", or ".join((self.message, *ways)), flags)


class WorkFailed(UltronError):
    """The request was sound but the work could not be finished (disk full, loss not finite). Exit code 1."""

    exit_code = 1


def one_line(text: str) -> str:
    """`text` as one line that any terminal shows: what is not printable as Python writes it, what is too long cut in
    the middle."""
    if len(text) > MOST_CHARACTERS:
        text = f"{text[: 2 * MOST_CHARACTERS // 3]} ... {text[-MOST_CHARACTERS // 4 :]}"
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


# What `import` calls a package, by what it is installed by, where the names differ.
PACKAGE_OF_MODULE = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "pytorch_grad_cam": "grad-cam",
    "sklearn": "scikit-learn",
}
PACKAGES = (
    *("h5py", "matplotlib", "msgspec", "numpy", "pymilvus", "rich", "safetensors", "scipy", "timm", "torch"),
    *("torchvision", "tqdm", *PACKAGE_OF_MODULE),
)


def install_line(error: ModuleNotFoundError) -> str | None:
    """What a person does about a package that is not installed; None where the module is none that ultron asks for."""
    module = (error.name or "").split(".")[0]
    if module not in PACKAGES:
        return None
    package = PACKAGE_OF_MODULE.get(module, module)
    return f"{package} is not installed, and this needs it; install it with `pip install {package}`"


def with_flags(text: str, flags: Mapping[str, str]) -> str:
    """`text` with the settings in backquotes as the flags of a command: `gnd` is --gnd, and `batch_size=32` is
    --set batch_size=32 where the command has --set. What it has no flag for stays as it is."""

    def flag(match: re.Match[str]) -> str:
        name, value = match.groups()
        flag_name = flags.get(name) or flags.get(_UNIT.sub("", name))
        if flag_name:
            return flag_name if value is None else f"{flag_name} {value}"
        return match[0] if value is None or "set" not in flags else f"{flags['set']} {name}={value}"

    return _SETTING.sub(flag, text)


def nearest_names(name: str, known: Iterable[str], n: int = 3) -> str:
    """A clause such as `; did you mean a, b?`, or an empty string where nothing known is near `name`."""
    near = difflib.get_close_matches(name, list(known), n=n, cutoff=0.5)
    return f"; did you mean {', '.join(near)}?" if near else ""

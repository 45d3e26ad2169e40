"""The two errors that a person sees as one line; everything else is a bug and keeps its traceback."""

import difflib
from collections.abc import Iterable


class UltronError(Exception):
    """Bad usage or input: the rule, what was found, and what to do next, in one line. Exit code 2."""

    exit_code = 2


class WorkFailed(UltronError):
    """The request was sound but the work could not be finished (disk full, loss not finite). Exit code 1."""

    exit_code = 1


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


def nearest_names(name: str, known: Iterable[str], n: int = 3) -> str:
    """A clause such as `; did you mean a, b?`, or an empty string where nothing known is near `name`."""
    near = difflib.get_close_matches(name, list(known), n=n, cutoff=0.5)
    return f"; did you mean {', '.join(near)}?" if near else ""

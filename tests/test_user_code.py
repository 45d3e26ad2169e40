"""Parts by import path: what a person named is run, and nothing that only a file names; faults are lines of theirs."""

import ast
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from ultron_cli import user_code
from ultron_cli.configs import from_signature
from ultron_cli.errors import UltronError
from ultron_cli.models import build_model
from ultron_cli.user_code import CodeRecord, stored_code

POOLING = """
from torch import nn


class Mixed(nn.Module):
    def __init__(self, n_channels: int, share: float = 0.5, *, places: tuple[int, ...] = (1, 2)) -> None:
        super().__init__()
        self.share = share

    def forward(self, maps):
        return self.share * maps.mean((2, 3)) + (1 - self.share) * maps.amax((2, 3))
"""


@pytest.fixture(autouse=True)
def _no_permissions() -> None:
    user_code.forget_permissions()


@pytest.fixture
def my_file(tmp_path: Path) -> Path:
    path = tmp_path / "my.py"
    path.write_text(POOLING)
    return path


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("my.py:Mixed", True),
        ("../a b/my.py:Mixed", True),
        ("mypkg.pools:Mixed", True),
        ("gem", False),
        ("cuda:0", False),
        ("my.py", False),
        ("my.py:", False),
        ("my.py:a.b", False),
        ("http://host/x", False),
        (3, False),
    ],
)
def test_what_an_import_path_is(text: object, is_one: bool) -> None:
    assert user_code.is_import_path(text) is is_one


def test_nothing_is_run_that_nobody_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Part: ...\n")
    with pytest.raises(UltronError, match=r"bad\.py:Part is code, which is run only if you name it; add `code` .*bad"):
        user_code.load(f"{path}:Part", "pooling")
    with (
        stored_code({f"{path}:Part": CodeRecord(sha256="0" * 64, file=str(path))}, "run/checkpoint.pt"),
        pytest.raises(UltronError, match=r"run/checkpoint\.pt was made with .*bad\.py:Part, code that is run only if"),
    ):
        user_code.load(f"{path}:Part", "pooling")
    assert not (tmp_path / "ran").exists()
    user_code.permit(str(path))
    assert user_code.load(f"{path}:Part", "pooling").name == "Part"
    assert (tmp_path / "ran").exists()


def test_settings_become_arguments_of_the_signature(my_file: Path) -> None:
    text = f"{my_file}:Mixed"
    user_code.permit_in({"model": {"name": "gem", "pooling": text}})
    part = user_code.load(text, "pooling")
    assert part.made(64, settings={"share": "0.25"}, prefix="").share == 0.25
    arguments = from_signature(part.target, {"share": 1, "places": "3,4"}, n_passed=1)
    assert arguments == {"share": 1.0, "places": (3, 4)} and isinstance(arguments["share"], float)
    for settings, fault in (
        ({"shar": 1}, "Mixed: unknown setting p.shar; did you mean share? (known: share, places)"),
        ({"share": "much"}, "Mixed: p.share must be a number; found 'much'"),
    ):
        with pytest.raises(UltronError) as error:
            part.made(64, settings=settings, prefix="p.")
        assert str(error.value) == f"{my_file}, line 6: {fault}"


@pytest.mark.parametrize(
    ("signature", "settings", "expected"),
    [
        ("n, share=0.5", {"share": "0.25"}, {"share": 0.25}),
        ("n, names: list[str] = ()", {"names": "a,b"}, {"names": ["a", "b"]}),
        ("n, anything=None", {"anything": [1, {}]}, {"anything": [1, {}]}),
        ("n, wide: 'Unknown' = 3", {"wide": "4"}, {"wide": 4}),
        ("*numbers, depth: int = 1", {"depth": 2}, {"depth": 2}),
        ("n, share", {}, "needs a value for share; give it with `p.share=VALUE`"),
        ("share=1", {"share": 2}, "unknown setting p.share (known: none)"),
        ("*, share=1", {"share": 2}, "must take 1 arguments before its settings; found (*, share=1)"),
        ("n, **others", {"others": 2}, "unknown setting p.others (known: none)"),
    ],
)
def test_signatures(signature: str, settings: dict[str, object], expected: object) -> None:
    scope: dict[str, object] = {}
    exec(f"def function({signature}): ...", scope)
    function = scope["function"]
    assert callable(function)
    if isinstance(expected, str):
        with pytest.raises(UltronError) as error:
            from_signature(function, settings, prefix="p.", n_passed=1)
        assert str(error.value) == expected
    else:
        assert from_signature(function, settings, prefix="p.", n_passed=1) == expected


def test_settings_as_a_dataclass(tmp_path: Path) -> None:
    path = tmp_path / "my.py"
    path.write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Settings:\n    depth: int = 2\n"
        "class Part:\n    def __init__(self, n, settings: Settings): self.settings = settings\n"
    )
    user_code.permit(f"{path}:Part")
    part = user_code.load(f"{path}:Part", "pooling")
    assert part.made(3, settings={"depth": "5"}, prefix="").settings.depth == 5
    with pytest.raises(UltronError, match=r"line 6: Part: unknown setting dept; did you mean depth\?"):
        part.made(3, settings={"dept": 1}, prefix="")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("class Mixe: ...", "must define Mixed; did you mean Mixe?; name what it defines"),
        ("x = 1\nclass Mixed(:", ", line 2: SyntaxError: invalid syntax; mend it"),
        ("def f():\n    return 1 / 0\nf()", ", line 2, in f: ZeroDivisionError: division by zero; mend it"),
        ("import not_there_at_all", ", line 1: ModuleNotFoundError: No module named 'not_there_at_all'; mend it"),
        ("raise SystemError", ", line 1: SystemError; mend it"),
        ("Mixed = 3", ", line 1: Mixed must be a class, found int; name a pooling"),
        ("\0", ": SyntaxError: source code string cannot contain null bytes; mend it"),
    ],
)
def test_files_that_define_nothing(tmp_path: Path, content: str, fault: str) -> None:
    path = tmp_path / "my.py"
    path.write_text(content)
    user_code.permit(str(path))
    with pytest.raises(UltronError) as error:
        user_code.load(f"{path}:Mixed", "pooling")
    assert str(error.value).endswith(fault) and str(error.value).startswith(str(path))


def test_a_name_of_the_registry_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "my.py"
    path.write_text("\n\nclass gem: ...")
    user_code.permit(str(path))
    with pytest.raises(UltronError, match=r"my\.py, line 3: gem is the name of a pooling of ultron; give it"):
        user_code.load(f"{path}:gem", "pooling", {"gem": 1})


def test_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package_of_mine").mkdir()
    (tmp_path / "package_of_mine" / "pools.py").write_text("class Mixed: ...")
    user_code.permit("package_of_mine.pools:Mixed", "json", "not_there.at_all:Part")
    with pytest.raises(UltronError, match=r"package_of_mine\.pools must be a module .*PYTHONPATH"):
        user_code.load("package_of_mine.pools:Mixed", "pooling")
    monkeypatch.syspath_prepend(tmp_path)
    part = user_code.load("package_of_mine.pools:Mixed", "pooling")
    assert part.file == tmp_path / "package_of_mine" / "pools.py" and len(part.sha256) == 64
    with stored_code({"package_of_mine.pools:Mixed": part.record()}, "x"):
        assert user_code.load("package_of_mine.pools:Mixed", "pooling").target is part.target


def test_code_is_known_by_its_sha256_wherever_it_lies(tmp_path: Path, my_file: Path) -> None:
    user_code.permit(f"{my_file}:Mixed")
    part = user_code.load(f"{my_file}:Mixed", "pooling")
    (tmp_path / "run").mkdir()
    user_code.copy_into(tmp_path / "run", [part])
    copy = tmp_path / "run" / "code" / "my.py"
    records = {"some/where/my.py:Mixed": CodeRecord(sha256=part.sha256, file="/gone/my.py")}

    def load() -> user_code.UserPart:
        with stored_code(records, "the run", copy.parent):
            return user_code.load("some/where/my.py:Mixed", "pooling")

    user_code.forget_permissions()
    with pytest.raises(UltronError) as error:
        load()
    assert str(error.value).endswith(f"run only if you name it; if you trust it, add `code` {copy}")
    user_code.permit(str(copy))
    assert load().file == copy
    user_code.forget_permissions()
    my_file.write_text(POOLING + "# changed\n")
    user_code.permit(str(my_file))
    with pytest.raises(UltronError) as error:
        load()
    assert f"my.py has changed since the run was made with it; name the code of then with `code` {copy}" in str(
        error.value
    )
    assert error.value.ways == ("take the changed one with `changed_code`",)
    user_code.take_changed()
    assert load().sha256 != part.sha256
    changed = load()
    user_code.copy_into(tmp_path / "run", [changed])
    assert sorted(path.name for path in copy.parent.iterdir()) == [f"my-{changed.sha256[:12]}.py", "my.py"]


def test_a_file_may_import_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("value = 7")
    (tmp_path / "my.py").write_text("from beside_it import value\nclass Part:\n    number = value\n")
    user_code.permit(str(tmp_path / "my.py"))
    assert user_code.load(f"{tmp_path / 'my.py'}:Part", "pooling").target.number == 7
    assert str(tmp_path) not in sys.path


def test_faults_that_are_not_of_a_user_keep_their_traceback(my_file: Path) -> None:
    user_code.permit(str(my_file))
    part = user_code.load(f"{my_file}:Mixed", "pooling")
    try:
        part.made(3, settings={}, prefix="").forward("no map")
    except AttributeError as error:
        line = user_code.fault_of_user(error)
        assert line == f"{my_file}, line 11, in forward: AttributeError: 'str' object has no attribute 'mean'; mend it"
    handed_on = RuntimeError(  # as torch hands an exception of a DataLoader's process on
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        f'  File "worker.py", line 3, in fetch\n    read()\n  File "{my_file}", line 9, in forward\n    raise x\n'
        "ValueError: odd\n"
    )
    assert user_code.fault_of_user(handed_on) == f"{my_file}, line 9, in forward: ValueError: odd; mend it"
    try:
        raise ValueError("ours")
    except ValueError as error:
        assert user_code.fault_of_user(error) is None


def test_what_fails_outside_of_a_users_file_may_be_blamed_on_it(my_file: Path) -> None:
    user_code.permit(str(my_file))
    mixed = user_code.load(f"{my_file}:Mixed", "pooling").made(3, settings={}, prefix="")
    with pytest.raises(UltronError) as error, user_code.blaming(mixed, "forward"):
        mixed.forward()
    assert str(error.value).startswith(f"{my_file}, line 10: Mixed: TypeError: Mixed.forward() missing 1 required")
    with pytest.raises(UltronError, match=r"my\.py, line 5: Mixed: ValueError: could"), user_code.blaming(mixed):
        float("what it gave")
    with pytest.raises(AttributeError), user_code.blaming(mixed):  # its own file tells more
        mixed.forward("no map")
    with pytest.raises(ValueError, match="ours"), user_code.blaming(Path()):
        raise ValueError("ours")
    with pytest.raises(OSError, match="full"), user_code.blaming(mixed):
        raise OSError("full")


def test_a_worker_may_run_what_its_parent_may(my_file: Path) -> None:
    user_code.permit(str(my_file))
    user_code.take_changed()
    permissions = user_code.permissions()
    user_code.forget_permissions()
    assert user_code.permissions() == ((), False)
    user_code.take_over(permissions)
    assert user_code.permissions() == permissions == ((str(my_file),), True)
    digest = hashlib.sha256(my_file.read_bytes()).hexdigest()
    settings = {"search": {"rerank": f"aqe,{my_file}:Mixed", "k": 5}, "name": "a.b"}
    assert user_code.code_named(settings) == {f"{my_file}:Mixed": digest}


def test_importing_it_loads_no_torch() -> None:
    subprocess.run(
        [sys.executable, "-c", "import sys, ultron_cli.user_code; assert 'torch' not in sys.modules"], check=True
    )


def test_no_module_takes_what_a_file_names_for_what_a_person_names() -> None:
    """`create_model` runs code that its arguments name; the package itself makes models by build_model, which does
    not."""
    package = Path(user_code.__file__).parent
    doors = ("create_model", "create_loss")
    calls = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in doors
    ]
    assert calls == []


def test_a_checkpoint_cannot_name_code_by_the_network_that_it_stands_on(tmp_path: Path) -> None:
    """Settings within settings are read from a file too."""
    (tmp_path / "bad.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Part: ...\n")
    base = {"name": "gem", "backbone": "test_resnet", "pooling": f"{tmp_path / 'bad.py'}:Part"}
    for name, settings in (("adapted", {"base": base}), ("gem", {key: base[key] for key in ("backbone", "pooling")})):
        with pytest.raises(UltronError, match="is run only if you name it"):
            build_model(name, settings)
    assert not (tmp_path / "ran").exists()


def test_odd_paths(tmp_path: Path) -> None:
    for source in ("x" * 5000 + ".py", str(tmp_path), "x" * 5000, "a b", "/dev/null", "."):
        with pytest.raises(UltronError, match=r"must be a (file|module)"):
            user_code.require_source(source)
    for file in ("x" * 5000 + ".py", "/proc/kcore", "/dev/zero.py", "a\0b.py"):
        with (
            stored_code({"my.py:Part": CodeRecord(sha256="0" * 64, file=file)}, "run"),
            pytest.raises(UltronError, match=r"if you trust it, add `code` FILE \(SHA-256 000000000000\)"),
        ):
            user_code.load("my.py:Part", "pooling")

"""The import graph, drawn from the source and held against the order of the packages: downwards only, and no circle.

Imports inside functions count too: they may put off a heavy library, not hide a circle.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the ground up. A package imports from its own floor only itself, and from the floors below it.
FLOORS = (
    ("errors", "version"),
    ("memory",),
    ("schema", "stops"),
    ("processes",),
    ("allocator", "blocks", "configs", "guarded", "machine", "provenance", "distributed"),
    ("leftovers", "output_files"),
    ("files", "user_code"),
    ("locks",),
    ("console",),
    ("measurements",),
    ("workspace",),
    ("datasets",),
    ("models",),
    ("local",),
    ("retrieval",),
    ("evaluation",),
    ("training",),
    ("visualization",),
    ("serve", "sweep"),
    ("api", "bench", "demo", "doctor"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}
MOST_ANY = 100
# Outside commands and the public API, whose functions import what they need when they are called.
MOST_IMPORTS_IN_FUNCTIONS = 13


def modules() -> dict[str, Path]:
    """Module name -> file."""
    paths = sorted((ROOT / "ultron_cli").rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


MODULES = modules()


def imported(tree: ast.AST) -> set[str]:
    """Modules of this project that a piece of source imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    submodules = {name for name in names if name in MODULES}
    # `from package import module` needs the module, not what the package's own file imports.
    packages = {name for name in submodules if any(other.startswith(f"{name}.") for other in submodules)}
    return submodules - {name for name in packages if not _takes_names(tree, name)}


def _takes_names(tree: ast.AST, package: str) -> bool:
    """Whether something beside a module is imported from a package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == package:
            if any(f"{package}.{alias.name}" not in MODULES for alias in node.names):
                return True
        elif isinstance(node, ast.Import) and any(alias.name == package for alias in node.names):
            return True
    return False


class _WithoutTypes(ast.NodeTransformer):
    """Takes out `if TYPE_CHECKING:`, which is not run."""

    def visit_If(self, node: ast.If) -> ast.AST:
        return ast.Pass() if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def graph() -> dict[str, set[str]]:
    """Module -> modules that it imports."""
    trees = {name: _WithoutTypes().visit(ast.parse(path.read_text(encoding="utf-8"))) for name, path in MODULES.items()}
    return {name: imported(tree) - {name} for name, tree in trees.items()}


GRAPH = graph()


def package_of(module: str) -> str:
    """The package or single file below ultron_cli that a module belongs to; its own __init__ only says the version."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "version"


def test_every_package_has_a_floor() -> None:
    assert {package_of(name) for name in MODULES} == set(FLOOR_OF)


@pytest.mark.parametrize("package", sorted(FLOOR_OF))
def test_imports_go_downwards(package: str) -> None:
    upwards = [
        f"{module} imports {target}"
        for module, targets in GRAPH.items()
        for target in targets
        if package_of(module) == package != package_of(target)
        if FLOOR_OF[package_of(target)] >= FLOOR_OF[package]
    ]
    assert not upwards, "\n".join(upwards)


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan's strongly connected components of more than one)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for target in edges.get(name, ()):
            if target not in order:
                visit(target)
                lowest[name] = min(lowest[name], lowest[target])
            elif target in stack:
                lowest[name] = min(lowest[name], order[target])
        if lowest[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for name in edges:
        if name not in order:
            visit(name)
    return groups


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_no_module_is_in_a_circle() -> None:
    assert circles(GRAPH) == []


def test_imports_inside_functions_are_few() -> None:
    places = []
    for name, path in MODULES.items():
        if package_of(name) in ("api", "commands", "version"):
            continue
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                places += [
                    f"{name}:{node.lineno}"
                    for node in ast.walk(function)
                    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ultron_cli")
                ]
    assert len(places) <= MOST_IMPORTS_IN_FUNCTIONS, "\n".join(places)


def test_the_kernels_know_nothing_of_the_toolkit() -> None:
    by_file = defaultdict(set)
    for path in (ROOT / "kernels").rglob("*.py"):
        by_file[path.name] |= {
            (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
    users = {name: modules for name, modules in by_file.items() if any(m.startswith("ultron_cli") for m in modules)}
    assert by_file and not users


def test_any_is_rare() -> None:
    """typing.Any tells neither a reader nor the type checker what a name holds."""
    paths = [path for folder in ("ultron_cli", "kernels") for path in sorted((ROOT / folder).rglob("*.py"))]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    assert sum(isinstance(node, ast.Name) and node.id == "Any" for node in nodes) <= MOST_ANY

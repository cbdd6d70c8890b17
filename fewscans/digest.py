"""Fingerprint of the code that a stage uses: what it can reach by name, comments and docstrings left out.

A stage is rerun where a function that it uses has changed, and only then. Starting at the stage's script, every
top-level definition that can be reached is hashed as a syntax tree; imports are followed as text, nothing is imported.
Modules whose effect is in the resolved settings (`errors`, `config`, `plan`, `digest`, `cli`) are left out, and only
the methods and protocols asked for count: a new one reruns no other. A method of another package is followed in that
package as in ours.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "fewscans"
SCRIPTS = "scripts"
ROOT = Path(__file__).resolve().parent
# Their effect on a result is in the settings handed to a script, or they have none.
LEFT_OUT = (
    "errors",
    "config",
    "plan",
    "digest",
    "cli",
    "progress",
    "runrecord",
    "cluster",
    "commands",
    "cost",
    "forecast",
)
# Entries of these tables are chosen by name; a new line in them changes nothing for the others.
REGISTRIES = ("PROTOCOLS",)
# Digest -> the modules that it was asked for, of this process.
ROOTS_OF: dict[str, tuple[str, ...]] = {}


@dataclass
class _Module:
    """Top-level definitions of a module, what its names stand for, and the statements that always run."""

    definitions: dict[str, list[ast.AST]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    statements: list[ast.AST] = field(default_factory=list)


def code_digest(
    *entries: str,
    methods: tuple[str, ...] | list[str] = (),
    protocols: tuple[str, ...] | list[str] = (),
) -> str:
    """16 hex digits for the modules `entries` (``scripts.pretrain``, ``fewscans.pretrain``) and all that they reach.

    `methods` are modules named in settings, of other packages perhaps; an empty name is passed over (baselines).
    `protocols` are entries of that registry, e.g. ``("linear",)``.
    """
    named = [*filter(None, methods), *(f"{PACKAGE}.protocols.{name}" for name in protocols)]
    roots = tuple(sorted([*entries, *named]))
    made = digest_of(roots)
    ROOTS_OF[made] = roots
    return made


def digest_of(roots: tuple[str, ...]) -> str:
    """`code_digest` of modules, those of registries among them; a ValueError where one is not there."""
    return _digest(roots)


@cache
def _digest(roots: tuple[str, ...]) -> str:
    reached: dict[tuple[str, str], str] = {}
    waiting: list[tuple[str, str | None]] = []
    for root in roots:
        if _file(root) is None:
            raise ValueError(f"no module {root}")
        waiting.append((root, None))
    while waiting:
        module, name = waiting.pop()
        if _left_out(module) or (found := _parse(module)) is None:
            continue
        # Statements of a module run whenever anything of it is used.
        for one in ["", *(found.definitions if name is None else [name])]:
            if (module, one) not in reached:
                facts = _facts(module, one)
                if facts is not None:
                    reached[module, one] = facts[0]
                    waiting.extend(facts[1])
    text = hashlib.sha256()
    for (module, name), fingerprint in sorted(reached.items()):
        text.update(f"{module}:{name}:{fingerprint}\n".encode())
    return text.hexdigest()[:16]


@cache
def _facts(module: str, name: str) -> tuple[str, tuple[tuple[str, str | None], ...]] | None:
    """(hash, what it refers to) of a top-level name of a module ("": its statements); None where it has no such."""
    found = _parse(module)
    if found is None:
        return None
    if name == "":
        nodes = found.statements
    elif name in found.definitions:
        nodes = found.definitions[name]
    elif name in found.imports:  # a name handed on, as packages do in __init__
        return "", (found.imports[name],)
    else:
        return None
    fingerprint = hashlib.sha256("".join(map(_dump, nodes)).encode()).hexdigest()
    return fingerprint, tuple(
        dict.fromkeys(ref for node in nodes for ref in _references(module, found, node))
    )


def _references(module: str, found: _Module, node: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Everything of the package that `node` names; (module, None) is all of a module."""
    through: set[int] = set()  # names that stand before a dot, whose attribute is known
    for child in ast.walk(node):  # parents come before their children
        if isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name):
            target = found.imports.get(child.value.id)
            if target is not None and target[1] is None:
                through.add(id(child.value))
                yield target[0], child.attr
        elif isinstance(child, ast.Name) and id(child) not in through:
            if child.id in found.definitions:
                yield module, child.id
            elif child.id in found.imports:
                yield found.imports[child.id]  # a module handed round as a value counts whole


@cache
def _parse(module: str) -> _Module | None:
    path = _file(module)
    if path is None:
        return None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = _Module()
    for node in ast.walk(tree):
        _note_import(node, found, module, path.name == "__init__.py")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.definitions.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            if any(name in REGISTRIES for name in names):
                continue
            for name in names:
                found.definitions.setdefault(name, []).append(node)
        elif not isinstance(node, ast.Import | ast.ImportFrom) and not _is_docstring(node):
            found.statements.append(node)
    return found


def _note_import(node: ast.AST, found: _Module, module: str, is_package: bool) -> None:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if _followed(alias.name, module):
                found.imports[alias.asname or alias.name.split(".")[0]] = (alias.name, None)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = module.split(".")
            parent = parts[: len(parts) - node.level + (1 if is_package else 0)]
            base = ".".join([*parent, base] if base else parent)
        if not _followed(base, module):
            return
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            is_module = _file(inner) is not None
            found.imports[alias.asname or alias.name] = (
                (inner, None) if is_module else (base, alias.name)
            )


def _followed(imported: str, module: str) -> bool:
    """Whether `module`'s import counts: from here, or from the package that `module` itself belongs to."""
    return imported.split(".")[0] in (PACKAGE, module.split(".")[0])


@cache
def _file(module: str) -> Path | None:
    top, *rest = module.split(".")
    if (home := _home(top)) is None:
        return None
    if home.is_file():  # a package of one file
        return None if rest else home
    base = home.joinpath(*rest)
    candidates = [base / "__init__.py", *([base.with_suffix(".py")] if rest else [])]
    return next(filter(Path.is_file, candidates), None)


def _home(top: str) -> Path | None:
    """Folder (or only file) of a package, found without importing it."""
    if top in (PACKAGE, SCRIPTS):
        return ROOT if top == PACKAGE else ROOT.parent / SCRIPTS
    spec = find_spec(top)
    if spec is None:
        return None
    folders = spec.submodule_search_locations
    return Path(folders[0] if folders else spec.origin or "")


def _left_out(module: str) -> bool:
    parts = module.split(".")
    return parts[0] == PACKAGE and len(parts) > 1 and parts[1] in LEFT_OUT


def _is_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _dump(node: ast.AST) -> str:
    """Syntax tree as text, without docstrings, positions and annotations' formatting."""
    for child in ast.walk(node):
        body = getattr(child, "body", None)
        if isinstance(body, list):
            child.body = [part for part in body if not _is_docstring(part)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.dump(node)

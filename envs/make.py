"""Keep the pinned versions in one place: ``constraints.txt`` makes ``fewscans.yaml`` and ``Apptainer.def``.

    python envs/make.py                writes both from constraints.txt and pyproject.toml
    python envs/make.py --check        writes nothing; exit 1 with the diff where they lag
    python envs/make.py --pin          first writes constraints.txt from the packages installed here

Standard library and `packaging` only, so that it runs before anything of ours is installed.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import tomllib
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
# What pip installs with; `make setup` takes it first.
INSTALLER = ("pip", "setuptools")
# Sections of constraints.txt: name -> what it says of itself. `needed` is pyproject's dependencies.
SECTIONS = {
    "installer": "what installs the rest",
    "needed": "what the workflow needs",
    "slurm": "the extra `slurm`",
    "tune": "the extra `tune`",
    "umap": "the extra `umap`",
    "dev": "the extra `dev`",
}
HEAD = """\
# Versions that were tested together: `pip install -c constraints.txt`. Made by `python envs/make.py --pin`
# from an environment in which the tests pass; envs/fewscans.yaml and envs/Apptainer.def follow from it.
# torch has no local version (+cpu, +cu130): which build is taken is said by TORCH_INDEX, see the Makefile.
"""
MADE = "# Made from constraints.txt by `python envs/make.py`; do not edit.\n"


def requirements(section: str) -> list[str]:
    """Requirements of a section as pyproject.toml has them."""
    if section == "installer":
        return list(INSTALLER)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if section == "needed":
        return list(project["dependencies"])
    return list(project["optional-dependencies"][section])


def pins(sections: Iterable[str] = SECTIONS) -> dict[str, str]:
    """Package -> version of constraints.txt, in its order, of the sections asked for."""
    found: dict[str, str] = {}
    section = ""
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line[3:].partition(":")[0]
        elif line and not line.startswith("#") and section in sections:
            name, _, version = line.partition("==")
            found[name] = version
    return found


def installed_closure(wanted: Iterable[str], without: Iterable[str]) -> dict[str, str]:
    """Distribution -> version of everything that `wanted` needs here, less what is in `without`."""
    left = [Requirement(text) for text in wanted]
    skip = {canonicalize_name(name) for name in without}
    found: dict[str, str] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    while left:
        requirement = left.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in done:
            continue
        done.add(key)
        distribution = metadata.distribution(requirement.name)
        if key[0] not in skip:
            found[key[0]] = distribution.version.partition("+")[0]
        for text in distribution.requires or ():
            needed = Requirement(text)
            extras = [{"extra": extra} for extra in (*requirement.extras, "")]
            if needed.marker is None or any(needed.marker.evaluate(extra) for extra in extras):
                left.append(needed)
    return dict(sorted(found.items()))


def constraints() -> str:
    """Text of constraints.txt from the packages installed here."""
    parts = [HEAD]
    known: list[str] = []
    for section, title in SECTIONS.items():
        closure = installed_closure(requirements(section), known)
        known += closure
        lines = [f"{name}=={version}" for name, version in closure.items()]
        parts.append("\n".join([f"## {section}: {title}", *lines, ""]))
    return "\n".join(parts)


def conda() -> str:
    """Text of envs/fewscans.yaml: Python from conda-forge, the rest by pip in the pinned versions."""
    lines = [
        f"      - {name}=={version}" for name, version in pins(("needed", "slurm", "tune")).items()
    ]
    return (
        f"{MADE}# Third-party packages only: the workflow brings its own code (PYTHONPATH).\n"
        "name: fewscans\nchannels:\n  - conda-forge\n  - nodefaults\ndependencies:\n"
        f"  - python=3.11\n  - pip\n  - pip:\n" + "\n".join(lines) + "\n"
    )


def container() -> str:
    """Text of envs/Apptainer.def; `--build-arg torch_index=URL` says where torch is taken from."""
    needed = pins(("needed", "slurm", "tune"))
    torch = [f"{name}=={needed.pop(name)}" for name in ("torch", "torchvision")]
    lines = [f"{name}=={version}" for name, version in needed.items()]
    installer = " ".join(f"{name}=={version}" for name, version in pins(("installer",)).items())
    return f"""\
{MADE}# apptainer build fewscans.sif envs/Apptainer.def
# apptainer build --build-arg torch_index=https://download.pytorch.org/whl/cpu fewscans.sif envs/Apptainer.def
Bootstrap: docker
From: python:3.11-slim

%arguments
    torch_index=https://pypi.org/simple

%post
    cat > /opt/requirements.txt <<'END'
{chr(10).join(lines)}
END
    cat > /opt/torch.txt <<'END'
{chr(10).join(torch)}
END
    python -m pip install --no-cache-dir {installer}
    # Without its dependencies first: an index of torch builds has few other packages. Then those too.
    python -m pip install --no-cache-dir --no-deps --index-url {{{{ torch_index }}}} -r /opt/torch.txt
    python -m pip install --no-cache-dir -r /opt/requirements.txt -r /opt/torch.txt

%environment
    export LC_ALL=C.UTF-8 PYTHONNOUSERSITE=1

%labels
    org.opencontainers.image.licenses Apache-2.0

%help
    Third-party packages of fewscans. The workflow brings its own code:
    apptainer exec fewscans.sif snakemake --cores 2
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the environment files, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 with a diff")
    parser.add_argument("--pin", action="store_true", help="take the versions installed here")
    arguments = parser.parse_args(argv)
    if arguments.pin:
        (ROOT / "constraints.txt").write_text(constraints(), encoding="utf-8")
    behind = 0
    for name, text in {"fewscans.yaml": conda(), "Apptainer.def": container()}.items():
        path = ROOT / "envs" / name
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        if old == text:
            continue
        behind = 1
        if arguments.check:
            diff = difflib.unified_diff(
                old.splitlines(), text.splitlines(), name, "from constraints.txt", "", "", 1, ""
            )
            print("\n".join(diff), file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote envs/{name}")
    if behind and arguments.check:
        print("envs/ lags behind constraints.txt. Run: python envs/make.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

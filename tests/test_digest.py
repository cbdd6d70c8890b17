"""What the fingerprint of code sees, on a small package made for it."""

import textwrap

import pytest

from fewscans import digest as under_test

FILES = {
    "__init__.py": "",
    "train.py": """
        from fewscans import tools
        from fewscans.parts import make as build
        from fewscans.protocols import PROTOCOLS
        LR = 0.1
        UNUSED = 1
        def run(n):
            '''Docs.'''
            return tools.step(build(n)) * LR
        """,
    "tools.py": """
        def step(x):
            return helper(x)
        def helper(x):
            return x + 1
        def stranger(x):
            return x
        """,
    "parts/__init__.py": "from fewscans.parts.inner import make\n",
    "parts/inner.py": "def make(n):\n    return n\n",
    "protocols/__init__.py": "PROTOCOLS = {'a': 'fewscans.protocols.a'}\n",
    "methods/a.py": "def loss():\n    return 1\n",
    "methods/b.py": "def loss():\n    return 2\n",
    "config.py": "X = 1\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    tmp_path = tmp_path / "fewscans"
    tmp_path.mkdir()
    monkeypatch.setattr(under_test, "ROOT", tmp_path)

    def write(changes=None):
        for name, text in {**FILES, **(changes or {})}.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text))
        under_test._parse.cache_clear()
        under_test._facts.cache_clear()
        under_test._file.cache_clear()
        under_test._digest.cache_clear()
        return under_test.code_digest("fewscans.train", methods=["fewscans.methods.a"])

    yield write
    under_test._parse.cache_clear()
    under_test._facts.cache_clear()
    under_test._file.cache_clear()
    under_test._digest.cache_clear()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("train.py", "'''Docs.'''", "'''Other words.'''"),
        ("train.py", "def run(n):", "# a comment\n        def run( n ):"),
        ("tools.py", "return x\n", "return x + 5\n"),
        ("protocols/__init__.py", "{'a'", "{'b': 'fewscans.protocols.b', 'a'"),
        ("methods/b.py", "return 2", "return 3"),
        ("config.py", "X = 1", "X = 2"),
    ],
    ids=["docstring", "layout", "unused function", "new protocol", "other method", "settings"],
)
def test_what_has_no_effect_changes_nothing(package, file, old, new):
    before = package()
    assert old in textwrap.dedent(FILES[file]) or old in FILES[file]
    assert package({file: FILES[file].replace(old, new, 1)}) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("train.py", "LR = 0.1", "LR = 0.2"),
        ("tools.py", "return x + 1", "return x + 2"),
        ("parts/inner.py", "return n", "return n + 1"),
        ("methods/a.py", "return 1", "return 4"),
    ],
    ids=["constant", "helper of a helper", "handed on by a package", "the method asked for"],
)
def test_what_is_reached_by_name_changes_it(package, file, old, new):
    before = package()
    changed = package({file: FILES[file].replace(old, new, 1)})
    assert changed != before
    assert package() == before


def test_every_stage_of_the_package_has_a_digest():
    stages = [
        "convert",
        "audit",
        "normalise",
        "split",
        "pretrain",
        "finetune",
        "aggregate",
        "report",
    ]
    found = [under_test.code_digest(f"scripts.{stage}") for stage in stages]
    assert len(set(found)) == len(stages)


def test_a_method_of_another_package_is_followed_there_and_not_beyond(
    package, tmp_path, monkeypatch
):
    other = tmp_path / "other"
    (other / "fs_toy").mkdir(parents=True)
    monkeypatch.syspath_prepend(other)
    package()

    def digest(helper="return 1", stranger="return 2"):
        (other / "fs_toy/__init__.py").write_text("")
        (other / "fs_toy/method.py").write_text(
            "import numpy\nfrom fs_toy.inner import helper\nfrom fewscans.tools import step\n"
            "def loss():\n    return helper(step(numpy.ones(2)))\n"
        )
        (other / "fs_toy/inner.py").write_text(
            f"def helper():\n    {helper}\ndef stranger():\n    {stranger}\n"
        )
        for known in (under_test._parse, under_test._facts, under_test._file, under_test._digest):
            known.cache_clear()
        return under_test.code_digest("fewscans.train", methods=["fs_toy.method"])

    before = digest()
    assert digest(stranger="return 3") == before
    assert digest(helper="return 3") != before
    assert before != under_test.code_digest("fewscans.train", methods=[""])


def test_a_module_that_is_not_there_is_said(package):
    package()
    with pytest.raises(ValueError, match="no module fs_nowhere"):
        under_test.code_digest("fewscans.train", methods=["fs_nowhere.method"])

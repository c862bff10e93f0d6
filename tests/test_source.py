"""What the source must not contain: calls that run what a file says, and limits that are lifted."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    p for room in ("vae_jax", "experiments", "configs") for p in (ROOT / room).rglob("*.py")
)
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "compile", "__import__"}
LIMITS = {"LOAD_TRUNCATED_IMAGES", "MAX_IMAGE_PIXELS"}
MAKERS = {"key", "PRNGKey"}  # of keys, in jax.random
DRAWS = {"normal": 3, "uniform": 3, "randint": 5, "bernoulli": 2}  # arguments up to the type
LOADERS = {"load", "load_all", "full_load", "unsafe_load", "full_load_all", "unsafe_load_all"}


def forbidden(source: str) -> list[str]:
    """What breaks the rules, as `line: what`. The rules, on the syntax tree, not on the text:

    1. no import of a module that unpickles (pickle, marshal, shelve, dill, joblib, cloudpickle),
    2. no call of the builtins eval, exec, compile, __import__ by their bare name; a method of
       that name, such as `model.eval()` of a torch peer, is another function,
    3. no `yaml.load` in any of its forms but safe_load,
    4. no argument `allow_pickle` other than the literal False,
    5. no mention of `LOAD_TRUNCATED_IMAGES` or `MAX_IMAGE_PIXELS` at all, assigned or deleted,
    6. no `jax.random.key` or `PRNGKey`: `streams.make_key` names the generator,
    7. no draw of `jax.random` without its type (for `bernoulli`, without the typed probability),
       which would otherwise follow JAX_ENABLE_X64.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        bad = ""
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
            bad = ", ".join(names & MODULES)
        elif isinstance(node, ast.ImportFrom):
            bad = (node.module or "").split(".")[0]
            loaders = {alias.name for alias in node.names} & LOADERS if bad == "yaml" else set()
            bad = bad if bad in MODULES or loaders else ""
        elif isinstance(node, ast.Name) and node.id in CALLS | LIMITS:
            bad = node.id
        elif isinstance(node, ast.Call) and of_jax_random(node.func):
            untyped = len(node.args) < DRAWS.get(node.func.attr, 0)
            typed = any(keyword.arg in ("dtype", "p") for keyword in node.keywords)
            bad = node.func.attr if untyped and not typed else ""
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if node.attr in LIMITS or (owner == "yaml" and node.attr in LOADERS):
                bad = node.attr
            if owner == "builtins" and node.attr in CALLS:
                bad = node.attr
            if of_jax_random(node) and node.attr in MAKERS:
                bad = node.attr
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            literal = isinstance(node.value, ast.Constant) and node.value.value is False
            bad = "" if literal else node.arg
        elif isinstance(node, ast.Constant) and node.value in LIMITS:  # setattr(..., "MAX_...")
            bad = str(node.value)
        if bad:
            found.append(f"{getattr(node, 'lineno', 0)}: {bad}")
    return found


def of_jax_random(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node.value) == "jax.random"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "import os, marshal as m", "from cloudpickle import loads",
        "eval('1')", "run = exec", "import builtins; builtins.eval('1')", "__import__('os')",
        "import yaml; yaml.load(text)", "from yaml import unsafe_load",
        "np.load(path, allow_pickle=True)", "np.load(path, allow_pickle=trusted)",
        "ImageFile.LOAD_TRUNCATED_IMAGES = True", "Image.MAX_IMAGE_PIXELS = None",
        "setattr(Image, 'MAX_IMAGE_PIXELS', None)", "key = jax.random.key(0)",
        "jax.vmap(jax.random.PRNGKey)", "jax.random.normal(key, (2,))",
        "jax.random.randint(key, (2,), 0, 5)", "jax.random.bernoulli(key)",
    ],
)  # fmt: skip
def test_the_rules_see_it(line):
    assert forbidden(line)


@pytest.mark.parametrize(
    "line",
    [
        "model.eval()", "'eval(x) and pickle'", "np.load(path, allow_pickle=False)",
        "program.lower(x).compile()", "yaml.safe_load(text)", "re.compile('x')",
        "jax.random.normal(key, (2,), jnp.float32)", "jax.random.key_data(key)",
        "jax.random.uniform(key, dtype=x.dtype)", "jax.random.bernoulli(key, p)",
    ],
)  # fmt: skip
def test_the_rules_leave_it(line):
    assert not forbidden(line)


def test_no_file_runs_what_it_reads():
    assert len(FILES) > 100
    found = {str(path.relative_to(ROOT)): forbidden(path.read_text()) for path in FILES}
    found["vae_jax/streams.py"] = found["vae_jax/streams.py"][1:]  # `make_key`
    assert not {name: lines for name, lines in found.items() if lines}

"""Every config field is read by code besides its validation: one without a reader is dead."""

import ast
from pathlib import Path

import pytest

from configs import default
from vae_jax.config import FIELDS, flatten
from vae_jax.train.sweep import AXES

ROOT = Path(__file__).parents[1]
VALIDATION = ROOT / "vae_jax" / "config.py"

# What holds the fields of a section besides a variable or attribute of the section's own name:
# variables, and classes that are built of the whole section and read their fields from `self`.
HOLDERS = {
    "": {"config"},
    "data.corruption": {"Corruption"},
    "data.augmentation": {"Augmentation"},
    "model": {"VAE", "Encoder", "Decoder", "BlockStyle", "style"},
    "model.encoder": {"stack"},
    "model.decoder": {"stack"},
    "classifier": {"stack", "style", "Classifier"},
}


class Readers(ast.NodeVisitor):
    """Collects `(holder, field)` of `holder.field`, `holder["field"]`, `holder.get("field")`."""

    def __init__(self):
        self.found, self.classes = set(), []

    def visit_ClassDef(self, node):
        self.classes.append(node.name)
        self.generic_visit(node)
        self.classes.pop()

    def visit_Attribute(self, node):
        if isinstance(node.ctx, ast.Load):
            self.read(node.value, node.attr)
        self.generic_visit(node)

    def visit_Subscript(self, node):
        if isinstance(node.ctx, ast.Load) and isinstance(node.slice, ast.Constant):
            self.read(node.value, node.slice.value)
        self.generic_visit(node)

    def visit_Call(self, node):
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr == "get" and node.args:
            self.read(function.value, getattr(node.args[0], "value", None))
        self.generic_visit(node)

    def read(self, base, field):
        if isinstance(base, ast.Subscript):
            holder = getattr(base.slice, "value", None)
        else:
            holder = getattr(base, "attr", getattr(base, "id", None))
        if holder == "self" and self.classes:
            holder = self.classes[-1]
        self.found.add((holder, field))


def readers(paths):
    """All `(holder, field)` that files read."""
    visitor = Readers()
    for path in paths:
        visitor.visit(ast.parse(path.read_text()))
    return visitor.found


def unread(fields, found):
    """Fields `section.name` that no holder of their section is asked for."""
    dead = []
    for field in fields:
        section, _, name = field.rpartition(".")
        holders = {section.rpartition(".")[2]} | HOLDERS.get(section, set())
        if not any((holder, name) in found for holder in holders):
            dead.append(field)
    return dead


@pytest.fixture(scope="module")
def found():
    paths = [path for room in ("vae_jax", "experiments") for path in (ROOT / room).rglob("*.py")]
    # The axes of a sweep are read in a loop over their names.
    return readers(path for path in paths if path != VALIDATION) | {("sweep", a) for a in AXES}


def test_no_field_is_dead(found):
    fields = flatten(default.get_config()).keys() | FIELDS.keys()
    assert len(fields) > 80 and "sweep.mode" in fields and "classifier.dense" in fields
    assert unread(sorted(fields), found) == []


def test_a_field_without_reader_is_found(found):
    config = default.get_config()
    config.train.made_up = 3
    config.log.batch_size = 4  # read as a field of `train` and of `eval`, not of `log`
    config.unread_section = {"z_dim": 1}
    assert unread(sorted(flatten(config)), found) == [
        "log.batch_size", "train.made_up", "unread_section.z_dim",
    ]  # fmt: skip


def test_the_ways_of_reading(tmp_path):
    (tmp_path / "code.py").write_text(
        "class Style:\n    def f(self):\n        return self.norm\n"
        "a = run.config.loss.sigma\nb = data['path']\nc = d['data'].get('binarize', 'none')\n"
        "config.train.epochs = 3\n"
    )
    found = readers([tmp_path / "code.py"])
    assert {("Style", "norm"), ("loss", "sigma"), ("data", "path"), ("data", "binarize")} <= found
    assert ("train", "epochs") not in found  # written, not read

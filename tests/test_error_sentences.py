"""Sentences for users end without a period, since command lines print them after `error: `."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def endings(source):
    """Line and last characters of every sentence that is raised as a UserError."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) == "UserError":
            last = node.args[0]
            while isinstance(last, ast.BinOp):
                last = last.right
            if isinstance(last, ast.JoinedStr):
                last = last.values[-1]
            yield node.lineno, str(getattr(last, "value", ""))[-3:]


def test_endings_are_seen_through_formats_and_sums():
    source = "raise UserError(f'{a} is bad.')\nUserError('x' + 'y.')\nUserError(f'got {a}')"
    assert [end.endswith(".") for _, end in endings(source)] == [True, True, False]


def test_no_sentence_ends_with_a_period():
    sentences = [
        (f"{path.relative_to(ROOT)}:{line}", end)
        for room in ("vae_jax", "experiments")
        for path in sorted((ROOT / room).rglob("*.py"))
        for line, end in endings(path.read_text())
    ]
    assert len(sentences) > 100
    # Three periods stand for more of the same.
    assert [place for place, end in sentences if end.endswith(".") and end != "..."] == []

"""From what a user asks for to what the model is told; every mistake lists what is valid."""

import numpy as np
import pytest

from vae_jax.data.conditions import asked_condition
from vae_jax.types import UserError

DIGITS = tuple("0123456789")
NAMES = ("Beard", "Eyeglasses", "Smiling")


def test_a_class_is_one_hot():
    vector = asked_condition("class", DIGITS, "7", None)
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector, np.arange(10) == 7)


def test_attributes_left_out_are_zero():
    vector = asked_condition("attributes", NAMES, None, " Smiling=1, Eyeglasses=0 ")
    np.testing.assert_array_equal(vector, [0, 0, 1])
    np.testing.assert_array_equal(asked_condition("attributes", NAMES, None, ""), [0, 0, 0])


def test_no_condition_is_none():
    assert asked_condition("none", (), None, None) is None


@pytest.mark.parametrize(
    ("condition", "names", "label", "attributes", "message"),
    [
        ("class", DIGITS, "ten", None, "--label=ten is not a class; valid are 0, 1, .*, 9$"),
        ("class", DIGITS, None, None, "needs --label, one of its classes 0, 1"),
        ("class", DIGITS, "1", "Smiling=1", "needs --label"),
        ("attributes", NAMES, None, None, "needs --attributes='Beard=1.*Beard, Eyeglasses, Smi"),
        ("attributes", NAMES, None, "Hat=1", "'Hat', which.*valid are Beard, Eyeglasses, Smiling"),
        ("attributes", NAMES, None, "Beard", "'Beard': give Beard=0 or Beard=1"),
        ("attributes", NAMES, None, "Beard=2", "give Beard=0 or Beard=1"),
        ("attributes", NAMES, None, "Beard=1,Beard=0", "and once"),
        ("none", (), "7", None, "trained without condition: leave out --label"),
    ],
)
def test_mistakes(condition, names, label, attributes, message):
    with pytest.raises(UserError, match=message):
        asked_condition(condition, names, label, attributes)

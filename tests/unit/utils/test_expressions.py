"""Arithmetic that a user writes: it means what NumPy means by it, and nothing else gets in."""
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, strategies

from hpclcae.utils import expressions
from hpclcae.utils.errors import InputError
from hpclcae.utils.expressions import Expression

GENERATOR = np.random.default_rng(3)
X, Y = GENERATOR.uniform(0.1, 0.9, (2, 5, 7))
VALUES = {"x": X, "y": Y, "stage1.encode": X - 0.5, "steps": 10}
NUMPY = {name: getattr(np, name) for name in expressions.FUNCTIONS}


def evaluated(text, values=VALUES):
    expression = Expression(text, "text")
    result = expression.evaluate(values)
    assert isinstance(result, np.ndarray)
    assert result.dtype == (bool if expression.is_condition else np.float64)
    return result


def refused(text, *words, values=None):
    """The message is one line that names the place, the text, and the words."""
    with pytest.raises(InputError) as caught:
        expression = Expression(text, "train.schedule")
        if values is not None:
            expression.evaluate(values)
    message = str(caught.value)
    assert message.startswith("train.schedule '") and message.isprintable() and len(message) < 700
    assert message.count(": ") >= 2
    for word in words:
        assert word in message
    return message


# ---- what it means -------------------------------------------------------------------------------


@pytest.mark.parametrize("text, expected", [
    ("x", X), ("1e-3", 1e-3), (".5 + 1.5E+3", 1500.5), ("0x10", 16.0), ("1_000", 1000.0),
    ("x + y * 2 - 1", X + Y * 2 - 1), ("(x + y) * 2", (X + Y) * 2), ("-x ** 2", -X ** 2),
    ("x ** 2 ** 3", X ** 8), ("x ** -1.5", X ** -1.5), ("x ** y", X ** Y), ("x ** 0.5", X ** 0.5),
    ("+x / -y", X / -Y), ("7 / 2", 3.5), ("steps / 4", 2.5), ("-7 % 4", 1.0),
    ("7 % (x - 1)", 7 % (X - 1)), ("x\n\t+ y\r\n", X + Y),
    ("stage1.encode * 2", 2 * X - 1), ("pi * x", np.pi * X), ("x - x + 2 * pi", 2 * np.pi)])
def test_arithmetic_is_that_of_numpy(text, expected):
    assert np.allclose(evaluated(text), expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("text, expected", [
    ("x < y", X < Y), ("x <= 0.5", X <= 0.5), ("x >= y", X >= Y), ("x == x", X == X),
    ("x != y", X != Y), ("(x > 0.2) & (y > 0.2) | ~(x > y)", (X > .2) & (Y > .2) | ~(X > Y)),
    ("x > 0.2 and y > 0.2 or not x > y", (X > .2) & (Y > .2) | ~(X > Y)),
    ("x < 0.3 or x > 0.6 or y < 0.1", (X < .3) | (X > .6) | (Y < .1)),
    ("(x > 0.5) == (y > 0.5)", (X > .5) == (Y > .5))])
def test_comparisons_give_truth_values(text, expected):
    assert np.array_equal(evaluated(text), expected)


@pytest.mark.parametrize("text, expected", [
    ("(x > 0.5) + (y > 0.5)", (X > .5) * 1.0 + (Y > .5)), ("(x > 0.5) * y", (X > .5) * Y),
    ("-(x > 0.5)", -1.0 * (X > .5)), ("where(x > y, x, 0)", np.where(X > Y, X, 0)),
    ("where(x > y, x > 0.5, 2)", np.where(X > Y, X > .5, 2)), ("abs(x > 0.5)", 1.0 * (X > .5))])
def test_a_comparison_counts_as_one_or_nought(text, expected):
    assert np.array_equal(evaluated(text), expected)


@pytest.mark.parametrize("function, count", expressions.FUNCTIONS.items())
def test_every_function_is_that_of_numpy(function, count):
    if function != "where":
        text = f"{function}({', '.join(['x - 0.2', 'y'][:count])})"
        with np.errstate(all="ignore"):
            expected = NUMPY[function](*[X - 0.2, Y][:count])
        assert np.allclose(evaluated(text), expected, rtol=1e-14, atol=1e-15, equal_nan=True)


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i4", "i8", "u8", "f2", "f4", ">f4", ">i2"])
def test_every_type_is_computed_in_float64(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    expected = array.astype(float) * 3_000_000_000 ** 2 / 7
    assert np.allclose(evaluated("x * 3000000000 ** 2 / 7", {"x": array}), expected, rtol=1e-15)
    top = {"x": np.array([np.iinfo(np.int64).max])}
    assert evaluated("x + x", top) == 2.0 ** 64 and evaluated("x * x", top) == 2.0 ** 126


def test_what_is_not_defined_is_inf_or_nan_without_a_warning():
    zero = {"x": np.zeros(2)}
    assert (evaluated("1 / x", zero) == np.inf).all()
    assert (evaluated("log(x)", zero) == -np.inf).all()
    for text in ("x / x", "1 % x", "sqrt(x - 1)", "arcsin(x + 2)", "log(0) * 0", "0 / 0"):
        assert np.isnan(evaluated(text, zero)).all(), text
    assert evaluated("9 ** 9 ** 9 ** 9") == np.inf and evaluated("exp(1000)") == np.inf
    assert evaluated("1 / 0") == np.inf and evaluated("10 ** 400") == np.inf


def test_shapes_broadcast_and_may_be_empty_or_strided():
    assert np.array_equal(evaluated("x + y", {"x": X[:, :1], "y": Y[0]}), X[:, :1] + Y[0])
    strided = {"x": X[::2, ::-1], "y": Y.T[:, ::2].T}
    assert np.array_equal(evaluated("x + y", strided), X[::2, ::-1] + Y[::2])
    assert evaluated("x * 2", {"x": np.empty((0, 3))}).shape == (0, 3)
    refused("x + y.z * 2", "x (5, 7), y.z (4,)", values={"x": X, "y.z": np.zeros(4)})


def test_a_learning_rate_schedule_takes_numbers_and_gives_a_number():
    schedule = Expression("0.5 * (1 + cos(3.14159 * step / steps))", "train.schedule")
    assert schedule.names == {"step", "steps"}
    rates = [float(schedule.evaluate({"step": step, "steps": 60, "epoch": 0.5}))
             for step in range(60)]
    assert np.allclose(rates, 0.5 * (1 + np.cos(3.14159 * np.arange(60) / 60)), rtol=1e-14)
    assert float(evaluated("0.1")) == 0.1


def test_names_are_those_that_are_needed():
    assert Expression("a.stage1.encode - b.x.y + pi + exp(a.stage1.encode) > z", "").names \
        == {"a.stage1.encode", "b.x.y", "z"}


def test_a_reduction_is_a_name_for_its_caller():
    expression = Expression("rms(a.x - b.x) / rms( a.x ) + rms(a.x - b.x) > y", "text", {"rms"})
    assert expression.reductions == {"rms(a.x - b.x)": ("rms", "a.x - b.x"),
                                     "rms( a.x )": ("rms", "a.x")}
    assert expression.names == {"y", *expression.reductions}
    values = {"rms(a.x - b.x)": 1.0, "rms( a.x )": 4.0, "y": np.array([1.2, 1.3])}
    assert expression.evaluate(values).tolist() == [True, False]


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "__import__('os')", "a.__class__()", "(1).real", "().__class__", "x.y()", "x()()", "eval(x)",
    "print(1)", "'text'", "b'text'", "f'{x}'", "x[0]", "x[:]", "lambda: 1", "[x]", "(x, y)", "{x}",
    "{}", "{1: 2}", "[x for x in y]", "(x for x in y)", "x if y else 1", "(x := 1)", "await x",
    "yield", "*x", "x is y", "x in y", "x not in y", "x // y", "x @ y", "x << 1", "x >> 1", "x ^ y",
    "1j", "True", "None", "...", "x; y", "x = 1", "import os", "sqrt(*x)", "sqrt(x=1)", "del x",
    "where(x > 1, x, y, out=x)"])
def test_nothing_but_arithmetic_gets_in(text):
    refused(text, "write numbers, names" if "(" not in text else "")


@pytest.mark.parametrize("text, words", [
    ("", ["it is empty"]), ("  \n ", ["it is empty"]), ("x +", ["it cannot be read"]),
    ("x y", ["it cannot be read"]), ("x\n+ y)", ["'x + y)'", "it cannot be read"]),
    ("(x", ["it cannot be read"]),
    ("1if x else 2", ["it cannot be read"]), ("x\0y", ["it"]), ("x\udcff", ["that are no text"]),
    ("\x1b[31mx", ["it cannot be read"]), ("3 m", ["it cannot be read"]),
    ("5px + 1", ["it cannot be read"]),
    ("0 < x < 1", ["'0 < x < 1' compares more than two things", "write 0 < x and x < 1"]),
    ("x > 0 & y > 0", ["compares more than two things"]), ("not x", ["'x' is a number"]),
    ("x & 1", ["'x' is a number", "compare it"]), ("x > 1 and y", ["'y' is a number"]),
    ("~x", ["'x' is a number"]),
    ("where(x, 1, 2)", ["'x' is a number where a comparison is needed"]),
    ("sqroot(x)", ["'sqroot' is not a function", "use sqrt, "]), ("sqrt()", ["needs 1 argument:"]),
    ("sqrt(x, y)", ["'sqrt(x, y)' needs 1 argument:"]), ("where(x > 1)", ["needs 3 arguments:"]),
    ("1e999", ["too large"]), ("9" * 400, ["too large"]), ("9" * 5000, ["has 5,000 characters"])])
def test_what_is_wrong_is_named_with_a_remedy(text, words):
    refused(text, *words)


@pytest.mark.parametrize("text", [
    "(" * 10_000 + "x" + ")" * 10_000, "-" * 20_000 + "x", "(" * 300 + "x" + ")" * 300,
    "-" * 999 + "x",
    "~" * 900 + "x", "not " * 240 + "x", "+".join("x" * 400), "**".join("x" * 300),
    "abs(" * 150 + ")" * 150, "abs(" * 180 + "x" + ")" * 180, "x" + "()" * 400,
    "where(where(" * 70 + "x", "x" + ".y" * 499 + "z("])
def test_deep_nesting_is_one_line_and_quick(text):
    start = time.perf_counter()
    refused(text)
    assert time.perf_counter() - start < 1


def test_what_is_allowed_at_most_is_evaluated():
    depth = expressions.DEEPEST - 1
    assert evaluated("-" * depth + "x", {"x": 2.0}) == 2.0 * (-1) ** depth
    assert evaluated("(0+" * depth + "x" + ")" * depth, {"x": 2.0}) == 2.0
    comparisons = "where(0<" * (depth // 2) + "x" + ",1,0)" * (depth // 2)
    assert evaluated(comparisons, {"x": 2.0}) == 1.0
    assert evaluated("abs(0<" * (depth // 2) + "x" + ")" * (depth // 2), {"x": 2.0}) == 1.0
    names = [f"x{n}" for n in range(expressions.MOST_VALUES)]
    assert evaluated("+".join(names), dict.fromkeys(names, 1.0)) == len(names)
    product = "*".join(f"(sin(x{n})+cos(x{n}))" for n in range(expressions.MOST_VALUES))
    assert evaluated(product, dict.fromkeys(names, 0.0)) == 1.0
    refused("+".join([*names, "y"]), "more than 30 different names and numbers")
    refused("+".join(["x"] * 61), "nested too deeply")


def test_an_unknown_name_is_told_with_those_that_are_close():
    message = refused("stage1.enocde + 1", "'stage1.enocde' is not known here", values=VALUES)
    assert message.endswith("use stage1.encode")
    assert refused("step", values={"a": 1, "b": 2}).endswith("use a or b")
    assert refused("q", values={f"name{n}": 1 for n in range(20)}).count("name") == 12
    refused("a.__class__", "'a.__class__' is not known here: use numbers alone", values={})
    Expression("x + 1", "").check(["x", "y"])


@pytest.mark.parametrize("value", ["text", b"text", None, 1j, 10 ** 30, np.longdouble(1), [None],
                                   np.array(["x"])])
def test_a_value_that_is_no_number_is_refused(value):
    refused("x.y + 1", "'x.y' is of type", "use real numbers", values={"x.y": value})


@given(strategies.text(alphabet="xy19.e+-*/%<>=&|~(), andotrms:[]'\"_#\\\n", max_size=30))
def test_any_text_is_evaluated_or_refused_in_one_line(text):
    try:
        expression = Expression(text, "text")
        result = expression.evaluate(dict.fromkeys(expression.names, 2.0))
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert result.shape == () and result.dtype in (bool, float)


# ---- threads, and what is loaded -----------------------------------------------------------------


THREADS = """
import logging, sys
logging.basicConfig(level=logging.INFO)
from hpclcae.utils.expressions import Expression
expression = Expression("x + 1", "text")
assert "numexpr" not in sys.modules
print(float(expression.evaluate({"x": 1})))
import numexpr
print(numexpr.get_num_threads())
"""


@pytest.mark.parametrize("setting", [{}, {"OMP_NUM_THREADS": "2"}, {"OMP_NUM_THREADS": "4,2"},
                                     {"NUMEXPR_NUM_THREADS": "2", "NUMEXPR_MAX_THREADS": "2"}])
def test_one_thread_whatever_is_set_and_nothing_loaded_before_it_is_needed(setting):
    environment = {key: value for key, value in os.environ.items() if "_THREADS" not in key}
    process = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True,
                             timeout=60, env=environment | setting)
    assert (process.returncode, process.stdout, process.stderr) == (0, "2.0\n1\n", "")

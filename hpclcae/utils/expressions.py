"""Arithmetic that a user writes: ``0.5 * (1 + cos(pi * step / steps))``, ``a.stage1.encode > 0.1``.

The text is parsed as Python and translated into another text, in which every name and every number
is a variable of ours (``v0``, ``v1``, ...); only that reaches numexpr, so nothing that was typed is
ever run, and no constant power is computed by Python. What is not arithmetic is an InputError.
"""
import ast
import difflib
import os
import warnings
from collections.abc import Collection, Iterable, Mapping
from functools import cache, cached_property
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

from hpclcae.utils.errors import InputError

#: Functions and how many arguments they take.
FUNCTIONS = dict.fromkeys(
    ["sqrt", "exp", "expm1", "log", "log10", "log1p", "abs", "floor", "ceil", "sin", "cos", "tan",
     "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"], 1) | {
         "arctan2": 2, "minimum": 2, "maximum": 2, "where": 3}
CONSTANTS = {"pi": np.pi}

LONGEST = 1000      # characters of a text
DEEPEST = 60        # operations inside each other: Python and numexpr both recurse
MOST_VALUES = 30    # different names and numbers: numexpr takes 63, built with an old NumPy 31

_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Mod: "%", ast.Pow: "**"}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}


class Expression:
    """One line of arithmetic, read once and evaluated as often as wanted, element by element.

    Allowed are numbers, names with or without dots, ``pi``, ``+ - * / % **``, one comparison at a
    time, ``& | ~`` or ``and or not`` between comparisons, and the functions of `FUNCTIONS`.

    All numbers are float64, integers and truth values of arrays too, so nothing wraps around and
    ``/`` always divides; a comparison that is used as a number is 1 or 0. What is not defined is
    inf or nan, without a warning.

    Parameters
    ----------
    text : str
        What the user wrote.
    where : str
        What it is, for messages: a key of the configuration or an argument.
    reductions : collection of str
        Functions of one argument that the caller computes. A call of one is a name, spelled as in
        the text: with ``rms``, ``rms(x) / 2`` has the name ``rms(x)``.

    Attributes
    ----------
    names : frozenset of str
        The names that it needs a value of.
    reductions : dict of str to (str, str)
        Those among them that are reductions: function, and text of its argument.
    is_condition : bool
        The result is bool: it is a comparison, or several that are joined.

    Raises
    ------
    InputError
        The text is empty, too long, or not arithmetic.
    """

    def __init__(self, text: str, where: str, reductions: Collection[str] = ()) -> None:
        self.text, self.where = " ".join(text.split()), where  # a text of TOML may have lines
        self.reductions: dict[str, tuple[str, str]] = {}
        self._reducing = reductions
        self._variables: dict[str | float, str] = {}  # name or number -> variable of numexpr
        self._translation, self.is_condition = self._translated(self._parsed(), 1)
        self.names = frozenset(name for name in self._variables if isinstance(name, str))

    def check(self, available: Iterable[str], names: Collection[str] | None = None) -> None:
        """See that every name, or every one of `names`, is one of `available`.

        Raises
        ------
        InputError
            Names the first that is not, and those that are close.
        """
        all_known = set(available)
        known = sorted(all_known - self.reductions.keys())
        for name in sorted({*(self.names if names is None else names)} - all_known):
            close = difflib.get_close_matches(name, known, n=3) or known[:12]
            rest = ", ..." if len(close) == 12 < len(known) else ""
            self.refuse(f"'{name}' is not known here",
                        f"use {' or '.join(close)}{rest}" if close else "use numbers alone")

    def evaluate(self, values: Mapping[str, Any]) -> np.ndarray:
        """The result for these values, which are broadcast as in NumPy.

        Parameters
        ----------
        values : mapping of str to ndarray or float
            A value of every name; others are left alone. Types that float64 holds: bool, integers,
            floating point up to 64 bits.

        Returns
        -------
        ndarray
            float64, or bool if `is_condition`; of no dimension if all values are single numbers.

        Raises
        ------
        InputError
            A name has no value or one that is no number, or shapes do not fit together.
        """
        self.check(values)
        arrays = {name: np.asarray(values[name] if isinstance(name, str) else name)
                  for name in self._variables}
        for name, array in arrays.items():
            if not np.can_cast(array.dtype, np.float64):
                self.refuse(f"'{name}' is of type {array.dtype}",
                            "use real numbers of up to 64 bits")
        try:
            np.broadcast_shapes(*(array.shape for array in arrays.values()))
        except ValueError:
            shapes = (f"{name} {arrays[name].shape}" for name in sorted(self.names))
            self.refuse(f"the shapes {', '.join(shapes)} do not fit together",
                        "use arrays of the same shape")
        return self._program(*arrays.values(), casting="safe", ex_uses_vml=False)

    def refuse(self, problem: str, remedy: str) -> NoReturn:
        """Raise an InputError of one line: what the text is, what is wrong with it, what to do."""
        line = f"{self.where} '{_short(self.text)}': {problem}: {remedy}"
        raise InputError("".join(c if c.isprintable() else " " for c in line))

    @cached_property
    def _program(self) -> Any:
        """The translation, compiled; numexpr converts its inputs to float64 piece by piece."""
        signature = [(variable, np.float64) for variable in self._variables.values()]
        return _numexpr().NumExpr(self._translation, signature)

    @property
    def _allowed(self) -> str:
        return ("write numbers, names, + - * / % **, comparisons, and, or, not, and the functions "
                + ", ".join([*FUNCTIONS, *self._reducing]))

    # ---- reading -------------------------------------------------------------------------------

    def _parsed(self) -> ast.expr:
        if not self.text:
            self.refuse("it is empty", self._allowed)
        if len(self.text) > LONGEST:
            self.refuse(f"it has {len(self.text):,} characters",
                        f"use at most {LONGEST:,}, in several expressions if need be")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # '1if' and the like: then it is a SyntaxError
                return ast.parse(self.text, mode="eval").body
        except (RecursionError, MemoryError):  # so the parser says that its stack is full
            self._too_deep()
        except SyntaxError as error:
            self.refuse(f"it cannot be read ({error.msg})", self._allowed)
        except ValueError:
            self.refuse("it has characters that are no text", self._allowed)

    def _translated(self, node: ast.expr, depth: int) -> tuple[str, bool]:
        """The translation of a part, and whether it is a condition; `depth` parts are around it."""
        if depth > DEEPEST:
            self._too_deep()
        depth += 1
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self._number_itself(value), False
            case ast.Name(id=name) if name in CONSTANTS:
                return self._variable(CONSTANTS[name]), False
            case ast.Name() | ast.Attribute():
                return self._variable(self._dotted(node)), False
            case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=operand):
                minus = "-" if isinstance(sign, ast.USub) else ""
                return f"({minus}{self._number(operand, depth)})", False
            case ast.BinOp(left=base, op=ast.Pow(), right=ast.Constant(value=2)):
                # numexpr multiplies where it sees a small power, ten times faster than pow.
                return f"({self._number(base, depth)} ** 2.0)", False
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _ARITHMETIC:
                symbol = _ARITHMETIC[type(operator)]
                return f"({self._number(left, depth)} {symbol} {self._number(right, depth)})", False
            case ast.Compare(left=left, ops=[comparison], comparators=[right]) \
                    if type(comparison) in _COMPARISONS:
                symbol = _COMPARISONS[type(comparison)]
                return f"({self._number(left, depth)} {symbol} {self._number(right, depth)})", True
            case ast.Compare(ops=[_, _, *_]):
                self.refuse(f"{self._shown(node)} compares more than two things",
                            "write 0 < x and x < 1, or (0 < x) & (x < 1)")
            case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
                return f"(~{self._condition(operand, depth)})", True
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr() as joint):
                return self._joined(joint, [node.left, node.right], depth), True
            case ast.BoolOp(op=logical, values=operands):
                return self._joined(logical, operands, depth), True
            case ast.Call(func=ast.Name(id=function)) if function in self._reducing:
                argument, = self._arguments(node, 1)
                call = self._source(node)
                self.reductions[call] = function, self._source(argument)
                return self._variable(call), False
            case ast.Call(func=ast.Name(id=function)) if function in FUNCTIONS:
                return self._called(node, function, depth), False
            case ast.Call(func=ast.Name(id=function)):
                self.refuse(f"'{function}' is not a function that can be used here", "use "
                            + ", ".join([*FUNCTIONS, *self._reducing]))
        self.refuse(f"{self._shown(node)} is not arithmetic", self._allowed)

    def _number(self, node: ast.expr, depth: int) -> str:
        """The translation of a part that is used as a number."""
        text, is_condition = self._translated(node, depth)
        return f"where({text}, 1.0, 0.0)" if is_condition else text

    def _condition(self, node: ast.expr, depth: int) -> str:
        """The translation of a part that must be a condition."""
        text, is_condition = self._translated(node, depth)
        if not is_condition:
            self.refuse(f"{self._shown(node)} is a number where a comparison is needed",
                        "compare it, such as (x != 0), in parentheses beside & and |")
        return text

    def _joined(self, operator: ast.AST, operands: list[ast.expr], depth: int) -> str:
        symbol = " & " if isinstance(operator, ast.And | ast.BitAnd) else " | "
        return f"({symbol.join(self._condition(operand, depth) for operand in operands)})"

    def _called(self, node: ast.Call, function: str, depth: int) -> str:
        condition = function == "where"  # its first argument
        arguments = [(self._condition if condition and not n else self._number)(argument, depth)
                     for n, argument in enumerate(self._arguments(node, FUNCTIONS[function]))]
        return f"{function}({', '.join(arguments)})"

    def _arguments(self, node: ast.Call, count: int) -> list[ast.expr]:
        if len(node.args) != count or node.keywords:
            self.refuse(f"{self._shown(node)} needs {count} argument{'s' if count > 1 else ''}",
                        "give as many, separated by commas")
        return node.args

    def _number_itself(self, value: int | float) -> str:
        try:
            number = float(value)
        except OverflowError:
            number = np.inf
        if number == np.inf:
            self.refuse("it has a number that is too large", "use numbers below 1.8e308")
        return self._variable(number)

    def _dotted(self, node: ast.expr) -> str:
        parts, rest = [], node
        while isinstance(rest, ast.Attribute):
            parts.append(rest.attr)
            rest = rest.value
        if not isinstance(rest, ast.Name):
            self.refuse(f"{self._shown(node)} is not arithmetic", self._allowed)
        return ".".join([rest.id, *reversed(parts)])

    def _variable(self, value: str | float) -> str:
        """The variable that stands for a name or a number."""
        variable = self._variables.setdefault(value, f"v{len(self._variables)}")
        if len(self._variables) > MOST_VALUES:
            self.refuse(f"it has more than {MOST_VALUES} different names and numbers",
                        "write several expressions")
        return variable

    def _source(self, node: ast.expr) -> str:
        return ast.get_source_segment(self.text, node) or self.text

    def _shown(self, node: ast.expr) -> str:
        return f"'{_short(self._source(node))}'"

    def _too_deep(self) -> NoReturn:
        self.refuse("it is nested too deeply",
                    f"use at most {DEEPEST} operations inside each other")


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


@cache
def _numexpr() -> ModuleType:
    """numexpr with one thread, as everything on a rank has."""
    os.environ["NUMEXPR_NUM_THREADS"] = "1"  # else it reads OMP_NUM_THREADS, and fails at "4,2"
    import numpy.typing  # noqa: F401  numexpr 2.14 needs it, and with NumPy 1 nobody imports it
    import numexpr
    numexpr.set_num_threads(1)
    return numexpr

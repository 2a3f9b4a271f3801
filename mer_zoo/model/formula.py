"""Formulas in data files: `{2 * constructor.D_h}` is a number that another file gives, not code that is run."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from mer_zoo.errors import MerZooError, nearest


def _refuse(*values: Any) -> Any:
    raise TypeError(f"{' and '.join(type(value).__name__ for value in values)} are not multiplied")


OPERATIONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: lambda a, b: a * b if isinstance(a, (int, float)) and isinstance(b, (int, float)) else _refuse(a, b),
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}


def fill(data: Any, names: Mapping[str, Any]) -> Any:
    """Replace the formulas in braces, in texts at any depth of plain data; a text that is one formula gives its value.

    Args:
        data: texts, numbers, lists and mappings.
        names: what formulas may refer to.

    Raises:
        MerZooError: a name that is not there, or what is no formula.

    Example:
        >>> fill({"hidden": "{2 * sizes.D_h}", "name": "layer_{n + 1}"}, {"sizes": {"D_h": 5}, "n": 0})
        {'hidden': 10, 'name': 'layer_1'}
    """
    if isinstance(data, Mapping):
        return {fill(key, names): fill(value, names) for key, value in data.items()}
    if isinstance(data, list):
        return [fill(value, names) for value in data]
    if not isinstance(data, str):
        return data
    if (whole := re.fullmatch(r"{([^{}]*)}", data)) is not None:
        return evaluate(whole[1], names)
    return re.sub(r"{([^{}]*)}", lambda found: str(evaluate(found[1], names)), data)


def evaluate(formula: str, names: Mapping[str, Any]) -> Any:
    """Return the value of a formula: numbers, texts, names, `a.b`, `a[0]`, arithmetic, comparisons, `x if c else y`.

    Args:
        formula: without braces.
        names: what it may refer to.

    Raises:
        MerZooError: a name that is not there, or what is no formula, such as a call.

    Example:
        >>> evaluate("win[1] - 1 if config == 'IEMOCAP' else 0", {"win": [2, 4], "config": "IEMOCAP"})
        3
    """
    try:
        return _value(ast.parse(formula.strip(), mode="eval").body, names)
    except (SyntaxError, TypeError, LookupError, ValueError, ArithmeticError) as error:
        raise MerZooError(f"'{{{formula}}}' has no value: {error}.") from None


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return _entry(names, name)
        case ast.Attribute(value=of, attr=name):
            return _entry(_value(of, names), name)
        case ast.Subscript(value=of, slice=key):
            return _entry(_value(of, names), _value(key, names))
        case ast.BinOp(left=a, op=op, right=b) if type(op) in OPERATIONS:
            return OPERATIONS[type(op)](_value(a, names), _value(b, names))
        case ast.Compare(left=a, ops=[op], comparators=[b]) if type(op) in OPERATIONS:
            return OPERATIONS[type(op)](_value(a, names), _value(b, names))
        case ast.UnaryOp(op=ast.Not(), operand=a):
            return not _value(a, names)
        case ast.IfExp(test=test, body=yes, orelse=no):
            return _value(yes if _value(test, names) else no, names)
    raise MerZooError(f"'{ast.unparse(node)}' is no formula. Use names, numbers, arithmetic and comparisons.")


def _entry(container: Any, key: Any) -> Any:
    if isinstance(container, Mapping) and key not in container:
        raise MerZooError(f"a formula asks for '{key}', which is not there.{nearest(str(key), map(str, container))}")
    return container[key]

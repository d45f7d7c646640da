"""Expressions in Spark's SQL: checked without Spark, and made exact when their types are known.

What is not known to be harmless is refused. An expression may only consist of what the samples
below consist of, and what is passed on to Spark is written anew from the tree that was checked.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from sparkpar_assets.transforms.decimals import NUMERIC, exact_quotient_sql

if TYPE_CHECKING:
    from sqlglot.dialects.dialect import Dialect
    from sqlglot.expressions import Expr

TypeOf = Callable[[str], str]
"""Gives the type of a row expression, as Spark's ``simpleString``."""

OPERATORS = (
    "a = 1 AND b <> 2 OR NOT c >= 3 AND a <= 4 AND a > b AND a < -c",
    "(a + b - c) * 2 / 3 % 4 DIV 5",
    "a <=> b AND a IS NULL AND b IS NOT NULL AND c IS TRUE",
    "a IN (1, 2) AND b BETWEEN 1 AND 2 AND s LIKE 'x%' AND s ILIKE 'y' AND s RLIKE 'z'",
    "s || 't'",
    "CASE WHEN a THEN b ELSE c END",
    "CASE a WHEN 1 THEN b END",
    "CAST(a AS DECIMAL(10, 2))",
    "TRY_CAST(a AS DOUBLE)",
    "DATE '2018-01-01'",
    "t + INTERVAL 1 DAY",
    "EXTRACT(YEAR FROM t)",
)
ROW_FUNCTIONS = (
    *("if(a, b, c)", "coalesce(a, b)", "nvl(a, b)", "nullif(a, b)", "greatest(a, b)"),
    *("least(a, b)", "abs(a)", "sign(a)", "round(a, 2)", "bround(a, 2)", "floor(a)", "ceil(a)"),
    *("sqrt(a)", "exp(a)", "ln(a)", "log10(a)", "pow(a, 2)", "pmod(a, 2)", "try_divide(a, b)"),
    *("width_bucket(a, 0, 10, 5)", "lower(s)", "upper(s)", "trim(s)", "ltrim(s)", "rtrim(s)"),
    *("length(s)", "concat(s, s)", "substring(s, 1, 2)", "left(s, 2)", "right(s, 2)"),
    *("replace(s, 'x', 'y')", "lpad(s, 3, '0')", "rpad(s, 3, '0')", "initcap(s)"),
    *("split_part(s, '-', 1)", "regexp_extract(s, '(x)', 1)", "regexp_replace(s, 'x', 'y')"),
    *("instr(s, 'x')", "year(t)", "quarter(t)", "month(t)", "weekofyear(t)", "day(t)"),
    *("dayofmonth(t)", "dayofweek(t)", "weekday(t)", "dayofyear(t)", "hour(t)", "minute(t)"),
    *("second(t)", "to_date(t)", "date_trunc('month', t)", "trunc(t, 'month')", "last_day(t)"),
    *("date_format(t, 'yyyy-MM')", "date_add(t, 1)", "date_sub(t, 1)", "add_months(t, 1)"),
    *("datediff(t, t)", "months_between(t, t)", "make_date(2018, 1, 1)", "unix_seconds(t)"),
    # In New York a trip of 23 h is one of the next day in UTC.
    *("from_utc_timestamp(t, 'America/New_York')", "to_utc_timestamp(t, 'Asia/Seoul')"),
    # Other names of the same.
    *("ifnull(a, b)", "nvl2(a, b, c)", "isnull(a)", "isnotnull(a)", "ceiling(a)", "power(a, 2)"),
    *("mod(a, b)", "char_length(s)", "character_length(s)", "lcase(s)", "ucase(s)"),
    *("substr(s, 1, 2)", "date_diff(t, t)", "dateadd(t, 1)"),
    *("cbrt(a)", "log2(a)", "log(2, a)", "log1p(a)", "expm1(a)", "hypot(a, b)", "isnan(a)"),
    *("sin(a)", "cos(a)", "tan(a)", "asin(a)", "acos(a)", "atan(a)", "atan2(a, b)"),
    *("degrees(a)", "radians(a)", "pi()", "startswith(s, 'x')", "endswith(s, 'x')"),
    *("contains(s, 'x')", "concat_ws('-', s, s)", "translate(s, 'x', 'y')", "reverse(s)"),
    *("substring_index(s, '-', 1)", "md5(s)", "sha2(s, 256)"),
)
AGGREGATES = (
    *("count(*)", "count(a)", "count(DISTINCT a)", "count_if(a)", "sum(a)", "avg(a)"),
    *("min(a)", "max(a)", "sum(a) FILTER (WHERE b)", "bool_and(a)", "bool_or(a)"),
    *("every(a)", "some(a)"),
    *("median(a)", "percentile(a, 0.5)", "percentile_approx(a, 0.5)", "approx_count_distinct(a)"),
    *("stddev(a)", "stddev_samp(a)", "stddev_pop(a)", "variance(a)", "var_samp(a)", "var_pop(a)"),
    *("corr(a, b)", "covar_samp(a, b)", "covar_pop(a, b)", "skewness(a)", "kurtosis(a)"),
)
"""Those whose result does not hang on the order of the rows; in floats, all but the last digits."""
REWRITTEN = ("AVG", "COUNT", "COUNT_IF", "MAX", "MIN", "SUM")
"""The functions whose meaning matters here. The others are passed on as they are written: sqlglot
would drop arguments that it does not know, and write log10(a) as LOG(10, a), which has other last
digits."""
SYNTAX = ("CAST", "EXTRACT", "TRY_CAST")
"""Functions whose arguments have a syntax of their own."""

FACTOR = "DECIMAL(23, 9)"
"""Operands of arithmetic. Spark shortens what a product of two DECIMAL(38,9) has after the point to
6 digits, and what their sum has to 8. Of numbers with 14 digits before the point (and a larger one
is an error) the product keeps 9, as BigQuery's own does."""
TERM = "DECIMAL(29, 9)"
"""Aggregates as operands: quotients and sums of two keep 9 digits. (In a product they are
factors.)"""
DECIMAL_SCALE = re.compile(r"decimal\(\d+,(\d+)\)")
KEPT = 9
"""Digits after the point that arithmetic keeps."""

READ_ALIKE = re.compile(r"(?:[^\\\a\v\f]|\\[\\'nrtb%_])*")
"""Texts that sqlglot and Spark read alike. To Spark, ``\\d`` is a d, ``\\101`` an A, ``\\a`` an a.
sqlglot keeps the backslash of the first two, and writes the third for a bell."""

PARSED = 4096
"""Expressions whose trees are kept. Nobody changes these."""


class SqlError(ValueError):
    """An expression that is refused: one sentence of cause, one of remedy."""


@lru_cache(PARSED)
def parse_row(text: str) -> "Expr":
    """An expression over the columns of one row.

    Raises:
        SqlError: It does not parse, or has an aggregate or something that is not allowed.
    """
    tree = _parse(text)
    _check_allowed(tree, text, *_row_vocabulary())
    return tree


@lru_cache(PARSED)
def parse_group(text: str) -> "tuple[str, Expr]":
    """Name and expression of a column to group by: ``column``, or ``expression AS name``.

    Raises:
        SqlError: As ``parse_row``, or an expression has no name.
    """
    from sqlglot import exp

    tree = _parse(text)
    if isinstance(tree, exp.Alias):
        name, tree = tree.alias, tree.this
    elif isinstance(tree, exp.Column):
        name = tree.name
    else:
        raise SqlError(f"'{text}' has no name. Write {text} AS a_name.")
    _check_allowed(tree, text, *_row_vocabulary())
    return name, tree


@lru_cache(PARSED)
def parse_metric(text: str) -> "Expr":
    """An expression of aggregates.

    Raises:
        SqlError: It does not parse, has a column outside of its aggregates or none of these, or
            something that is not allowed.
    """
    from sqlglot import exp

    tree = _parse(text)
    row_kinds, row_names = _row_vocabulary()
    kinds, names = _vocabulary(AGGREGATES)
    _check_allowed(tree, text, row_kinds | kinds, row_names | names)
    aggregates = list(_aggregates(tree))
    if not aggregates:
        raise SqlError(f"'{text}' is no aggregate. Write sum({text}), say.")
    for aggregate in aggregates:
        if _takes_several(aggregate):
            raise SqlError(f"'{text}' has an aggregate of several values. Write one value.")
        if any(inner is not aggregate for inner in _aggregates(_unit(aggregate))):
            raise SqlError(f"'{text}' has an aggregate within another. Take the two apart.")
    for column in tree.find_all(exp.Column):
        # The condition of a FILTER belongs to its aggregate.
        if not any(isinstance(one, exp.Filter) or _is_aggregate(one) for one in _ancestors(column)):
            raise SqlError(
                f"'{text}' has {column.name} outside of an aggregate. Write min({column.name}), "
                "say, or group by it."
            )
    return tree


@lru_cache(PARSED)
def parse_order(text: str) -> tuple[str, bool, bool]:
    """A column to sort by: its name, whether it descends, whether NULLs come first.

    Raises:
        SqlError: It is not ``name [ASC|DESC] [NULLS FIRST|LAST]``.
    """
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    try:
        clauses = parse_one(f"SELECT 1 ORDER BY {text}", dialect="spark").args
    except SqlglotError:
        clauses = {}
    is_order_alone = {name for name, value in clauses.items() if value} == {"expressions", "order"}
    order = clauses["order"].expressions if is_order_alone else []
    if len(order) != 1 or not isinstance(order[0].this, exp.Column) or order[0].this.table:
        raise SqlError(f"'{text}' is no column to sort by. Write a_name, or a_name DESC.")
    return order[0].this.name, bool(order[0].args.get("desc")), bool(order[0].args["nulls_first"])


def columns_of(tree: "Expr") -> list[str]:
    """The columns that an expression reads, in the order in which they stand."""
    from sqlglot import exp

    return list(dict.fromkeys(column.name for column in tree.find_all(exp.Column, bfs=False)))


def sql_of(tree: "Expr") -> str:
    """An expression as Spark's SQL, with every name quoted."""
    return tree.sql(dialect="spark", identify=True, comments=False)


@dataclass(frozen=True)
class ExactMetric:
    """A metric as Spark's SQL, exact where its type is whole or DECIMAL.

    Attributes:
        sql: The metric.
        overflows: Is true where one of its sums needs more digits than its type has: the metric is
            NULL then. None where it has no such sum.
        bounds: The lowest and the highest value, where the metric is an exact mean.
    """

    sql: str
    overflows: str | None
    bounds: tuple[str, str] | None


def exact_row(tree: "Expr", type_of: TypeOf) -> str:
    """A row expression as Spark's SQL, whose arithmetic keeps 9 digits after the point.

    Args:
        tree: What ``parse_row`` or ``parse_group`` returned.
        type_of: Types of the rows' expressions.
    """
    return sql_of(_with_narrow_operands(tree.copy(), type_of))


def exact_metric(tree: "Expr", type_of: TypeOf) -> ExactMetric:
    """A metric whose sums and means are exact.

    - ``avg`` of whole numbers and decimals is the sum over the count as DECIMAL(38,9), rounded
      once, half-up; each value counts with 9 digits after the point, as a NUMERIC has.
    - A sum that overflows is NULL, and ``overflows`` tells it from a sum of nothing.
    - The operands of arithmetic are so narrow that Spark keeps 9 digits of the result.
    - A ``FILTER`` keeps what is aggregated from being computed for other rows.

    Args:
        tree: What ``parse_metric`` returned.
        type_of: Types of the rows' expressions.

    Raises:
        SqlError: A sum or mean is asked of what is not a number.
    """
    from sqlglot import exp

    tree = _with_narrow_operands(_without_filters(tree), type_of)
    is_mean = isinstance(tree, exp.Avg)
    overflows: list[str] = []
    bounds = None
    for aggregate in list(_aggregates(tree)):
        if not isinstance(aggregate, exp.Sum | exp.Avg | exp.Min | exp.Max):
            continue
        kind = type_of(sql_of(_argument(aggregate)))
        if isinstance(aggregate, exp.Sum | exp.Avg):
            if not _is_number(kind):
                raise SqlError(
                    f"{sql_of(aggregate)} is asked of a value of type {kind}. "
                    "Take a column of numbers, or cast it."
                )
            if _is_exact(kind):
                tree, overflow = _with_exact_sum(tree, aggregate)
                overflows.append(overflow)
                if is_mean:
                    value = _as_numeric(sql_of(_argument(aggregate)))
                    bounds = f"MIN({value})", f"MAX({value})"
        elif kind.startswith("decimal") and _is_operand(aggregate):
            aggregate.replace(_cast(aggregate, TERM))
    _narrow_results(tree, type_of, TERM)
    return ExactMetric(sql_of(tree), " OR ".join(overflows) or None, bounds)


def _with_exact_sum(tree: "Expr", aggregate: "Expr") -> "tuple[Expr, str]":
    """The tree with one exact sum or mean in it, and when that overflows."""
    from sqlglot import exp

    value = sql_of(aggregate.this)
    count = f"COUNT({value})"
    if isinstance(aggregate, exp.Avg):
        distinct = "DISTINCT " if isinstance(aggregate.this, exp.Distinct) else ""
        value = distinct + _as_numeric(sql_of(_argument(aggregate)))
    total = f"TRY_SUM({value})"
    result = exact_quotient_sql(total, count) if isinstance(aggregate, exp.Avg) else total
    if _is_operand(aggregate):
        result = f"CAST({result} AS {TERM})"
    overflow = f"({count} > 0 AND {total} IS NULL)"
    if aggregate is tree:
        return _parse(result), overflow
    aggregate.replace(_parse(f"({result})"))
    return tree, overflow


def _without_filters(tree: "Expr") -> "Expr":
    """A copy with ``sum(CASE WHEN b THEN a END)`` for ``sum(a) FILTER (WHERE b)``.

    All aggregates leave NULLs out. Spark may compute what is aggregated before it looks at the
    filter, and so fail at a row that the filter leaves out: a CASE it computes in order.
    """
    from sqlglot import exp

    tree = exp.paren(tree.copy(), copy=False)  # a root that nothing replaces
    for filtered in list(tree.find_all(exp.Filter)):
        aggregate, condition = filtered.this, sql_of(filtered.expression.this)
        value = _argument(aggregate)
        counted = "1" if isinstance(value, exp.Star) else sql_of(value)
        value.replace(_parse(f"CASE WHEN {condition} THEN {counted} END"))
        filtered.replace(aggregate)
    return tree.this.pop()  # type: ignore[no-any-return]  # sqlglot's


def _with_narrow_operands(tree: "Expr", type_of: TypeOf) -> "Expr":
    from sqlglot import exp

    for column in list(tree.find_all(exp.Column)):
        if _is_operand(column) and type_of(sql_of(column)).startswith("decimal"):
            column.replace(_cast(column, FACTOR))
    has_aggregates = any(_aggregates(tree))
    for argument in _aggregates(tree) if has_aggregates else (tree,):
        _narrow_results(argument, type_of, FACTOR)
    return tree


def _narrow_results(tree: "Expr", type_of: TypeOf, kind: str) -> None:
    """Narrow what arithmetic results in, where more of it is done with that: a * b + c."""
    from sqlglot import exp

    for node in reversed(list(tree.walk(prune=lambda one: one is not tree and _is_aggregate(one)))):
        if not isinstance(node, _arithmetic()):
            continue
        if _loses_digits(node, type_of):
            for operand in (node.this, node.expression):
                if any(operand.find_all(exp.Column)) or any(_aggregates(operand)):
                    operand.replace(_cast(operand, FACTOR))
        if (
            _is_operand(node)
            and not isinstance(node.parent, exp.Cast)
            and type_of(sql_of(node)).startswith("decimal")
        ):
            node.replace(_cast(node, kind))


def _loses_digits(node: "Expr", type_of: TypeOf) -> bool:
    """Whether Spark would shorten a result after the point, whose digits are those of a NUMERIC.

    It does so with products of a decimal and an INT64, which counts as DECIMAL(20,0), or of two
    aggregates, and with quotients of a whole number.
    """
    from sqlglot import exp

    result = _scale(type_of(sql_of(node)))
    if result is None:
        return False
    if isinstance(node, exp.Div):
        return result < KEPT
    scales = [_scale(type_of(sql_of(one))) or 0 for one in (node.this, node.expression)]
    return result < min(KEPT, sum(scales) if isinstance(node, exp.Mul) else max(scales))


def _scale(kind: str) -> int | None:
    """Digits after the point of a decimal's type."""
    found = DECIMAL_SCALE.fullmatch(kind)
    return int(found[1]) if found else None


def _is_operand(node: "Expr") -> bool:
    """Whether arithmetic is done with a node's value, before it is aggregated (again)."""
    for ancestor in _ancestors(node):
        if isinstance(ancestor, _arithmetic()):
            return True
        if _is_aggregate(ancestor):
            return False
    return False


@cache
def _arithmetic() -> "tuple[type[Expr], ...]":
    from sqlglot import exp

    return exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.IntDiv


def _cast(node: "Expr", kind: str) -> "Expr":
    return _parse(f"CAST({sql_of(node)} AS {kind})")


def _argument(aggregate: "Expr") -> "Expr":
    """What is aggregated, without DISTINCT; of several values the first."""
    from sqlglot import exp

    is_anonymous = isinstance(aggregate, exp.Anonymous)
    value: Expr = aggregate.expressions[0] if is_anonymous else aggregate.this
    return value.expressions[0] if isinstance(value, exp.Distinct) else value


def _unit(aggregate: "Expr") -> "Expr":
    """An aggregate with its FILTER, if it has one."""
    from sqlglot import exp

    parent = aggregate.parent
    return parent if isinstance(parent, exp.Filter) and parent.this is aggregate else aggregate


def _as_numeric(sql: str) -> str:
    return f"CAST({sql} AS {NUMERIC.upper()})"


def _is_exact(kind: str) -> bool:
    return kind in ("tinyint", "smallint", "int", "bigint") or kind.startswith("decimal")


def _is_number(kind: str) -> bool:
    return _is_exact(kind) or kind in ("float", "double")


@cache
def _dialect() -> "type[Dialect]":
    """Spark's, in which only what has to be told apart has a kind of its own."""
    from sqlglot import TokenType
    from sqlglot.dialects.spark import Spark
    from sqlglot.parsers.spark import SparkParser

    class Parser(SparkParser):
        FUNCTIONS = {name: SparkParser.FUNCTIONS[name] for name in REWRITTEN}  # noqa: RUF012
        FUNCTION_PARSERS = {name: SparkParser.FUNCTION_PARSERS[name] for name in SYNTAX}  # noqa: RUF012
        UNARY_PARSERS = {  # noqa: RUF012
            # A plus would be lost, which makes a number of a text.
            kind: parser
            for kind, parser in SparkParser.UNARY_PARSERS.items()
            if kind is not TokenType.PLUS
        }

    class Tokenizer(Spark.Tokenizer):
        NUMERIC_LITERALS = {  # noqa: RUF012
            # A DECIMAL without digits after the point would be made of 1.5BD: 2. Now it is taken
            # for a name, as 1a is, and no table has such a column.
            suffix: kind
            for suffix, kind in Spark.Tokenizer.NUMERIC_LITERALS.items()
            if suffix != "BD"
        }

    return type("SparkVerbatim", (Spark,), {"Parser": Parser, "Tokenizer": Tokenizer})


def _parse(text: str) -> "Expr":
    from sqlglot import parse
    from sqlglot.errors import SqlglotError

    if not READ_ALIKE.fullmatch(text):
        raise SqlError(
            f"'{text}' has a backslash or control character that is not read alike everywhere. "
            r"Write \\ for a backslash, and of other escapes \' \n \r \t \b \% \_ alone."
        )
    try:
        trees = parse(text, dialect=_dialect())
    except SqlglotError as error:
        raise SqlError(f"'{text}' does not parse: {_cause(error)} Correct it.") from None
    if len(trees) != 1 or trees[0] is None:
        raise SqlError(f"'{text}' is not one expression. Write exactly one.")
    return trees[0]


def _cause(error: Exception) -> str:
    found = getattr(error, "errors", None)
    if not found:
        return f"{str(error).splitlines()[0]}."
    description = str(found[0]["description"])
    if description.startswith("Required keyword"):  # It goes on with names of sqlglot's classes.
        description = "Something is missing"
    return f"{description} (column {found[0]['col']})."


def _check_allowed(
    tree: "Expr", text: str, kinds: "frozenset[type[Expr]]", names: frozenset[str]
) -> None:
    from sqlglot import exp

    for node in tree.walk():
        is_known = (
            node.name.upper() in names if isinstance(node, exp.Anonymous) else type(node) in kinds
        )
        if not is_known or (isinstance(node, exp.Star) and not isinstance(node.parent, exp.Count)):
            raise SqlError(
                f"'{text}' has {_described(node)}, which is not allowed here. "
                "Write it with the functions that the documentation lists."
            )
        if isinstance(node, exp.Column) and node.table:
            raise SqlError(
                f"'{text}' names {sql_of(node)}, and nested columns are not read. "
                "Make a table of the column, or a view."
            )


def _described(node: "Expr") -> str:
    from sqlglot import exp

    if isinstance(node, exp.Anonymous):
        return f"the function {node.name}"
    if isinstance(node, exp.AggFunc):
        return f"the aggregate {node.sql_name()}"
    if isinstance(node, exp.Func):
        return f"the function {node.sql_name()}"
    return f"'{sql_of(node)}'"


def _aggregates(tree: "Expr") -> "Iterator[Expr]":
    return (node for node in tree.walk() if _is_aggregate(node))


def _is_aggregate(node: "Expr") -> bool:
    from sqlglot import exp

    if isinstance(node, exp.Anonymous):
        return node.name.upper() in _anonymous_aggregates()
    return isinstance(node, exp.AggFunc)


@cache
def _anonymous_aggregates() -> frozenset[str]:
    return _vocabulary(AGGREGATES)[1] | {"TRY_SUM"}


def _takes_several(aggregate: "Expr") -> bool:
    """Whether one of the aggregates of one value is given more: max(a, b), avg(DISTINCT a, b)."""
    from sqlglot import exp

    if not isinstance(aggregate, exp.Sum | exp.Avg | exp.Min | exp.Max | exp.CountIf):
        return False
    distinct = aggregate.this.expressions if isinstance(aggregate.this, exp.Distinct) else []
    return bool(aggregate.expressions) or len(distinct) > 1


def _ancestors(node: "Expr") -> "Iterator[Expr]":
    while node.parent is not None:
        node = node.parent
        yield node


@cache
def _row_vocabulary() -> "tuple[frozenset[type[Expr]], frozenset[str]]":
    return _vocabulary((*OPERATORS, *ROW_FUNCTIONS))


@cache
def _vocabulary(samples: tuple[str, ...]) -> "tuple[frozenset[type[Expr]], frozenset[str]]":
    """The kinds of nodes that samples consist of, and the functions without a kind of their own."""
    from sqlglot import exp

    nodes = [node for sample in samples for node in _parse(sample).walk()]
    anonymous = {node.name.upper() for node in nodes if isinstance(node, exp.Anonymous)}
    return frozenset(map(type, nodes)) - {exp.Anonymous}, frozenset(anonymous)

"""Expressions: what is refused, what Spark makes of the others, and how exact that is."""

import itertools
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession

from sparkpar_assets.checks import validate_aggregation
from sparkpar_assets.io_managers.publication import StagedYear
from sparkpar_assets.transforms.aggregation import (
    GROUPS,
    OUTSIDE,
    OVERFLOWED,
    ROWS,
    Aggregated,
    Aggregation,
    aggregate,
    filtered,
)
from sparkpar_assets.transforms.sql import (
    AGGREGATES,
    OPERATORS,
    ROW_FUNCTIONS,
    SqlError,
    columns_of,
    parse_group,
    parse_metric,
    parse_order,
    parse_row,
    sql_of,
)
from tests.expected import half_up

TEXTS = (
    r"s = 'it\'s'",
    r"s RLIKE '^\\d+\\.\\d{2}$'",
    r"regexp_replace(s, '(\\w)-(\\w)', '$2 $1')",
    r"s || '\\ \' \n \r \t \b \% \_ % _ ` -- /* */ ;'",
    "s || ' \n\t '",
    's || "double \' quoted"',
    "s || 'ü 東京 🚕'",
    "s || ''",
    "s LIKE '%\\\\_%'",
    "concat(s, '{year}')",
)
FORMS = (
    *("a - -b", "- -a", "-(-a)", "a - (b - c)", "a / (b / c)", "a % b % c", "c DIV 2 * 2"),
    *("a * 1.10", "a * 1e2", "c * 2L", "a * 1.5D", "c * 3S", "a * 2F", "a + .5"),
    *("a == b", "a != b", "! yes", "NOT yes AND yes", "NOT (yes AND yes)", "a IS NOT NULL"),
    *("a NOT IN (1, 2.5)", "a NOT BETWEEN 1 AND 2", "s NOT LIKE 'x%'", "s NOT RLIKE 'x'"),
    *("s REGEXP 'x'", "yes IS NOT TRUE", "a = 1 OR b = 2 AND c = 3", "(a = 1 OR b = 2) AND c = 3"),
    *("CAST(a AS INT)", "CAST(s AS STRING)", "CAST(c AS TINYINT)", "CAST(a AS FLOAT)"),
    *("CAST(t AS DATE)", "DATE'2018-01-01'", "TIMESTAMP '2018-01-01 01:02:03+02:00'"),
    *(
        "t - INTERVAL '1' DAY",
        "t + INTERVAL 2 HOURS",
        "t >= DATE '2018-06-01'",
    ),
    *("EXTRACT(DOW FROM t)", "EXTRACT(WEEK FROM t)", "EXTRACT(SECOND FROM t)", "TRUE", "NULL"),
    *("TRY_CAST(s AS INT)", "CASE WHEN yes THEN a WHEN a > 1 THEN b ELSE -1 END", "pmod(-7, 3)"),
    *("concat(s, NULL)", "nvl(s, '')", "round(-2.5)", "round(25, -1)", "lpad(s, 3)", "log10(c)"),
    *("trunc(t, 'Q')", "date_trunc('QUARTER', t)", "months_between(t, t, false)", "ceil(a, 1)"),
)
"""Other ways to write the same kinds of things."""
REFUSED = (
    "reflect('java.lang.System', 'exit', 1)",
    "java_method('java.lang.System', 'exit', 1)",
    "input_file_name()",
    "input_file_block_start()",
    "monotonically_increasing_id()",
    "spark_partition_id()",
    *("rand()", "randn()", "random()", "uuid()", "shuffle(a)"),
    *("current_timestamp()", "current_timestamp", "current_date()", "current_date", "now()"),
    *("current_user()", "current_user", "version()", "raise_error('x')", "assert_true(a)"),
    *("(SELECT 1)", "a IN (SELECT 1)", "EXISTS (SELECT 1)", "a = ALL (SELECT 1)", "SELECT 1"),
    *("sum(a) OVER ()", "row_number() OVER (ORDER BY a)", "lag(a) OVER (ORDER BY b)"),
    *("transform(a, x -> x)", "x -> x", "filter(a, x -> x > 1)", "explode(a)", "stack(1, a)"),
    *("a.b", "t.a.b", "a[0]", "array(1)", "struct(a)", "named_struct('x', a)", "map(a, b)"),
    *(":name", "?", "$1", "${x}", "{{ x }}", "@x"),
    *(
        "a; b",
        "a; DROP TABLE b",
        "a AS b",
        "",
        " ",
        "-- a",
        "/* a */",
        "a -- b\n + rand()",
        "a /* */ b",
    ),
    *("*", "lower(*)", "sum(*)", "avg(*)", "x.*"),
    *("mean(a)", "any(a)", "first(a)", "last(a)", "any_value(a)", "collect_list(a)", "mode(a)"),
    *("max_by(a, b)", "array_agg(a)", "histogram_numeric(a, 2)"),
    *("try_sum(a)", "try_avg(a)", "try_add(a, b)", "try_multiply(a, b)", "try_to_number(s, '9')"),
    *("sum(a) IGNORE NULLS", "sum(a ORDER BY b)", "sum(a LIMIT 1)", "avg(a HAVING MAX b)"),
    *("sum(rand())", "sum(a) FILTER (WHERE rand() > 0)", "if(uuid() = s, a, b)", "no_such(a)"),
    *("system.builtin.reflect(a)", "`reflect`(a)", "IDENTIFIER('reflect')(a)", "r'x'", "X'00'"),
    *(
        "CAST(a AS STRUCT<b: INT>)",
        "+ s",
        "a COLLATE x",
        "a LIKE ANY ('x')",
        "a & b",
        "a b",
    ),
)
"""Refused as a row's expression, and as a metric."""


def made(spark: SparkSession) -> DataFrame:
    return spark.sql("""
        SELECT CAST(12.345 AS DECIMAL(38, 9)) AS a, CAST(2 AS DECIMAL(38, 9)) AS b,
            3L AS c, 'x-y 12.50' AS s, TIMESTAMP '2018-03-04 05:06:07' AS t, TRUE AS yes
        UNION ALL SELECT 7.5, 3, NULL, 'it\\'s', TIMESTAMP '2019-12-31 23:59:59', FALSE
        UNION ALL SELECT 1.000000005, 2.5, 4, NULL, NULL, NULL
    """)


def typed(sample: str) -> str:
    """A sample whose conditions are conditions."""
    for text, condition in (
        ("WHEN a THEN b", "WHEN yes THEN b"),
        ("c IS TRUE", "yes IS TRUE"),
        ("if(a, b, c", "if(yes, b, c"),
        ("WHERE b", "WHERE yes"),
        ("count_if(a", "count_if(yes"),
        ("bool_and(a", "bool_and(yes"),
        ("bool_or(a", "bool_or(yes"),
        ("every(a", "every(yes"),
        ("some(a", "some(yes"),
        ("asin(a", "asin(0.5D * b / 10"),
        ("acos(a", "acos(0.5D * b / 10"),
    ):
        sample = sample.replace(text, condition)
    return sample


def both(rows: DataFrame, written: Sequence[str], anew: Sequence[str]) -> list[tuple[Any, ...]]:
    """Each expression's text, and its values as it is written and as it is written anew."""
    texts = [f"{text} AS x{i}" for i, text in enumerate([*written, *anew])]
    columns = list(zip(*rows.selectExpr(*texts).collect(), strict=True))
    return [(text, columns[i], columns[i + len(written)]) for i, text in enumerate(written)]


def test_spark_makes_the_same_of_every_sample_written_anew(spark: SparkSession) -> None:
    rows = [typed(sample) for sample in (*OPERATORS, *ROW_FUNCTIONS)] + [*TEXTS, *FORMS]
    metrics = [typed(sample) for sample in AGGREGATES]
    found = both(made(spark), rows, [sql_of(parse_row(text)) for text in rows])
    found += both(made(spark), metrics, [sql_of(parse_metric(text)) for text in metrics])
    assert [text for text, written, anew in found if written != anew] == []


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_known_to_be_harmless_is_refused(text: str) -> None:
    for parse in (parse_row, parse_metric, parse_group):
        with pytest.raises(SqlError, match=r"(?s)^.+\. [A-Z].+\.$"):
            parse(text if parse is not parse_group else f"{text} AS name")


def test_no_function_of_sparks_passes_that_is_not_a_sample(spark: SparkSession) -> None:
    samples = " ".join((*OPERATORS, *ROW_FUNCTIONS, *AGGREGATES)).lower()
    functions = [row["function"] for row in spark.sql("SHOW FUNCTIONS").collect()]
    names = [name for name in functions if name.replace("_", "").isalnum()]
    assert len(names) > 400
    arguments = ("", "a", "s, 'x'", "a, b, c", "a, b, c, d", "DISTINCT a", "*")
    operators = {"and", "or", "in", "between", "case", "when", "div", "like", "ilike", "rlike"}
    passed = {
        name
        for name, given, parse in itertools.product(names, arguments, (parse_row, parse_metric))
        if passes(parse, f"{name}({given})")
    }
    assert {name for name in passed if f"{name}(" not in samples} <= {*operators, "not"}


def passes(parse: Any, text: str) -> bool:  # noqa: ANN401  # one of the parsers
    try:
        parse(text)
    except SqlError:
        return False
    return True


@pytest.mark.parametrize(
    "text",
    [
        r"'\d+'",
        r"'\\\d'",
        r"'\"'",
        r"'\0'",
        r"'\101'",
        r"'\u0041'",
        r"'\a'",
        "'\a'",
        "'\f'",
        "'\v'",
    ],
)
def test_an_escape_that_sqlglot_and_spark_read_differently_is_refused(text: str) -> None:
    with pytest.raises(SqlError, match="is not read alike everywhere"):
        parse_row(f"s = {text}")


@pytest.mark.parametrize(
    ("text", "anew"),
    [
        ("log10(a)", "LOG10(`a`)"),
        ("initcap(s, '-')", "INITCAP(`s`, '-')"),
        ("date_format(t, 'yyyy', s)", "DATE_FORMAT(`t`, 'yyyy', `s`)"),
        ("date_trunc(s, t)", "DATE_TRUNC(`s`, `t`)"),
        ("a /* + rand() */ + b -- c", "`a` + `b`"),
        ("`odd name` = 1", "`odd name` = 1"),
    ],
)
def test_functions_are_passed_on_with_the_arguments_that_are_written(text: str, anew: str) -> None:
    assert sql_of(parse_row(text)) == anew


def test_the_literal_that_sqlglot_would_round_is_taken_for_a_column_that_no_table_has() -> None:
    assert columns_of(parse_row("a * 1.5BD")) == ["a", "1.5BD"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a", "'a' is no aggregate. Write sum(a), say."),
        ("lower(s)", "'lower(s)' is no aggregate. Write sum(lower(s)), say."),
        (
            "sum(a) + b",
            "'sum(a) + b' has b outside of an aggregate. Write min(b), say, or group by it.",
        ),
        ("sum(max(a))", "'sum(max(a))' has an aggregate within another. Take the two apart."),
        ("median(sum(a))", "'median(sum(a))' has an aggregate within another. Take the two apart."),
        (
            "sum(a) FILTER (WHERE sum(b) > 1)",
            "'sum(a) FILTER (WHERE sum(b) > 1)' has an aggregate within another. Take the two "
            "apart.",
        ),
        ("max(a, b)", "'max(a, b)' has an aggregate of several values. Write one value."),
        (
            "avg(DISTINCT a, b)",
            "'avg(DISTINCT a, b)' has an aggregate of several values. Write one value.",
        ),
        (
            "sum(a",
            "'sum(a' does not parse: Expecting ) (column 5). Correct it.",
        ),
    ],
)
def test_a_metric_that_is_none_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(SqlError) as raised:
        parse_metric(text)
    assert str(raised.value) == reason


@pytest.mark.parametrize("aggregated", ["sum(a)", "count(*)", "median(a)", "bool_or(yes)"])
def test_rows_and_groups_have_no_aggregates(aggregated: str) -> None:
    for text in (f"{aggregated} > 1", f"{aggregated} AS name"):
        with pytest.raises(SqlError, match="which is not allowed here"):
            (parse_group if text.endswith("name") else parse_row)(text)


def test_a_group_is_a_column_or_has_a_name() -> None:
    assert parse_group("zone")[0] == "zone"
    assert parse_group("year(t) AS y")[0] == "y"
    with pytest.raises(SqlError, match=r"^'year\(t\)' has no name\. Write year\(t\) AS a_name\.$"):
        parse_group("year(t)")


def test_rows_are_sorted_by_columns_alone() -> None:
    assert parse_order("a") == ("a", False, True)
    assert parse_order("a DESC") == ("a", True, False)
    assert parse_order("`a` asc nulls last") == ("a", False, False)
    assert parse_order("a DESC NULLS FIRST") == ("a", True, True)
    for text in ("a + 1", "a, b", "1", "rand()", "x.a", "a DESC DESC", "", "a LIMIT 1", "a; b"):
        with pytest.raises(SqlError, match="is no column to sort by"):
            parse_order(text)


# What aggregations result in.


def query(group_by: Sequence[str], totals: Sequence[str] = (), **metrics: str) -> Aggregation:
    return Aggregation(
        group_by=dict(map(parse_group, group_by)),
        metrics={name: parse_metric(text) for name, text in metrics.items()},
        totals=totals,
    )


def amounts(spark: SparkSession, *rows: tuple[Any, ...]) -> DataFrame:
    return spark.createDataFrame(
        [
            (group, *(None if one is None else Decimal(one) for one in (a, b)), n)
            for group, a, b, n in rows
        ],
        "g string, a decimal(38,9), b decimal(38,9), n bigint",
    )


def only(found: Aggregated) -> Row:
    (row,) = found.rows.collect()
    return row


@pytest.mark.parametrize(
    "values",
    [
        ["0.000000001", "0.000000002"],
        ["-0.000000001", "-0.000000002"],
        ["0.000000001", "0", "0", "0"],
        ["1", "1", "0"],
        ["-1", "-1", "0"],
        ["9999999999999.999999999", "0.000000001", "7"],
        [str(10**27 - 1), "0.5"],
    ],
)
def test_a_mean_is_rounded_once_half_up_at_the_ninth_digit(
    spark: SparkSession, values: list[str]
) -> None:
    rows = amounts(spark, *(("x", value, None, None) for value in values), ("x", None, None, None))
    with localcontext(prec=60):
        expected = half_up(sum(map(Decimal, values), Decimal(0)), len(values))
    assert only(aggregate(rows, query(["g"], mean="avg(a)"), []))["mean"] == expected


def test_counts_and_sums_equal_those_of_duckdb_with_filter_and_distinct(
    spark: SparkSession,
) -> None:
    values = [
        ("x", "1.5", "2", 1),
        ("x", "1.5", "3", 2),
        ("x", "-7.123456789", None, 2),
        ("y", None, "1", None),
        ("y", None, "-1", 5),
        (None, "2", "2", 9),
        (None, "3", None, 9),
    ]
    metrics = {
        "total": "sum(a)",
        "different": "sum(DISTINCT a)",
        "some": "sum(a) FILTER (WHERE b > 1)",
        "filled": "count(a)",
        "kinds": "count(DISTINCT n)",
        "all_rows": "count(*)",
        "lowest": "min(a)",
        "highest": "max(b)",
        "numbers": "sum(n)",
    }
    found = aggregate(amounts(spark, *values), query(["g"], **metrics), []).rows
    table = duckdb.connect()
    table.execute("CREATE TABLE t (g VARCHAR, a DECIMAL(38,9), b DECIMAL(38,9), n BIGINT)")
    table.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", values)
    expected = table.execute(
        f"SELECT g, {', '.join(metrics.values())} FROM t GROUP BY g"
    ).fetchall()
    assert sorted(map(tuple, found.collect()), key=str) == sorted(expected, key=str)


def test_means_of_whole_numbers_are_exact_and_of_floats_floats(spark: SparkSession) -> None:
    rows = spark.createDataFrame(
        [("x", 1, 0.5), ("x", 1, 0.25), ("x", 2**53, None)], "g string, n bigint, f double"
    )
    row = only(
        aggregate(
            rows,
            query(
                ["g"],
                mean="avg(n)",
                once="avg(DISTINCT n)",
                big="avg(n) FILTER (WHERE n > 1)",
                floats="avg(f)",
            ),
            [],
        )
    )
    assert row["mean"] == half_up(Decimal(2**53 + 2), 3)
    assert row["once"] == half_up(Decimal(2**53 + 1), 2)
    assert row["big"] == Decimal(2**53)
    assert row["floats"] == 0.375


def test_a_group_of_nothing_but_nulls_has_no_sum_and_no_mean(spark: SparkSession) -> None:
    found = aggregate(
        amounts(spark, ("x", None, None, None)), query(["g"], total="sum(a)", mean="avg(a)"), []
    )
    assert only(found).asDict() == {"g": "x", "total": None, "mean": None}
    (audit,) = found.audit.collect()
    assert (audit[GROUPS], audit[ROWS], audit[OVERFLOWED], audit[OUTSIDE]) == (1, 1, [], [])


def test_groups_whose_sums_do_not_fit_into_one_are_published(spark: SparkSession) -> None:
    rows = amounts(spark, ("x", LARGEST, None, None), ("y", LARGEST, None, None))
    found = aggregate(rows, query(["g"], ["total"], total="sum(a)"), [])
    published = pa.Table.from_pylist([row.asDict() for row in found.rows.collect()])
    staged = StagedYear("all", published, found.audit.collect())
    outcomes = validate_aggregation(staged, group_by=["g"], totals=["total"], is_filtered=False)
    assert [outcome.sentence for outcome in outcomes if not outcome.passed] == []


LARGEST = "9" * 29 + "." + "9" * 9
"""The largest NUMERIC."""


def test_a_sum_near_38_digits_is_exact_and_one_beyond_is_named(spark: SparkSession) -> None:
    rows = amounts(
        spark,
        ("fits", LARGEST, None, None),
        ("fits", "-0.000000001", None, None),
        ("over", LARGEST, None, 2**63 - 1),
        ("over", LARGEST, None, 1),
        (None, LARGEST, None, None),
        (None, "0.000000001", None, None),
    )
    found = aggregate(rows, query(["g"], total="sum(a)", mean="avg(a)", whole="sum(n)"), [])
    totals = {row["g"]: row["total"] for row in found.rows.collect()}
    assert totals == {"fits": Decimal(LARGEST[:-1] + "8"), "over": None, None: None}
    (audit,) = found.audit.collect()
    assert audit[OVERFLOWED] == [
        "total, mean of g NULL",
        "total, mean, whole of g over",
    ]
    assert audit[OUTSIDE] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sum(a * b)", "2.469135795"),  # 1.234567895 * 2.000000004
        ("sum(a / b)", "0.617283946"),
        ("sum(a + b)", "3.234567899"),
        ("sum(a - b)", "-0.765432109"),
        ("sum(a * b + a)", "3.703703690"),
        ("sum(a * b * b)", "4.938271600"),
        ("sum(a) / sum(b)", "0.617283946"),
        ("100 * sum(a) / sum(b)", "61.728394627"),
        ("sum(a) / sum(b) * 100", "61.7283946"),
        ("sum(a) - sum(b)", "-0.765432109"),
        ("avg(a) / avg(b)", "0.617283946"),
        ("max(a) - min(b)", "-0.765432109"),
        ("sum(a) / count(*)", "1.234567895"),
    ],
)
def test_arithmetic_keeps_nine_digits_as_bigquery_does(
    spark: SparkSession, text: str, expected: str
) -> None:
    """Each step of BigQuery's is rounded half away from zero to 9 digits: so are the figures."""
    rows = amounts(spark, ("x", "1.234567895", "2.000000004", None))
    found = only(aggregate(rows, query(["g"], result=text), []))["result"]
    with localcontext(prec=60):
        assert found.quantize(Decimal("1e-9"), ROUND_HALF_UP) == Decimal(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sum(a * n)", "8.641975265"),  # 1.234567895 * 7
        ("sum(n * a * b)", "17.283950565"),
        ("sum(a * (n + 1))", "9.876543160"),
        ("sum(greatest(a, n) * b)", "14.000000028"),
        ("sum(CAST(a AS DECIMAL(38, 9)) + b)", "3.234567899"),
        ("sum(n / 3.0)", "2.333333333"),
        ("sum(a) * count(*)", "1.234567895"),
        ("sum(a) * sum(b)", "2.469135795"),
        ("avg(a) * avg(n)", "8.641975265"),
        ("sum(n) * min(b)", "14.000000028"),
        ("count(*) / 3.0", "0.333333333"),
    ],
)
def test_products_and_quotients_of_whole_numbers_and_aggregates_keep_nine_digits(
    spark: SparkSession, text: str, expected: str
) -> None:
    """Spark's own types for them keep 6."""
    rows = amounts(spark, ("x", "1.234567895", "2.000000004", 7))
    found = only(aggregate(rows, query(["g"], result=text), []))["result"]
    with localcontext(prec=60):
        assert found.quantize(Decimal("1e-9"), ROUND_HALF_UP) == Decimal(expected)


def test_a_long_literal_is_no_factor_that_is_shortened(spark: SparkSession) -> None:
    rows = amounts(spark, ("x", "1", None, None))
    text = "sum(CAST(a AS DECIMAL(38, 9)) * 0.00000000012)"
    found = only(aggregate(rows, query(["g"], result=text), []))["result"]
    assert found == Decimal("0.00000000012")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sum(a / n) FILTER (WHERE n <> 0)", Decimal(2)),
        ("avg(a / n) FILTER (WHERE n <> 0)", Decimal(2)),
        ("max(a / n) FILTER (WHERE n <> 0)", Decimal(2)),
        ("sum(DISTINCT a / n) FILTER (WHERE n <> 0)", Decimal(2)),
        ("percentile(a / n, 0.5) FILTER (WHERE n <> 0)", 2.0),
        ("sum(a / n) FILTER (WHERE n <> 0) / count(*) FILTER (WHERE n <> 0)", Decimal(2)),
        ("count(DISTINCT a / n, b) FILTER (WHERE n <> 0)", 1),
    ],
)
def test_a_filter_keeps_an_aggregate_from_rows_that_it_fails_at(
    spark: SparkSession, text: str, expected: Decimal | float
) -> None:
    rows = amounts(spark, ("x", "6", "1", 3), ("x", "7", "1", 0), ("x", "8", "1", None))
    assert only(aggregate(rows, query(["g"], result=text), []))["result"] == expected


def test_conditions_are_computed_with_nine_digits_too(spark: SparkSession) -> None:
    rows = amounts(spark, ("x", "0.001", "0.0004", 1), ("y", "0", "1", 1))
    assert [row["g"] for row in filtered(rows, "a * b > 0").collect()] == ["x"]


def test_groups_are_computed_with_nine_digits_too(spark: SparkSession) -> None:
    rows = amounts(spark, ("x", "1.000000001", "3", None))
    found = only(aggregate(rows, query(["a * b AS product"], rows="count(*)"), []))
    assert found["product"] == Decimal("3.000000003")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sum(a / n)", "DIVIDE_BY_ZERO"),
        ("sum(a) / sum(n)", "DIVIDE_BY_ZERO"),
        ("sum(b * n)", "NUMERIC_VALUE_OUT_OF_RANGE"),
    ],
)
def test_division_by_zero_and_factors_out_of_range_are_errors(
    spark: SparkSession, text: str, message: str
) -> None:
    rows = amounts(spark, ("x", "1", str(10**14), 0))
    with pytest.raises((PySparkException, Py4JJavaError), match=message):
        aggregate(rows, query(["g"], result=text), []).rows.collect()


@pytest.mark.parametrize("text", ["sum(g)", "avg(g)"])
def test_a_sum_of_texts_is_refused_with_the_metrics_name(spark: SparkSession, text: str) -> None:
    rows = amounts(spark, ("1", None, None, None))
    with pytest.raises(SqlError, match=r"^The metric odd: .+ of type string\. Take a column"):
        aggregate(rows, query(["g"], odd=text), [])


def test_years_are_aggregated_and_audited_apart(spark: SparkSession) -> None:
    rows = spark.createDataFrame(
        [(2018, "x", Decimal(1)), (2018, "y", Decimal(2)), (2019, "x", Decimal(4))],
        "year int, g string, a decimal(38,9)",
    )
    found = aggregate(rows, query(["g"], ["total"], total="sum(a)"), ["year"])
    assert sorted(map(tuple, found.rows.collect())) == [
        (2018, "x", Decimal(1)),
        (2018, "y", Decimal(2)),
        (2019, "x", Decimal(4)),
    ]
    audit = {row["year"]: (row[GROUPS], row[ROWS], row["total"]) for row in found.audit.collect()}
    assert audit == {2018: (2, 2, Decimal(3)), 2019: (1, 1, Decimal(4))}


def test_no_rows_make_no_groups(spark: SparkSession) -> None:
    found = aggregate(amounts(spark).limit(0), query(["g"], total="sum(a)"), [])
    assert found.rows.collect() == []

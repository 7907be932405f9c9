"""Computes fields of a subject that the fragments do not state: output of code, results of queries, sums."""

import contextlib
import io
import sqlite3

from dice import Dice
from problems import PROBLEMS, Fields, table

ORDERS = [  # the example table of the SQL answers; prices in quarters, so that sums are exact in every SQLite
    (1, "Ada", "Oslo", "tea", 12.50),
    (2, "Ben", "Porto", "lamp", 64.00),
    (3, "Ada", "Oslo", "book", 18.50),
    (4, "Cleo", "Oslo", "lamp", 59.00),
    (5, "Dev", "Porto", "tea", 9.75),
    (6, "Ben", "Porto", "book", 24.00),
    (7, "Emi", "Kyoto", "tea", 31.25),
    (8, "Ada", "Oslo", "lamp", 61.50),
    (9, "Finn", "Kyoto", "desk", 240.00),
]


def complete(subject: Fields, dice: Dice) -> Fields:
    """Return the subject with the fields that can be computed from it."""
    if "computed" in subject:
        return PROBLEMS[str(subject["computed"])](dice)
    if "price" in subject:
        return subject | _budget([int(price) for price in subject["price"]], dice.between(2, 6))
    if "calls" in subject:
        return subject | {"code": str(subject["code"]).strip()} | _examples(subject)
    if "sql" in subject:
        return subject | {"result": _query(str(subject["sql"]))}
    return subject


def _budget(price: list[int], days: int) -> Fields:
    room, food, transport = price[0] * (days - 1), price[1] * 2 * days, price[2] * 2 * days
    rows = [
        (f"Room, {days - 1} night{'s' if days > 2 else ''}", room),
        (f"Food, {days} days", food),
        (f"Local transport, {days} days", transport),
        ("**Sum**", room + food + transport),
    ]
    return {"budget": table(["Item", "Amount"], rows), "days": str(days)}


def _examples(subject: Fields) -> Fields:
    """Execute the code of an answer and return each call as the interactive shell would show it."""
    names: dict[str, object] = {}
    exec(str(subject["code"]), names)  # code from our own fragments only
    shown = []
    for call in subject["calls"]:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            value = eval(call, names)
        shown.append(f">>> {call}\n{printed.getvalue()}{value!r}")
    exec(str(subject["check"]), names)
    return {"example": shown}


def _query(sql: str) -> str:
    """Return the result of a query on the table `orders` as a Markdown table."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE orders (id, customer, city, item, amount)")
        database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", ORDERS)
        cursor = database.execute(sql)
        return table([column[0] for column in cursor.description], cursor.fetchall())

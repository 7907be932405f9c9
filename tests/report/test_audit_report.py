"""The audit report: bounded in size, and rare kinds of faults are shown beside frequent ones."""

from __future__ import annotations

from dataprep.report import audit_report


def test_the_report_of_many_long_rows_stays_below_five_megabytes() -> None:
    summary = {"file": "f", "rows": 9_999, "faulty": 9_999, "kinds": {"unfinished": 9_999}, "every_row": ["<" * 99_999]}
    fault = {"kind": "unfinished", "detail": "&" * 9_999, "sure": "likely"}
    turn = {"role": "user", "content": "\u202e" * 9_999}
    rows = [{"name": f"row {n}", "faults": [fault] * 9, "messages": [turn] * 99} for n in range(9_999)]
    page = audit_report(summary, rows)
    assert 3_000_000 < len(page.encode()) < 5_000_000
    assert "<strong>Row 599</strong>" in page and "<strong>Row 600</strong>" not in page


def test_a_rare_kind_of_fault_is_shown_beside_a_frequent_one() -> None:
    kinds = ["unfinished"] * 2_000 + ["leak"]
    summary = {"file": "f", "rows": 2_001, "faulty": 2_001, "kinds": {"unfinished": 2_000, "leak": 1}, "every_row": []}
    rows = [
        {"name": f"row {n}", "faults": [{"kind": kind, "detail": "d", "sure": "certain"}], "messages": []}
        for n, kind in enumerate(kinds)
    ]
    assert "<strong>Row 2000</strong>" in audit_report(summary, rows)

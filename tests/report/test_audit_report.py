"""The audit report: bounded in size, and rare kinds of faults are shown beside frequent ones."""

from __future__ import annotations

from dataprep.report import audit_report


def test_the_report_of_many_long_rows_stays_below_five_megabytes() -> None:
    summary = {"file": "f", "rows": 9_999, "faulty": 9_999, "kinds": {"unfinished": 9_999}, "every_row": ["<" * 99_999]}
    fault = {"kind": "unfinished", "detail": "&" * 9_999, "sure": "likely"}
    turn = {"role": "user", "content": "\u202e" * 9_999}
    rows = [{"name": f"row {n}", "faults": [fault] * 9, "messages": [turn] * 31} for n in range(2_000)]
    page = audit_report(summary, rows)
    assert 3_000_000 < len(page.encode()) < 5_000_000
    assert ">Row 599</span>" in page and ">Row 600</span>" not in page


def test_a_rare_kind_of_fault_is_shown_beside_a_frequent_one() -> None:
    kinds = ["unfinished"] * 2_000 + ["leak"]
    summary = {"file": "f", "rows": 2_001, "faulty": 2_001, "kinds": {"unfinished": 2_000, "leak": 1}, "every_row": []}
    rows = [
        {"name": f"row {n}", "faults": [{"kind": kind, "detail": "d", "sure": "certain"}], "messages": []}
        for n, kind in enumerate(kinds)
    ]
    assert ">Row 2000</span>" in audit_report(summary, rows)


def test_certain_faults_come_before_likely_ones_in_the_list_of_kinds_and_of_rows() -> None:
    summary = {"file": "f", "rows": 9, "faulty": 3, "kinds": {"unfinished": 2, "leak": 1}, "every_row": []}
    faults = {"row 0": ("unfinished", "likely"), "row 1": ("unfinished", "likely"), "row 2": ("leak", "certain")}
    rows = [
        {"name": name, "faults": [{"kind": kind, "detail": "d", "sure": sure}], "messages": []}
        for name, (kind, sure) in faults.items()
    ]
    page = audit_report(summary, rows, {"leak": "the text is in another set"})
    assert page.index("the text is in another set") < page.index("unfinished <span")
    assert page.index(">Row 2<") < page.index(">Row 0<") < page.index(">Row 1<")
    assert "1 certain, 2 likely" in page


def test_the_title_is_the_name_of_the_file_without_its_folder() -> None:
    page = audit_report({"file": "/a/b/c.jsonl", "rows": 1, "faulty": 0, "kinds": {}, "every_row": []}, [])
    assert "<title>Audit of c.jsonl</title>" in page and "<h1>c.jsonl</h1>" in page and "No faults" in page

"""The report of a build or an audit: one HTML file that needs nothing beside it."""

from dataprep.report.build import REPORT_FILE, Shown, build_report
from dataprep.report.page import page

__all__ = ["REPORT_FILE", "Shown", "build_report", "page"]

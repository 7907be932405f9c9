"""The report of a build or an audit: one HTML file that needs nothing beside it."""

from dataprep.report.audit_report import audit_report
from dataprep.report.build_report import REPORT_FILE, build_report
from dataprep.report.shown import Shown

__all__ = ["REPORT_FILE", "Shown", "audit_report", "build_report"]

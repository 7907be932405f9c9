"""The report of a build or of an audit: one HTML file without external resources."""

from dataprep.report.audit_report import audit_report
from dataprep.report.build_report import REPORT_FILE, build_report
from dataprep.report.collected import CollectedRows

__all__ = ["REPORT_FILE", "CollectedRows", "audit_report", "build_report"]

"""Reads data sets that other programs formatted, and reports the faults of each row."""

from dataprep.audit.audit import Audit, audit_file
from dataprep.audit.faults import Fault
from dataprep.audit.repair import write_page, write_repaired

__all__ = ["Audit", "Fault", "audit_file", "write_page", "write_repaired"]

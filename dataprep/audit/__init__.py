"""Reading data sets that others formatted, and telling what is wrong with them."""

from dataprep.audit.audit import Audit, Fault, audit_file

__all__ = ["Audit", "Fault", "audit_file"]

"""Reading data sets that others formatted, and telling what is wrong with them."""

from dataprep.audit.audit import Audit, Fault, audit_file
from dataprep.audit.repair import write_page, write_repaired

__all__ = ["Audit", "Fault", "audit_file", "write_page", "write_repaired"]

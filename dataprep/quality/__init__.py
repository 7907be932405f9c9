"""The quality gate: expectations over the facts of a build, judged by Great Expectations in a process of its own."""

from dataprep.quality.gate import Gate, See, Verdict
from dataprep.quality.suite import Suite, read_suite

__all__ = ["Gate", "See", "Suite", "Verdict", "read_suite"]

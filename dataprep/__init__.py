"""Turn conversations into a versioned, checked, documented build for fine-tuning; see `dataprep.api`."""

from typing import TYPE_CHECKING

from dataprep.common.lazy import export_lazily

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dataprep.api import Build, audit, build, open_build, render

__all__ = ["Build", "__version__", "audit", "build", "open_build", "render"]

export_lazily(__name__, dict.fromkeys(["Build", "audit", "build", "open_build", "render"], "dataprep.api"))

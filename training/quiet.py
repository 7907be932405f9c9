"""Settings of the libraries that a run uses, so that its log holds what matters."""

from __future__ import annotations

import logging
import os
import sys
import warnings


def quiet_libraries() -> None:
    """Keep the libraries' warnings out of the log, and their progress bars too where stderr is not a terminal.

    Environment variables that the user has set are kept. Call it before torch and transformers are imported; what is
    imported already is configured as far as that is possible.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Windows differ in length and number of conversations; without this the allocator reserves nearly twice what is used.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("bitsandbytes", "trl", "liger_kernel"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="IProgress not found")  # of tqdm, in a notebook without ipywidgets
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
        if "tqdm" in sys.modules:  # it has read the environment already, as in a notebook that opened a data set
            from transformers.utils.logging import disable_progress_bar

            disable_progress_bar()  # type: ignore[no-untyped-call]

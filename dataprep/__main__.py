"""The program's entry point; it imports the rest inside of the handler for Ctrl-C."""

import gc
import sys

from dataprep.common.interrupt import raise_on_interrupt


def main() -> None:
    """Run `dataprep.cli.main`; an interrupt at any moment ends the program with exit code 130 and one sentence."""
    raise_on_interrupt()
    gc.set_threshold(
        100_000
    )  # imports create many objects and free few: collecting took a tenth of a small build's time
    try:
        from dataprep.cli.main import main as run

        run()
    except KeyboardInterrupt:
        effect = ": nothing was published" if sys.argv[1:2] == ["build"] else ""
        print(f"dataprep: Interrupted{effect}.", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        gc.freeze()  # skips the collection at exit, which takes 0.1 s


if __name__ == "__main__":
    main()

"""Where the program starts: nothing is imported before Ctrl-C is looked after."""

import gc
import sys


def main() -> None:
    """Run `dataprep.cli.main`; interrupted at any moment, end with 130 and one sentence."""
    gc.set_threshold(100_000)  # modules make much and drop little: looking for garbage took a tenth of a small build
    try:
        from dataprep.cli.main import main as run

        run()
    except KeyboardInterrupt:
        outcome = ": nothing was published" if sys.argv[1:2] == ["build"] else ""
        print(f"dataprep: Interrupted{outcome}.", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        gc.freeze()  # nor is it looked for at the end, through all that goes with the process anyway: 0.1 s


if __name__ == "__main__":
    main()

"""How time and memory of a build grow with its input, and what workers, Ray and the cache change.

    python tests/bench/scale.py [--only PARTS] [--conversations 200000] [--old CHECKOUT] [--chart docs/images]

The corpora are seeded guanaco text (1.5 kB a conversation), cached outside the repository. Memory is summed over all
processes of a build. Parts, separated by commas:

* old: the default build, and the one with `--near-dup off --gate off`, against another checkout in the same run (`--old`);
* again: a second build with another `--sample` and `--template`, which takes what was read and sketched from the cache;
* engines: one worker, two workers, and Ray with two workers (its start-up measured apart);
* curve: the default build of an eighth, a quarter, a half and all of the corpus; `--chart` draws the memory as SVG files;
* tenfold: the default build of ten times the corpus (3 GB) against the corpus. It takes minutes and 12 GB of disk;
* small: the bundled sample's build, against the other checkout (`--old`).
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from dataprep.common.charts import AxisNames, Series, line_chart, svg_file  # noqa: E402
from tests.bench.corpus import cached_corpus  # noqa: E402
from tests.bench.measure import Usage, measured, pin_to_two_cores, print_figure  # noqa: E402

PARTS = ("old", "again", "engines", "curve", "small", "tenfold")
BARE = ("--near-dup", "off", "--gate", "off")
GIB = 1 << 30
BASE_MEMORY, MEMORY_EACH = 3 * GIB, 400  # bytes: the bound for a build, and for each of its conversations
LIGHT = {
    "paper": "#ffffff",
    "accent": "#2a6fbb",
    "second": "#c2571a",
    "muted": "#5c6670",
    "line": "#e3e7eb",
    "edge": "#9aa4ae",
}
DARK = {
    "paper": "#0d1117",
    "accent": "#6cb0ff",
    "second": "#ff9e64",
    "muted": "#9aa4ae",
    "line": "#262c34",
    "edge": "#59636e",
}
RAY_START = "import ray; ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False); ray.get(ray.remote(lambda: 0).remote())"


class Bench:
    """Builds of one corpus in a scratch folder."""

    def __init__(self, folder: Path, conversations: int, old: Path | None, rounds: int, chart: Path | None) -> None:
        self.folder, self.conversations, self.old, self.rounds, self.chart = folder, conversations, old, rounds, chart
        self.corpus = cached_corpus(conversations)

    def build(self, source: Path | None, *options: str, code: Path = ROOT, store: Path | None = None) -> Usage:
        """Build `source` (None: the bundled sample) in a new store, or in `store`, and print what it took."""
        place = store or self.folder / "store"
        if store is None:
            shutil.rmtree(place, ignore_errors=True)
        sources = [] if source is None else ["--source", str(source)]
        command = [sys.executable, "-m", "dataprep", "build", *sources, "--store", str(place), "--name", "bench"]
        usage = measured([*command, *options, "--force", "--json"], code, {"PYTHONPATH": str(code)})
        name = " ".join(["old" if code != ROOT else "new", source.name if source else "the sample", *options])
        print(
            f"  {name}: {usage.seconds:.1f} s, {usage.cpu_seconds:.1f} s of CPU time, "
            f"{usage.anonymous / GIB:.2f} GiB of memory and {usage.mapped / GIB:.2f} GiB of mapped files at peak",
            flush=True,
        )
        return usage

    def in_turn(self, source: Path | None, *options: str) -> float:
        """Return the median of new times over the median of old ones, after a round that does not count."""
        if self.old is None:
            raise SystemExit("This part compares with another checkout: give --old.")
        seconds: list[tuple[float, float]] = []
        for _ in range(self.rounds + 1):
            new, old = (self.build(source, *options, code=code) for code in (ROOT, self.old))
            seconds.append((new.seconds, old.seconds))
        new_median, old_median = (statistics.median(side) for side in zip(*seconds[1:], strict=True))
        return new_median / old_median

    def old_part(self) -> None:
        """Time against another checkout."""
        print_figure("default build, share of the old time", self.in_turn(self.corpus), at_most=0.6)
        print_figure("--near-dup off --gate off, share of the old time", self.in_turn(self.corpus, *BARE), at_most=1)

    def small_part(self) -> None:
        """The bundled sample must not pay for what large builds need."""
        print_figure("the bundled sample, share of the old time", self.in_turn(None), at_most=1.05)

    def again_part(self) -> None:
        """A second build in the same store."""
        store = self.folder / "again"
        shutil.rmtree(store, ignore_errors=True)
        first = self.build(self.corpus, store=store)
        sample = str(self.conversations // 10)
        second = self.build(self.corpus, "--sample", sample, "--template", "chatml", store=store)
        shutil.rmtree(store)
        print_figure(
            "another sample and template, share of the first build", second.seconds / first.seconds, at_most=0.35
        )

    def engines_part(self) -> None:
        """The same build with one worker, with two, and with Ray."""
        one, two = (self.build(self.corpus, "--no-cache", "--workers", str(number)) for number in (1, 2))
        print_figure("two workers, times the speed of one", one.seconds / two.seconds, at_least=1)
        start = measured([sys.executable, "-c", RAY_START], self.folder).seconds
        ray = self.build(self.corpus, "--no-cache", "--workers", "2", "--engine", "ray")
        share = (ray.seconds - start) / two.seconds
        print_figure(f"Ray without its start-up of {start:.1f} s, times local workers", share, at_most=1.5)

    def curve_part(self) -> None:
        """Memory over the size of the input; `tenfold` adds a point to a chart that it draws anew."""
        sizes = [self.conversations // share for share in (8, 4, 2)]
        usages = {size: self.build(cached_corpus(size)) for size in sizes} | {
            self.conversations: self.build(self.corpus)
        }
        for size, usage in usages.items():
            _print_memory(size, usage)
        self.draw(usages)

    def tenfold_part(self) -> None:
        """Ten times the corpus."""
        many = 10 * self.conversations
        large = cached_corpus(many)
        usages = {self.conversations: self.build(self.corpus), many: self.build(large)}
        growth = usages[many].seconds / usages[self.conversations].seconds
        print_figure("ten times the conversations, times the time", growth, at_most=11)
        _print_memory(many, usages[many])
        half = many // 2
        self.draw({**usages, half: self.build(cached_corpus(half))})

    def draw(self, usages: dict[int, Usage]) -> None:
        """Draw the memory of builds over their numbers of conversations."""
        if self.chart is None:
            return
        bytes_each = self.corpus.stat().st_size / self.conversations
        points = {size * bytes_each / 1e9: usage for size, usage in sorted(usages.items())}
        memory = Series([(size, usage.anonymous / GIB) for size, usage in points.items()])
        bound = Series([(size, (BASE_MEMORY + MEMORY_EACH * size * 1e9 / bytes_each) / GIB) for size in points])
        names = AxisNames("input in GB", "peak memory in GiB")
        label = "Peak memory of the default build over the size of its input, and its bound of 3 GiB and 400 bytes a conversation"
        chart = line_chart([memory, bound], (0, max(points)), (0, 4), 480, 240, names=names, label=label)
        if chart is not None:
            for theme, colors in (("light", LIGHT), ("dark", DARK)):
                (self.chart / f"memory-{theme}.svg").write_text(svg_file(chart, colors), encoding="utf-8")


def _print_memory(conversations: int, usage: Usage) -> None:
    bound = BASE_MEMORY + MEMORY_EACH * conversations
    print_figure(f"memory of {conversations:,} conversations, share of the bound", usage.anonymous / bound, at_most=1)


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default="again,engines,curve", help=f"of {', '.join(PARTS)}")
    options.add_argument("--conversations", type=int, default=200_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--old", type=Path, help="another checkout of this project")
    options.add_argument("--chart", type=Path, help="folder for the chart of the memory")
    chosen = options.parse_args(arguments)
    parts = chosen.only.split(",")
    if unknown := set(parts) - set(PARTS):
        options.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    cores = pin_to_two_cores()
    with tempfile.TemporaryDirectory(dir=Path.home() / ".cache") as folder:
        bench = Bench(Path(folder), chosen.conversations, chosen.old, chosen.rounds, chosen.chart)
        print(f"{chosen.conversations:,} conversations, {bench.corpus.stat().st_size / 1e6:.0f} MB; on {cores} cores")
        for part in parts:
            getattr(bench, f"{part}_part")()


if __name__ == "__main__":
    main()

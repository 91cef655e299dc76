"""How fast is a scan beside the tokenizer alone, and how much memory does a large one take.

    python -m benchmarks.scan_speed --tokenizer tokenizer.json --text FILE [--megabytes N]
    python -m benchmarks.scan_speed --tokenizer tokenizer.json --text FILE --memory --megabytes 5000

The first: N megabytes of JSONL, whose records are paragraphs of the text with their words moved
about, cut by two processes that do nothing but parse lines and encode, and scanned with two
processes, in turn, so that both see the same machine. The clock of the tokenizer starts when its
processes are ready, that of the scan before it starts any. Where others use the machine, the ratio
of processor times (start-up in both) says more than that of the clocks. The bar is 80%. A scan
remembers the ids of words where the tokenizer allows it; `--new-words 1` makes every word one that
occurs nowhere else, so that nothing is remembered.

The second: one scan of N megabytes; the peak of the resident memory of the scan and all its
processes, summed, shared pages counted once (PSS, sampled) and in each (RSS). The bar is 500 MB.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.connection
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from watermark.corpora import scan
from watermark.keys import KeyRecord, SecretKey
from watermark.text import tokenizer_unit_id

BAR = 0.8
MEMORY_BAR_MB = 500
PROCESSES = 2
BATCH_BYTES = 1 << 19
SHARD_BYTES = 4 << 20
LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))


def write_corpus(text: Path, path: Path, megabytes: int, new_words: float) -> None:
    """Write JSONL of paragraphs that differ from each other.

    Args:
        text: What words are taken from, with the order they have there.
        path: The corpus.
        megabytes: Its size.
        new_words: Share of words, in [0, 1], that are given letters to be seen nowhere else.
    """
    rng = np.random.default_rng(0)
    words = text.read_text(encoding="utf-8").split(" ")
    left = megabytes * 1_000_000
    with path.open("w", encoding="utf-8") as file:
        while left > 0:
            start = int(rng.integers(0, len(words) - 400))
            length = int(rng.integers(60, 400))
            moved = words[start : start + length]
            for i, j in rng.integers(0, length, (length // 8, 2)).tolist():
                moved[i], moved[j] = moved[j], moved[i]
            if new_words:
                for i in np.flatnonzero(rng.random(length) < new_words).tolist():
                    moved[i] += "".join(LETTERS[rng.integers(0, len(LETTERS), 5)])
            left -= file.write(json.dumps({"text": " ".join(moved)}) + "\n")


def tokenize(path: str, tokenizer: str, pipe: multiprocessing.connection.Connection) -> None:
    """Parse and encode the byte ranges that come; nothing else."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import msgspec
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(tokenizer)
    loaded.encode_special_tokens = True  # as the unit has it: one spelt out is ordinary text
    pipe.send(0)
    with Path(path).open("rb") as file:
        for start, stop in iter(pipe.recv, None):
            file.seek(start)
            if start:
                file.seek(start - 1)
                file.readline()
            n_tokens = 0
            while file.tell() < stop:
                texts, size = [], 0
                while size < BATCH_BYTES and file.tell() < stop:
                    texts.append(msgspec.json.decode(file.readline())["text"])
                    size += len(texts[-1])
                encoded = loaded.encode_batch_fast(texts, add_special_tokens=False)
                n_tokens += sum(map(len, encoded))
            pipe.send(n_tokens)


def tokenizer_alone(path: Path, tokenizer: Path) -> tuple[float, int]:
    """Return seconds and tokens of two processes that tokenize the corpus."""
    context = multiprocessing.get_context("spawn")
    pipes, workers = [], []
    for _ in range(PROCESSES):
        ours, theirs = context.Pipe()
        workers.append(context.Process(target=tokenize, args=(str(path), str(tokenizer), theirs)))
        workers[-1].start()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()
    size = path.stat().st_size
    ranges = [(i, min(i + SHARD_BYTES, size)) for i in range(0, size, SHARD_BYTES)]
    begin, n_tokens = time.perf_counter(), 0
    n_left = len(ranges)
    idle = list(pipes)
    while n_left:
        while idle and ranges:
            idle.pop().send(ranges.pop())
        for ready in multiprocessing.connection.wait(pipes):
            pipe = next(one for one in pipes if one is ready)
            n_tokens += pipe.recv()
            n_left -= 1
            idle.append(pipe)
    seconds = time.perf_counter() - begin
    for pipe, worker in zip(pipes, workers, strict=True):
        pipe.send(None)
        worker.join()
    return seconds, n_tokens


def one_scan(path: Path, tokenizer: Path, folder: Path) -> tuple[float, int]:
    """Return seconds and tokens of a scan, from the first byte to the file of hits."""
    unit = tokenizer_unit_id(tokenizer.read_bytes())
    record = KeyRecord(key_id="bench", unit=unit, secret=SecretKey("bench", bytes(range(32))))
    out = folder / "hits.parquet"
    out.unlink(missing_ok=True)
    begin = time.perf_counter()
    result = scan([path], [record], out=out, tokenizers=[tokenizer], processes=PROCESSES)
    return time.perf_counter() - begin, result.pooled[0].n_tokens


def cpu_seconds() -> float:
    """Return the processor time of this process and of those it has waited for."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(kind) for kind in kinds]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure_speed(path: Path, tokenizer: Path, folder: Path, rounds: int) -> None:
    """Print both speeds and their ratio."""
    print("| round | tokenizer, Mtokens/s | scan, Mtokens/s | ratio | of processor time | bar |")
    print("|---|---|---|---|---|---|")
    ratios, of_cpu = [], []
    for i in range(rounds):
        start = cpu_seconds()
        alone, n_tokens = tokenizer_alone(path, tokenizer)
        between = cpu_seconds()
        scanned, n_scanned = one_scan(path, tokenizer, folder)
        assert n_tokens == n_scanned
        ratios.append(alone / scanned)
        of_cpu.append((between - start) / (cpu_seconds() - between))
        speeds = f"{n_tokens / alone / 1e6:.3f} | {n_tokens / scanned / 1e6:.3f}"
        both = f"{ratios[-1]:.0%} | {of_cpu[-1]:.0%}"
        print(f"| {i + 1} | {speeds} | {both} | {BAR:.0%} |", flush=True)
    print(f"| median | | | {np.median(ratios):.0%} | {np.median(of_cpu):.0%} | {BAR:.0%} |")


def descendants(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for child in Path(f"/proc/{pid}/task").glob("*/children"):
        for one in child.read_text().split():
            found += descendants(int(one))
    return found


def memory_of(pid: int) -> tuple[float, float]:
    """Return RSS and PSS of a process and all below it, in MB."""
    rss = pss = 0
    for one in descendants(pid):
        fields = dict(
            line.split(":", 1)
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            if ":" in line and line[0] in "RP"
        )
        rss += int(fields["Rss"].split()[0])
        pss += int(fields["Pss"].split()[0])
    return rss / 1000, pss / 1000


def measure_memory(path: Path, tokenizer: Path, folder: Path) -> None:
    """Scan in a process of its own, look at it every half second, and print the peaks."""
    command = [sys.executable, "-m", "benchmarks.scan_speed", "--tokenizer", tokenizer]
    command += ["--scan-only", path, "--folder", folder]
    process = subprocess.Popen([str(word) for word in command])
    peaks, done = [0.0, 0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            try:
                seen = memory_of(process.pid)
            except (OSError, KeyError, ValueError):  # a process that has just ended
                continue
            peaks[:] = [max(pair) for pair in zip(peaks, seen, strict=True)]

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    status = process.wait()
    done.set()
    watcher.join()
    assert status == 0
    print(
        "| corpus, MB | seconds | peak PSS, MB | peak RSS summed, MB | bar |\n|---|---|---|---|---|"
    )
    size, seconds = path.stat().st_size / 1e6, time.perf_counter() - begin
    peak = f"{peaks[1]:.0f} | {peaks[0]:.0f}"
    print(f"| {size:.0f} | {seconds:.0f} | {peak} | {MEMORY_BAR_MB} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer.json")
    parser.add_argument("--text", type=Path, help="a text that records are made of")
    parser.add_argument("--megabytes", type=int, default=100, help="size of the corpus")
    parser.add_argument("--new-words", type=float, default=0.0, help="share, from 0 to 1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="measure memory, not speed")
    parser.add_argument("--folder", type=Path, help="where files go; a temporary one by default")
    parser.add_argument("--scan-only", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.scan_only:
        one_scan(args.scan_only, args.tokenizer, args.folder)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        path = folder / "corpus.jsonl"
        write_corpus(args.text, path, args.megabytes, args.new_words)
        if args.memory:
            measure_memory(path, args.tokenizer, folder)
        else:
            measure_speed(path, args.tokenizer, folder, args.rounds)


if __name__ == "__main__":
    main()

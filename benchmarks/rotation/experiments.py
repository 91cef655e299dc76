"""The measurements, each of a stage that nobody has used yet."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

import httpx2
import numpy as np

from benchmarks.rotation.mutations import MAKERS, Good
from benchmarks.rotation.stage import Judge, Made, seconds_of, utc, whole
from proxy.cli.reloading import load_ring
from proxy.sampling.keys import KeyedModel
from watermark.errors import WatermarkError
from watermark.keys import KEYS_HEADER, KeysLoader, load_keys

if TYPE_CHECKING:
    from benchmarks.rotation.mutations import Mutation
    from benchmarks.rotation.stage import Reply, Stage

Figures: TypeAlias = dict[str, float | str]

MARKED_BELOW: Final = -7.0
"""log10 p: of 200,000 pairs of an unmarked text and a key, 0.02 are expected below."""
LEAD_SECONDS: Final = 3.0
REST_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.05
_SCOPE: Final = '[[scope]]\nname = "gold"\nmodels = ["g"]\n\n'


def errors_of(replies: list[Reply]) -> int:
    """Return how many requests did not end as they should."""
    return sum(reply.status != 200 for reply in replies)


def wrong_of(replies: list[Reply], keys: dict[str, Made], judge: Judge) -> tuple[int, int]:
    """Return how many replies are under a wrong or no key, and how many marks could be a chance.

    Wrong is a reply without a key's name in the header, one whose text does not show that key,
    and one whose text shows another.
    """
    wrong = 0
    for reply in replies:
        if reply.status == 200:
            shown = {
                key_id
                for key_id, made in keys.items()
                if judge.log10_p(made.record, reply.text) < MARKED_BELOW
            }
            wrong += shown != {reply.key_id}
    return wrong, len(replies) * len(keys)


async def measure_mutations(stage: Stage, *, count: int, clients: int) -> Figures:
    """Break the keys' file in many ways under load, and mend it again."""
    year = {n: datetime(n, 1, 1, tzinfo=UTC) for n in (2020, 2024, 2030)}
    old = stage.make_key("old", not_before=year[2020], not_after=year[2024])
    marking = stage.make_key("now", not_before=year[2024], not_after=year[2030])
    successor = stage.make_key("next", not_before=year[2030])
    gold = stage.make_key("gold", scope="gold")
    text = stage.write_keys(old, marking, successor, gold, scopes=_SCOPE)
    good = Good(stage, text, "now", "old", "next")
    keys = {made.record.key_id: made for made in (old, marking, successor, gold)}
    tally = Tally()
    with stage.serving():
        async with stage.load(clients) as replies:
            for number in range(count):
                mutation = MAKERS[number % len(MAKERS)](good, stage.rng)
                await tally.try_one(good, mutation)
        async with httpx2.AsyncClient(base_url=stage.url, trust_env=False) as client:
            last = [await stage.ask(client, model, 40) for model in ("m", "g")]
    replies += last
    expected = {"m": "now", "g": "gold"}
    wrong, _ = wrong_of(replies, keys, Judge(stage.unit))
    wrong += sum(reply.status == 200 and reply.key_id not in expected.values() for reply in replies)
    return {
        "mutations": count,
        **{f"of them {kind}": n for kind, n in sorted(tally.kinds.items())},
        "invalid": tally.invalid,
        "invalid refused with file and line": tally.refused,
        "invalid taken": tally.invalid - tally.refused,
        "valid, as a fresh reader finds them too": tally.valid,
        "disagreements with a fresh reader": tally.disagreed,
        "good file refused afterwards": tally.unmended,
        "replies meanwhile": len(replies),
        "replies under a wrong or missing key": wrong,
        "errors to clients": errors_of(replies),
        **({"first surprise": tally.surprise} if tally.surprise else {}),
    }


class Tally:
    """Counts what became of mutations."""

    def __init__(self) -> None:
        """Start at zero."""
        self.kinds: Counter[str] = Counter()
        self.invalid = self.refused = self.valid = self.disagreed = self.unmended = 0
        self.surprise = ""

    async def try_one(self, good: Good, mutation: Mutation) -> None:
        """Apply a mutation, see what the proxy says, and mend the files."""
        stage = good.stage
        self.kinds[mutation.kind] += 1
        await mutation.apply()
        is_invalid = mutation.is_invalid
        if is_invalid is None:
            is_invalid = not _is_taken_afresh(good)
        error = await stage.reload(wants_error=is_invalid)
        if is_invalid:
            self.invalid += 1
            place = rf"{re.escape(str(stage.keys_file))}:[1-9][0-9]*: "
            is_located = re.match(place, error) is not None
            self.refused += is_located
            self.surprise = self.surprise or ("" if is_located else f"{mutation.kind}: {error!a}")
        else:
            self.valid += 1
            self.disagreed += bool(error)
            self.surprise = self.surprise or error
        mutation.undo()
        stage.replace(good.text.encode())
        error = await stage.reload(wants_error=False)
        self.unmended += bool(error)
        self.surprise = self.surprise or (f"mending {mutation.kind}: {error}" if error else "")


def _is_taken_afresh(good: Good) -> bool:
    """Return whether a reader that has seen nothing but the good file would take another."""
    unit = good.stage.unit.unit_id
    models = [KeyedModel("m", unit), KeyedModel("g", unit)]
    loader, path = KeysLoader(good.stage.keys_file), good.stage.keys_file
    before = KeysLoader(path).load_text(good.text)
    try:
        load_ring(loader, models, now=utc(), before=before)
    except WatermarkError:
        return False
    return True


async def measure_rotations(stage: Stage, *, count: int, clients: int, interval: float) -> Figures:
    """Rotate again and again, each time by one edit that is made before its key marks."""
    begin = whole(utc(), LEAD_SECONDS + 4.0)  # workers start meanwhile
    turns = [begin + timedelta(seconds=interval * number) for number in range(count + 1)]
    keys = [stage.make_key("epoch-0", not_after=turns[0])]
    for number, start in enumerate(turns[:-1], start=1):
        stop = turns[number] if number < count else None
        keys.append(stage.make_key(f"epoch-{number}", not_before=start, not_after=stop))
    stage.write_keys(_open_ended(keys[0]))
    with stage.serving():
        late = 0
        taken = asyncio.ensure_future(_watch_reports(stage))
        async with stage.load(clients) as replies:
            for number in range(1, count + 1):
                await _until(turns[number - 1].timestamp() - LEAD_SECONDS)
                stage.write_keys(*keys[:number], _open_ended(keys[number]))
                late += utc().timestamp() > turns[number - 1].timestamp() - 1.0
            await _until(turns[count - 1].timestamp() + 1.0)
        taken.cancel()
        skews = await taken
    by_id = {made.record.key_id: made for made in keys}
    wrong, pairs = wrong_of(replies, by_id, Judge(stage.unit))
    workers = stage.workers
    return {
        "rotations": count,
        "seconds between them": interval,
        "workers": workers,
        "replies": len(replies),
        "edits less than a second before their key marks": late,
        "keys seen": len({reply.key_id for reply in replies}),
        "replies not detectable under exactly their header's key": wrong,
        "pairs of text and key tested": pairs,
        "replies outside their key's window": sum(_is_outside(one, by_id) for one in replies),
        "errors to clients": errors_of(replies),
        "p50 of the skew between workers, ms": f"{1000 * np.median(skews):.0f}",
        "longest skew between workers, ms": f"{1000 * max(skews):.0f}",
    }


def _open_ended(made: Made) -> Made:
    """Return a key without an end, as it stands in the file until it has a successor."""
    return replace(made, record=replace(made.record, not_after=None))


async def _until(moment: float) -> None:
    left = moment - utc().timestamp()
    if left > 0:
        await asyncio.sleep(left)


async def _watch_reports(stage: Stage) -> list[float]:
    """Return, when cancelled, the time from the first to the last worker for each set of keys."""
    taken: dict[str, dict[int, float]] = {}
    try:
        while True:
            for pid, (_, report) in stage.reports().items():
                at = datetime.fromisoformat(report.loaded_at).timestamp()
                taken.setdefault(report.generation, {}).setdefault(pid, at)
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        complete = [times.values() for times in taken.values() if len(times) == stage.workers]
        return [max(times) - min(times) for times in complete[1:]]  # the first is the start


def _is_outside(reply: Reply, keys: dict[str, Made]) -> bool:
    """Return whether no instant between asking and having lies in the window of the reply's key."""
    made = keys.get(reply.key_id)
    if reply.status != 200 or made is None:
        return True
    start = seconds_of(made.record.not_before, 0.0)
    return reply.had < start or reply.asked >= seconds_of(made.record.not_after, float("inf"))


async def measure_emergency(stage: Stage, *, count: int, clients: int) -> Figures:
    """Replace a key that others may know, by the one command, while no authority answers."""
    made = stage.make_key("epoch-0")
    stage.write_keys(made)
    stage.watermark("keys", "commit", "--create-log", "example.com/keys")
    command_seconds, all_seconds, last_old = [], [], []
    with socket.create_server(("127.0.0.1", 0)) as silent, stage.serving():
        stage.demand_commitments(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        async with stage.load(clients) as replies:
            for number in range(1, count + 1):
                await asyncio.sleep(3.0)
                before = stage.generations()
                begin = time.time()
                command = asyncio.create_task(
                    asyncio.to_thread(
                        stage.watermark,
                        *("keys", "rotate", "--now", "--compromised", f"epoch-{number - 1}"),
                        *("--id", f"epoch-{number}"),
                    )
                )
                while len(stage.generations() - before) < 1 or stage.generations() & before:
                    assert time.time() < begin + 60.0
                    await asyncio.sleep(0.01)
                all_seconds.append(time.time() - begin)
                told = await command
                command_seconds.append(time.time() - begin)
                assert "the stamp waits" in told, told
                await asyncio.sleep(1.0)
                old = [one.asked for one in replies if one.key_id == f"epoch-{number - 1}"]
                last_old.append(max(old, default=begin) - begin)
    ring = load_keys(stage.keys_file)
    keys = {one.key_id: Made(record=one) for one in ring.records}
    wrong, _ = wrong_of(replies, keys, Judge(stage.unit))
    return {
        "keys replaced": count,
        "workers": stage.workers,
        "replies": len(replies),
        **_spread("command begun to new key in all workers", all_seconds),
        **_spread("command begun to its end", command_seconds),
        **_spread("command begun to last request that got the old key", last_old),
        "replies not detectable under exactly their header's key": wrong,
        "errors to clients": errors_of(replies),
    }


async def measure_scopes(stage: Stage, *, scopes: int, reloads: int) -> Figures:
    """Add a scope and its key a reload, to very many."""
    default = stage.make_key("default-1")
    made = [stage.make_key(f"key-{n}", scope=f"scope-{n}") for n in range(scopes + reloads)]
    tables = [_scope_table(n) + made[n].toml for n in range(scopes + reloads)]
    head = KEYS_HEADER + "\n" + default.toml + "\n"
    stage.replace((head + "\n".join(tables[:scopes])).encode())
    durations: list[float] = []
    spans: list[tuple[float, float]] = []
    with stage.serving():
        async with stage.load(1, tokens=10, pause=PAUSE_SECONDS) as replies:
            for number in range(1, reloads + 1):
                await asyncio.sleep(REST_SECONDS)
                stage.replace((head + "\n".join(tables[: scopes + number])).encode())
                begin = time.time()
                assert not await stage.reload(wants_error=False)
                spans.append((begin, time.time()))
                durations.append(await _reload_seconds(stage))
        pauses = await _pauses(stage, head, tables)
    beside = [one for one in replies if any(one.asked < b and one.had > a for a, b in spans)]
    calm = [one.seconds for one in replies if one not in beside]
    moving = [one.seconds for one in beside]
    usual = float(np.median(calm))
    return {
        "scopes": scopes,
        "reloads": reloads,
        **_spread("reload", durations),
        "requests": len(replies),
        **_spread("request with no reload", calm),
        **_spread("request beside a reload", moving),
        **_spread("its delay over the median of those with none", [one - usual for one in moving]),
        **_spread("health check during reloads", pauses),
        "errors to clients": errors_of(replies),
    }


def _scope_table(number: int) -> str:
    return f'[[scope]]\nname = "scope-{number}"\nmodels = ["g"]\naccounts = ["a-{number}"]\n\n'


async def _reload_seconds(stage: Stage) -> float:
    async with httpx2.AsyncClient(base_url=stage.url, trust_env=False) as client:
        text = (await client.get("/watermark/metrics")).text
    name = "watermark_config_last_reload_duration_seconds "
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(name))


async def _pauses(stage: Stage, head: str, tables: list[str]) -> list[float]:
    """Return how long the smallest request takes while the proxy reloads again and again."""
    found: list[float] = []
    loop = asyncio.get_running_loop()
    async with httpx2.AsyncClient(base_url=stage.url, trust_env=False) as client:
        for number in range(20):
            stage.replace((head + "\n".join(tables[: len(tables) - number % 2])).encode())
            reload = asyncio.ensure_future(stage.reload(wants_error=False))
            while not reload.done():
                asked = loop.time()
                await client.get("/watermark/health")
                found.append(loop.time() - asked)
                await asyncio.sleep(0.001)
            assert not reload.result()
    return found


def _spread(name: str, seconds: list[float]) -> Figures:
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {
        f"{name}: p50, ms": f"{p50:.0f}",
        f"{name}: p99, ms": f"{p99:.0f}",
        f"{name}: longest, ms": f"{1000 * max(seconds):.0f}",
    }

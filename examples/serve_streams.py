"""A server of a thousand live streams: requests that wait together are one step of a StreamPool.

    python examples/serve_streams.py --streams 1000

Each client opens a stream, sends a frame every now and then, waits for the answer, and closes it at
the end.  The server takes whatever has arrived, steps those streams as one batch, and answers; so a
batch is small when little is going on and grows with the load.  Every client has the answers it
would have from a stream of its own, to the bit, whoever else was in the batch: at the end, some of
them are computed again, alone.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

import numpy as np

import fastlstm

INPUT, HIDDEN, LAYERS = 40, 64, 2


class Server:
    """Collects requests, and answers those that wait at the same time with one step."""

    def __init__(self, layer: Any, capacity: int) -> None:
        self.pool = fastlstm.StreamPool(layer, capacity)
        self.x = np.empty((capacity, layer.input_size), np.float32)
        self.slots = np.empty(capacity, np.intp)
        self.waiting: list[tuple[int, Any, asyncio.Future[Any]]] = []
        self.arrived = asyncio.Event()
        self.batches: list[int] = []
        self.seconds: list[float] = []  # of each step

    async def answer(self, slot: int, frame: Any) -> Any:
        """What the stream in this slot says to its next frame."""
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((slot, frame, future))
        self.arrived.set()
        return await future

    async def run(self) -> None:
        """Serve until cancelled.  A client waits for each answer, so no slot is there twice."""
        while True:
            await self.arrived.wait()
            self.arrived.clear()
            requests, self.waiting = self.waiting, []
            k = len(requests)
            for row, (slot, frame, _) in enumerate(requests):
                self.slots[row], self.x[row] = slot, frame
            start = time.perf_counter()
            y = self.pool.step(self.x[:k], self.slots[:k])
            self.seconds.append(time.perf_counter() - start)
            self.batches.append(k)
            for (_, _, future), y_t in zip(requests, y, strict=True):
                future.set_result(y_t)


async def client(server: Server, frames: Any, pause: Any, seconds: list[float]) -> Any:
    """Send frames with pauses in between; return the answers."""
    slot = server.pool.open()
    answers = []
    try:
        for frame, wait in zip(frames, pause, strict=True):
            await asyncio.sleep(wait)
            start = time.perf_counter()
            answers.append(await server.answer(slot, frame))
            seconds.append(time.perf_counter() - start)
    finally:
        server.pool.close(slot)
    return np.stack(answers)


async def serve(layer: Any, frames: Any, every: float) -> tuple[Server, Any, list[float]]:
    """Run a client for each of `frames` (streams, steps, input), one every so many seconds."""
    server, seconds = Server(layer, len(frames)), []
    pauses = np.random.default_rng(1).uniform(0, 2 * every, frames.shape[:2])
    work = asyncio.create_task(server.run())
    clients = [client(server, *own, seconds) for own in zip(frames, pauses, strict=True)]
    answers = await asyncio.gather(*clients)
    work.cancel()
    return server, answers, seconds


def main() -> None:
    """Serve, and print how that went."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=1000, help="clients at the same time")
    parser.add_argument("--steps", type=int, default=40, help="frames of each")
    parser.add_argument("--every", type=float, default=0.1, help="seconds between two frames")
    parser.add_argument("--threads", type=int, default=1, help="that may share a step")
    args = parser.parse_args()
    fastlstm.set_num_threads(args.threads)
    layer = fastlstm.LSTM(INPUT, HIDDEN, LAYERS, seed=0)
    shape = (args.streams, args.steps, INPUT)
    frames = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    start = time.perf_counter()
    server, answers, seconds = asyncio.run(serve(layer, frames, args.every))
    total, count = time.perf_counter() - start, args.streams * args.steps
    print(
        f"{args.streams:,} streams, {count:,} steps in {total:.1f} s: {count / total:,.0f} a second"
    )
    low, middle, high = np.percentile(server.batches, [0, 50, 100])
    print(
        f"{len(server.batches):,} batches of {low:.0f} to {high:.0f} streams, median {middle:.0f}"
    )
    median, late = np.percentile(seconds, [50, 99]) * 1e3
    print(f"a client waits {median:.2f} ms, 99% of the time less than {late:.2f} ms")
    share = sum(server.seconds) / total
    print(f"the pool was busy {share:.0%} of the time, the rest is asyncio's and the clients'")
    checked = range(0, args.streams, max(1, args.streams // 40))
    same = sum(
        all(
            np.array_equal(*pair)
            for pair in zip(map(stream.step, frames[n]), answers[n], strict=True)
        )
        for n, stream in ((n, layer.stream()) for n in checked)
    )
    print(f"the bits of a stream alone: {same} of {len(checked)} that were checked")


if __name__ == "__main__":
    main()

"""Worker threads that compute recommendations, and who may wait for them.

Each worker owns a recommender, because a recommender changes counts while it searches. ONNX Runtime
releases the GIL, so threads are enough. A request is *queued*, then *computed*; when its time is up
or its client is gone while queued it leaves the queue at once and costs nothing, and while computed
its result is thrown away. The engine knows nothing of HTTP or Redis.
"""

import asyncio
import enum
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from model.query import Query, Recommendation
from service.errors import DeadlineExceededError, NotReadyError, QueueFullError
from service.metrics import Metrics
from service.tracing import record_stage

STOP_SECONDS = 5.0
RETRY_AFTER_SECONDS = 1
NEW_SHARE = 0.1
"""Of one more computation in the average time of one."""


class ServedRecommender(Protocol):
    """What a worker owns; `model.recommender.Recommender` is the real one."""

    def recommend(self, query: Query) -> Recommendation:
        """Return the best items for the query."""
        ...


class Refusal(enum.StrEnum):
    """Why a request may not wait."""

    QUEUE_FULL = "queue_full"
    DEADLINE = "deadline"


@dataclass(eq=False)
class _Job:
    query: Query
    deadline: float
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[Recommendation]"
    queued_at: float = field(default_factory=time.perf_counter)
    computed_at: float | None = None
    stage: str = "queue"

    def record_stages(self, result: Recommendation | None) -> None:
        """Tell the trace of the request, on its loop, where its time went until now."""
        now = time.perf_counter()
        ended = self.computed_at or now
        record_stage("queue", self.queued_at, ended)
        if self.computed_at is None:
            return
        if result is None:
            record_stage("compute", self.computed_at, now)
            return
        for stage, seconds in result.stage_seconds.items():  # one after the other
            started, ended = ended, ended + seconds
            record_stage(stage, started, ended)

    def finish(self, result: Recommendation | None, error: BaseException | None) -> None:
        """Hand the outcome to the waiting request, on its loop."""
        if self.answer.done():
            return
        if error is not None:
            self.answer.set_exception(error)
        elif result is not None:
            self.answer.set_result(result)


class Engine:
    """Computes recommendations in threads."""

    def __init__(
        self,
        make_recommender: Callable[[], ServedRecommender],
        *,
        workers: int,
        queue_max_requests: int,
        metrics: Metrics,
    ) -> None:
        self._queue_max_requests = queue_max_requests
        self._metrics = metrics
        self._changed = threading.Condition()
        self._queue: deque[_Job] = deque()
        self._idle = 0
        self._workers = workers
        self._compute_seconds = 0.0
        self._is_stopping = False
        self._threads = [
            threading.Thread(
                target=self._work, args=(number,), name=f"recommender-{number}", daemon=True
            )
            for number in range(workers)
        ]
        self._recommenders = [make_recommender() for _ in self._threads]

    @property
    def queue_length(self) -> int:
        """How many requests wait for a worker."""
        with self._changed:
            return len(self._queue)

    @property
    def load(self) -> int:
        """How many requests wait or are computed."""
        # Idle workers will take the first ones of the queue, so those do not wait.
        with self._changed:
            return len(self._queue) + self._workers - self._idle

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def exchange(self, change: Callable[[ServedRecommender], ServedRecommender]) -> None:
        """Have every worker compute with another recommender from its next request on.

        Args:
            change: returns it for a worker's present one; runs here, while the workers go on.
        """
        self._recommenders = [change(each) for each in self._recommenders]

    async def stop(self) -> None:
        """Finish what is being computed, refuse what is queued, end the workers.

        A computation that takes longer than `STOP_SECONDS` is left to die with the process.
        """
        with self._changed:
            self._is_stopping = True
            left = list(self._queue)
            self._queue.clear()
            self._changed.notify_all()
        for job in left:
            job.finish(None, NotReadyError("the service is stopping", retry_after_seconds=1))
        give_up_at = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            await asyncio.to_thread(thread.join, max(0.0, give_up_at - time.monotonic()))

    def refusal(self, ahead: int, budget_seconds: float) -> Refusal | None:
        """Return why a request that finds `ahead` others may not wait, None when it may.

        It would begin to be computed when all but one of the workers are left with one of those
        before it; whoever finds a worker free is never refused, or a slow moment would last.
        """
        waiting = ahead - self._workers
        if waiting < 0:
            return None
        if waiting >= self._queue_max_requests:
            return Refusal.QUEUE_FULL
        wait_seconds = (waiting + 1) * self._compute_seconds / self._workers
        return Refusal.DEADLINE if wait_seconds > budget_seconds else None

    def refused(self, refusal: Refusal) -> QueueFullError:
        """Return the error that a refused request is answered with."""
        details = {
            Refusal.QUEUE_FULL: f"{self._queue_max_requests} requests are waiting already",
            Refusal.DEADLINE: "the requests that wait already would take longer than this one may",
        }
        return QueueFullError(
            f"{details[refusal]}; try again later", retry_after_seconds=RETRY_AFTER_SECONDS
        )

    async def recommend(self, query: Query, *, deadline_seconds: float) -> Recommendation:
        """Return the best items for the query.

        Raises:
            QueueFullError: too many requests wait already, or for too long.
            DeadlineExceededError: not done within `deadline_seconds`.
            NotReadyError: the engine is stopping.
            ModelError: what the recommender refuses.
        """
        loop = asyncio.get_running_loop()
        deadline = time.perf_counter() + deadline_seconds
        job = _Job(query, deadline, loop, loop.create_future())
        self._admit(job)
        result = None
        try:
            async with asyncio.timeout(deadline_seconds):
                result = await job.answer
                return result
        except TimeoutError:
            self._metrics.deadline_exceeded[self._give_up(job)].inc()
            raise DeadlineExceededError(
                "the answer was not ready in time; try again later or ask for fewer items",
                retry_after_seconds=1,
            ) from None
        except asyncio.CancelledError:
            self._metrics.abandoned[self._give_up(job)].inc()
            raise
        finally:
            job.record_stages(result)

    def _admit(self, job: _Job) -> None:
        with self._changed:
            if self._is_stopping:
                raise NotReadyError("the service is stopping", retry_after_seconds=1)
            refusal = self.refusal(self.load, job.deadline - time.perf_counter())
            if refusal is not None:
                self._metrics.admission_rejected[refusal].inc()
                raise self.refused(refusal)
            self._queue.append(job)
            self._changed.notify()

    def _give_up(self, job: _Job) -> str:
        """Take the job out of the queue, if it still is there, and return its stage."""
        with self._changed:
            if job.stage == "queue" and job in self._queue:
                self._queue.remove(job)
            return job.stage

    def _work(self, number: int) -> None:
        while (job := self._next_job()) is not None:
            query = replace(job.query, is_abandoned=job.answer.done)
            result, error = _compute(self._recommenders[number], query)
            # What is refused takes no time, and says nothing of what is answered.
            if job.computed_at is not None and error is None:
                self._average(time.perf_counter() - job.computed_at)
            # The loop outlives the workers: `stop` joins them on it.
            job.loop.call_soon_threadsafe(job.finish, result, error)

    def _average(self, seconds: float) -> None:
        """Let one more computation count; workers may overwrite one another, which is no loss."""
        before = self._compute_seconds or seconds
        self._compute_seconds = before + NEW_SHARE * (seconds - before)

    def _next_job(self) -> _Job | None:
        """Wait for a job; None when the engine stops."""
        with self._changed:
            self._idle += 1
            while (job := self._first_in_time()) is None and not self._is_stopping:
                self._changed.wait()
            self._idle -= 1
            if job is None:
                return None
            job.stage = "compute"
            job.computed_at = time.perf_counter()
        self._metrics.queue_wait.observe(job.computed_at - job.queued_at)
        return job

    def _first_in_time(self) -> _Job | None:
        """Take the first job whose time is not up; the others' requests will notice themselves."""
        while self._queue:
            job = self._queue.popleft()
            if time.perf_counter() < job.deadline:
                return job
        return None


def _compute(
    recommender: ServedRecommender, query: Query
) -> tuple[Recommendation | None, BaseException | None]:
    """Return the recommendation, or the error that the waiting request shall raise."""
    try:
        return recommender.recommend(query), None
    except Exception as error:  # noqa: BLE001 (it is the request's, and the worker must live)
        return None, error

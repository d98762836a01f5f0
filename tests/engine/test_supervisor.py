"""Claims of meshd.engine.supervisor and child: the worker process in good and bad times.

Real processes running the real SmolLM2, ended the way the world ends them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from meshd.core.ports import EngineError
from meshd.engine import supervisor
from meshd.engine.bundled import bundled_gguf
from meshd.engine.line import OOM_SCORE
from meshd.engine.supervisor import LlamaEngine, WorkerOptions
from protocol.jobs import Finish, Job

pytestmark = pytest.mark.timeout(90)

SMALL = WorkerOptions(context=128, slots=1, threads=1, model_id="m")
JOB = Job("r", "completion", "m", prompt="The capital of France is", max_tokens=4)
ENDLESS = replace(JOB, max_tokens=100, extras={"ignore_eos": True})


@asynccontextmanager
async def running(path=None, options=SMALL):
    """A started engine."""
    engine = LlamaEngine(path or bundled_gguf(), options)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


def is_alive(pid: int) -> bool:
    """Does the process exist, zombies not counted?"""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def oom_score(pid: int) -> str:
    """What the process has added to its own chance to be chosen."""
    return Path(f"/proc/{pid}/oom_score_adj").read_text().strip()


async def last_event(stream):
    """The event that a stream ends with."""
    return [batch async for batch in stream][-1][-1]


async def test_a_killed_worker_fails_its_jobs_at_once_and_comes_back():
    """The next request is answered by a new process."""
    async with running() as engine:
        stream = engine.generate(ENDLESS)
        await anext(stream)
        os.kill(engine.worker_pid, signal.SIGKILL)
        failure = await last_event(stream)
        assert (failure.code, failure.elsewhere) == ("engine_failed", True)
        assert "SIGKILL" in failure.message
        assert not engine.stats()[0].warm
        assert isinstance(await last_event(engine.generate(JOB)), Finish)


async def test_a_worker_that_comes_back_has_the_file_that_is_there_now(tmp_path):
    """It is announced as what it is: who counts on the old weights must not go on here. Where the
    file is gone, that is said."""
    path = tmp_path / "m.gguf"
    path.write_bytes(bundled_gguf().read_bytes())
    async with running(path) as engine:
        (before,) = engine.models()
        path.unlink()
        path.write_bytes(bundled_gguf().read_bytes() + b"other")
        os.kill(engine.worker_pid, signal.SIGKILL)
        await wait_until(lambda: not engine.stats()[0].warm)
        assert isinstance(await last_event(engine.generate(JOB)), Finish)
        (after,) = engine.models()
        assert after.size_bytes == before.size_bytes + 5
        assert after.fingerprint != before.fingerprint
        path.unlink()
        os.kill(engine.worker_pid, signal.SIGKILL)
        await wait_until(lambda: engine.models() == ())
        assert "not found" in engine.trouble


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process volunteer")
async def test_when_memory_is_out_the_model_goes_first():
    """Before the daemon, which can then say so to the mesh."""
    async with running() as engine:
        assert oom_score(engine.worker_pid) == OOM_SCORE


async def test_a_hung_worker_is_noticed_killed_and_replaced():
    """A stopped process says nothing; its jobs move and its place is taken."""
    async with running() as engine:
        stream = engine.generate(ENDLESS)
        await anext(stream)
        pid = engine.worker_pid
        os.kill(pid, signal.SIGSTOP)
        failure = await last_event(stream)
        assert (failure.code, failure.elsewhere) == ("engine_failed", True)
        assert "hung" in failure.message
        assert not is_alive(pid)
        assert isinstance(await last_event(engine.generate(JOB)), Finish)


async def test_a_model_that_keeps_crashing_is_set_aside(caplog):
    """It is no longer announced, every request says why, and a person may load it again."""
    async with running() as engine:
        for _ in range(3):
            await engine.load("m")
            os.kill(engine.worker_pid, signal.SIGKILL)
            await wait_until(lambda: engine.worker_pid is None)
        await wait_until(lambda: engine.models() == ())
        assert engine.stats() == ()
        failure = await last_event(engine.generate(JOB))
        assert (failure.code, failure.elsewhere) == ("engine_failed", True)
        assert "set aside" in failure.message
        assert "set aside" in caplog.text
        await engine.load("m")
        assert isinstance(await last_event(engine.generate(JOB)), Finish)


async def wait_until(condition):
    """Poll, because a process's end has no event of its own here."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_unloading_ends_the_process_and_the_next_job_loads_again():
    """All memory goes back with the process."""
    async with running() as engine:
        pid = engine.worker_pid
        await engine.unload("m")
        assert not is_alive(pid)
        assert not engine.stats()[0].warm
        assert engine.stats()[0].load_s > 0
        assert isinstance(await last_event(engine.generate(JOB)), Finish)


async def test_a_job_that_comes_while_its_model_is_unloaded_has_it_loaded_again():
    """It waits for the old process to end: two of them would not fit, and one would be lost."""
    async with running() as engine:
        pid = engine.worker_pid
        unloading = asyncio.create_task(engine.unload("m"))
        await asyncio.sleep(0)
        assert isinstance(await last_event(engine.generate(JOB)), Finish)
        await unloading
        assert engine.worker_pid not in {None, pid}
        assert isinstance(await last_event(engine.generate(JOB)), Finish)


async def test_a_busy_model_is_not_unloaded():
    """Nor is one that is not here."""
    async with running() as engine:
        stream = engine.generate(ENDLESS)
        await anext(stream)
        with pytest.raises(EngineError, match="busy"):
            await engine.unload("m")
        with pytest.raises(EngineError, match="no model"):
            await engine.unload("other")
        await stream.aclose()


async def test_closing_ends_the_process_and_everybody_who_waits():
    """Twice is as good as once, and nothing starts again afterwards."""
    async with running() as engine:
        pid = engine.worker_pid
        stream = engine.generate(ENDLESS)
        await anext(stream)
        await engine.close()
        assert not is_alive(pid)
        assert (await last_event(stream)).code == "engine_failed"
        await engine.close()
        failure = await last_event(engine.generate(JOB))
        assert "closed" in failure.message
        assert engine.worker_pid is None


async def test_a_worker_does_not_outlive_its_daemon():
    """Even a daemon that was killed leaves no model behind."""
    script = (
        "import asyncio, os\n"
        "from meshd.engine.bundled import bundled_gguf\n"
        "from meshd.engine.supervisor import LlamaEngine, WorkerOptions\n"
        "async def main():\n"
        "    engine = LlamaEngine(bundled_gguf(), WorkerOptions(context=128, slots=1))\n"
        "    await engine.start()\n"
        "    print(engine.worker_pid, flush=True)\n"
        "    os._exit(9)\n"
        "asyncio.run(main())\n"
    )
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=subprocess.PIPE
    )
    output, _ = await daemon.communicate()
    await wait_until(lambda: not is_alive(int(output)))


LLAMA = b"llama"
"""First in a file as its architecture."""


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _whole: b"not a model", "does not begin with GGUF"),
        (lambda whole: whole[: len(whole) // 2], "cannot load"),
        (lambda whole: whole[:4096], "not a whole GGUF"),
        (lambda whole: whole.replace(LLAMA, b"nosuc", 1), "unknown model architecture: 'nosuc'"),
        (lambda whole: whole[:20], "not a whole GGUF"),
    ],
)
async def test_a_corrupt_file_is_one_clear_line(tmp_path, make, said):
    """Whether it shows in the head or only to llama.cpp."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(make(bundled_gguf().read_bytes()))
    engine = LlamaEngine(path, SMALL)
    with pytest.raises(EngineError) as caught:
        await engine.start()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    await engine.close()


async def test_a_missing_file_is_named(tmp_path):
    """Before any process is started."""
    with pytest.raises(EngineError, match="not found"):
        await LlamaEngine(tmp_path / "absent.gguf").start()


async def test_a_flood_is_refused_here(monkeypatch):
    """The worker's memory is not a queue without end."""
    monkeypatch.setattr(supervisor, "QUEUE_MAX", 0)
    async with running() as engine:
        stream = engine.generate(ENDLESS)
        await anext(stream)
        failure = await last_event(engine.generate(JOB))
        assert (failure.code, failure.elsewhere) == ("overloaded", True)
        assert failure.retry_after_s > 0
        await stream.aclose()


async def test_a_job_that_cannot_be_sent_is_a_bad_request():
    """A lone surrogate is refused on this side of the pipe."""
    async with running() as engine:
        failure = await last_event(engine.generate(replace(JOB, prompt="\ud800")))
        assert (failure.code, failure.elsewhere) == ("bad_request", False)

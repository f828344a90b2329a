"""Worker processes: every item gets an answer, whatever happens to a process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

from biomedcoop.benchmark.executor import LocalProcesses, WorkerLost


def test_all_items_are_done() -> None:
    assert sorted(LocalProcesses(2).map(abs, [-3, 1, -2])) == [(-3, 3), (-2, 2), (1, 1)]
    assert list(LocalProcesses(2).map(abs, [])) == []


def test_a_killed_process_costs_only_its_item() -> None:
    results = dict(LocalProcesses(1).map(eval, ["1 + 1", "__import__('os')._exit(9)", "2 + 2"]))
    assert (results["1 + 1"], results["2 + 2"]) == (2, 4)
    lost = results["__import__('os')._exit(9)"]
    assert isinstance(lost, WorkerLost)
    assert "ended with status 9" in str(lost)


def test_what_work_prints_is_no_answer() -> None:
    assert list(LocalProcesses(1).map(eval, ["print('hello')"])) == [("print('hello')", None)]


def test_closing_ends_the_processes() -> None:
    with closing(LocalProcesses(2).map(eval, ["__import__('os').getpid()", "__import__('time').sleep(60)"])) as results:
        _, process = next(results)
        begin = time.monotonic()
    assert time.monotonic() - begin < 10
    assert not _lives(process)


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """A script without a guard, killed by force."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from biomedcoop.benchmark import executor
        from biomedcoop.benchmark.executor import LocalProcesses
        extra = "import biomedcoop.benchmark.messages as m; m.PACKAGES += ('builtins',); "
        executor._SERVE = executor._SERVE.replace("from {} import", extra + "from {} import")
        for _, process in LocalProcesses(1).map(eval, ["__import__('os').getpid()", "__import__('time').sleep(60)"]):
            print(process, flush=True)
        """)
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        process = int(running.stdout.readline())
        assert _lives(process)
        running.kill()
    deadline = time.monotonic() + 10
    while _lives(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _lives(process)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"

"""Processes that encode: several at once, interrupted, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from biomedcoop.backbones.base import Backbone
from biomedcoop.features.store import SHARD_ROWS
from features.scans import direct, feature_spaces, pictures, write

# without the guard of "__main__", as a user's script may be
ENCODE = """
import sys
from pathlib import Path
import numpy as np
from biomedcoop.backbones import load_backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.features.images import encode_images

model, scans, store, out, workers = sys.argv[1:]
paths = sorted(Path(scans).iterdir())
n = len(paths)
data = Dataset("scans", ("a",), paths, tuple(p.name for p in paths), np.zeros(n, dtype=np.int64), np.full(n, "train"))
tell = lambda done, total: print(done, total, flush=True)
try:
    np.save(out, encode_images(load_backbone(model), data, store_root=Path(store), workers=int(workers), progress=tell))
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(model: Path, folder: Path, out: str, workers: int) -> subprocess.Popen[str]:
    """A process that encodes ``folder/scans`` into ``folder/store``, in a process group of its own as from a terminal."""
    words = [model, folder / "scans", folder / "store", folder / out, workers]
    return subprocess.Popen(
        [sys.executable, "-c", ENCODE, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # marks the workers too, which are told where to import from
        # one thread: on a busy machine two that wait for each other take many times as long
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), "OMP_NUM_THREADS": "1"},
        # a shell starts its background jobs with SIGINT ignored, and so does what runs the tests there
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def processes_of(folder: Path) -> list[str]:
    """Command lines of running processes that name the folder."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if str(folder) in line]


@pytest.mark.slow
def test_two_processes_encode_the_same_images_at_once(tiny: Backbone, parity: Path, tmp_path: Path) -> None:
    paths = write(tmp_path / "scans", pictures(700))
    running = [start(parity / "model", tmp_path, f"{n}.npy", workers=n) for n in range(2)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
    first, second = (np.load(tmp_path / f"{n}.npy") for n in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, direct(tiny, paths), atol=1e-5, rtol=0)
    assert feature_spaces(tmp_path / "store")[0].vectors == 700


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "lost"), [(signal.SIGINT, 32), (signal.SIGKILL, SHARD_ROWS)])
def test_an_end_in_the_middle(sign: signal.Signals, lost: int, tiny: Backbone, parity: Path, tmp_path: Path) -> None:
    paths = write(tmp_path / "scans", pictures(1300))
    process = start(parity / "model", tmp_path, "never.npy", workers=2)
    assert process.stdout is not None
    done = 0
    while done < 600:
        done = int(process.stdout.readline().split()[0])
    assert len(processes_of(tmp_path)) == 3
    os.killpg(process.pid, sign)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130 if sign == signal.SIGINT else -sign, "")
    end = time.monotonic() + 20
    while processes_of(tmp_path) and time.monotonic() < end:
        time.sleep(0.05)
    assert processes_of(tmp_path) == []
    kept = feature_spaces(tmp_path / "store")[0].vectors
    assert done - lost <= kept < 1300

    again = start(parity / "model", tmp_path, "whole.npy", workers=2)
    told, errors = again.communicate(timeout=120)
    assert (again.returncode, errors) == (0, "")
    assert told.splitlines()[-1] == f"{1300 - kept} {1300 - kept}"
    np.testing.assert_allclose(np.load(tmp_path / "whole.npy"), direct(tiny, paths), atol=1e-5, rtol=0)

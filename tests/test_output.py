"""Folders and files that appear whole or not at all, and never in the place of something that is not ours."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from biomedcoop.errors import UserError
from biomedcoop.output import check_new_file, check_new_folder, check_writable, new_file, new_folder, write_atomically

MARK = "metrics.json"


def files_below(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder that results go to; nothing else may ever be left in it."""
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def old(place: Path) -> Path:
    """An earlier result."""
    (place / "x" / "model").mkdir(parents=True)
    (place / "x" / MARK).write_text("old")
    (place / "x" / "model" / "weights").write_text("old")
    return place / "x"


OLD = {f"x/{MARK}": "old", "x/model/weights": "old"}


@contextlib.contextmanager
def full_disk(limit: int = 4096) -> Iterator[None]:
    """No file may grow beyond ``limit`` bytes: what writing meets on a full disk, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@contextlib.contextmanager
def without_rights(*folders: Path) -> Iterator[None]:
    """Nobody but root may write to the folders, and we are not root."""
    root = os.geteuid() == 0
    modes = [folder.stat().st_mode for folder in folders]
    for folder in folders:
        folder.chmod(0o555)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for folder, mode in zip(folders, modes, strict=True):
            folder.chmod(mode)


# -- folders


def test_a_folder_that_cannot_be_written_to_is_refused_early(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    assert not list((tmp_path / "new" / "folder").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/below: .*; make room or choose another place"):
        check_writable(tmp_path / "file" / "below")


def test_a_folder_appears_when_all_of_it_is_there(place: Path) -> None:
    path = place / "deep" / "down" / "x"
    with new_folder(path, mark=MARK) as folder:
        (folder / MARK).write_text("new")
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text("new")
        assert not path.exists()
        assert folder.parent == path.parent  # on the same disk, so that the last step is a rename
    assert files_below(place) == {f"deep/down/x/{MARK}": "new", "deep/down/x/model/weights": "new"}
    assert list(path.parent.iterdir()) == [path]


def test_an_empty_folder_may_be_there_already(place: Path) -> None:
    (place / "x").mkdir()
    with new_folder(place / "x", mark=MARK) as folder:
        (folder / MARK).write_text("new")
    assert files_below(place) == {f"x/{MARK}": "new"}


@pytest.mark.parametrize("error", [UserError("a mistake"), RuntimeError("a fault"), KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("overwrite", [False, True])
def test_after_an_error_everything_is_as_before(
    error: BaseException, overwrite: bool, place: Path, request: pytest.FixtureRequest
) -> None:
    before = OLD if overwrite and request.getfixturevalue("old") else {}
    with pytest.raises(type(error)), new_folder(place / "x", overwrite=overwrite, mark=MARK) as folder:  # noqa: PT012
        (folder / MARK).write_text("new")
        raise error
    assert files_below(place) == before
    assert [path.name for path in place.iterdir()] == ["x"] * bool(before)


def test_overwriting_replaces_the_whole_folder(place: Path, old: Path) -> None:
    with new_folder(old, overwrite=True, mark=MARK) as folder:
        assert files_below(place / "x") == {MARK: "old", "model/weights": "old"}  # until the very end
        (folder / "report.md").write_text("new")
    assert files_below(place) == {"x/report.md": "new"}
    assert list(place.iterdir()) == [old]


def test_a_result_is_overwritten_only_on_demand(place: Path, old: Path) -> None:
    with pytest.raises(UserError, match=r"x exists already; choose another folder or pass overwrite=True"):
        check_new_folder(old, False, MARK)
    with pytest.raises(UserError, match="exists already"), new_folder(old, mark=MARK):
        pytest.fail("the work must not begin")
    check_new_folder(old, True, MARK)
    assert files_below(place) == OLD
    assert list(place.iterdir()) == [old]


def test_what_is_not_ours_is_never_overwritten(place: Path) -> None:
    (place / "photos").mkdir()
    (place / "photos" / "holiday.jpg").write_text("dear")
    with pytest.raises(UserError, match=r"photos holds other files \(there is no metrics\.json\)"):
        check_new_folder(place / "photos", True, MARK)
    (place / "file").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="file is a file; choose a folder"):
            check_new_folder(place / "file", overwrite, MARK)
    assert files_below(place) == {"photos/holiday.jpg": "dear", "file": "dear"}


def test_the_folder_one_stands_in_is_refused(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renaming it would leave the shell in a folder that is gone."""
    monkeypatch.chdir(old / "model")
    for path in (Path(), Path(".."), old, old / "model"):
        with pytest.raises(UserError, match="the folder you are in; name a new folder inside it"):
            check_new_folder(path, True, MARK)
    check_new_folder(Path("new"), False, MARK)
    with new_folder(Path("new"), mark=MARK) as folder:
        (folder / MARK).write_text("new")
    assert (old / "model" / "new" / MARK).read_text() == "new"


def test_a_mount_point_is_refused_early() -> None:
    """It cannot be renamed, which would come out only when the work is done."""
    with pytest.raises(UserError, match="/proc is a mount point; name a new folder inside it"):
        check_new_folder(Path("/proc"), True, "version")


def test_a_link_to_a_result_stays_a_link(place: Path, old: Path) -> None:
    (place / "latest").symlink_to(old)
    with new_folder(place / "latest", overwrite=True, mark=MARK) as folder:
        (folder / MARK).write_text("new")
    assert (place / "latest").is_symlink()
    assert files_below(place) == {f"x/{MARK}": "new"}
    assert sorted(path.name for path in place.iterdir()) == ["latest", "x"]


def test_places_that_cannot_be_written_are_refused_early(place: Path) -> None:
    (place / "file").write_text("")
    for path in (place / "file" / "x", place / "file" / "deep" / "x", place / ("x" * 300), Path("/proc/x")):
        with pytest.raises(UserError, match=r"cannot write .*; make room or choose another place") as caught:
            check_new_folder(path, False, MARK)
        assert "\n" not in str(caught.value)
    assert [path.name for path in place.iterdir()] == ["file"]


def test_a_read_only_folder_is_refused_early(place: Path, old: Path) -> None:
    with without_rights(place), pytest.raises(UserError, match=r"cannot write .*Permission denied"):
        check_new_folder(place / "y", False, MARK)
    with without_rights(place), pytest.raises(UserError, match=r"cannot write .*Permission denied"):
        check_new_folder(old, True, MARK)
    assert files_below(place) == OLD


def test_a_full_disk_keeps_the_old_result(place: Path, old: Path) -> None:
    words = r"cannot write .*x: File too large; make room"
    with (  # noqa: PT012
        pytest.raises(UserError, match=words),
        full_disk(),
        new_folder(old, overwrite=True, mark=MARK) as folder,
    ):
        (folder / MARK).write_text("n" * 100)
        (folder / "weights").write_bytes(b"n" * 100_000)
    assert files_below(place) == OLD
    assert list(place.iterdir()) == [old]


def test_a_failure_at_the_last_step_brings_the_old_result_back(place: Path, old: Path) -> None:
    with pytest.raises(UserError, match="cannot write"), new_folder(old, overwrite=True, mark=MARK) as folder:
        shutil.rmtree(folder)  # so that the old result is moved away, and there is nothing to take its place
    assert files_below(place) == OLD
    assert list(place.iterdir()) == [old]


KILLED = """
import os, signal, sys
from pathlib import Path
from biomedcoop.output import new_folder
with new_folder(Path(sys.argv[1]), overwrite=True, mark="metrics.json") as folder:
    (folder / "metrics.json").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(script: str, *words: object) -> None:
    done = subprocess.run([sys.executable, "-c", script, *map(str, words)], check=False)
    assert done.returncode == -signal.SIGKILL


def hidden(place: Path) -> list[str]:
    """What stands there in hidden names, without machine and number: ".x.new"."""
    return sorted(path.name.split("-")[0] for path in place.iterdir() if path.name.startswith("."))


def test_what_a_killed_process_leaves_is_removed_by_the_next(place: Path, old: Path) -> None:
    for path, before in ((old, True), (place / "y", False)):
        killed(KILLED, path)
        killed(KILLED, path)
        assert path.exists() == before
    visible = {name: text for name, text in files_below(place).items() if not name.startswith(".")}
    assert visible == OLD
    assert hidden(place) == [".x.new", ".y.new"]  # the second removed what the first had left
    with new_folder(place / "y", mark=MARK) as folder:
        (folder / MARK).write_text("new")
    assert (place / "y" / MARK).read_text() == "new"
    assert hidden(place) == [".x.new"]
    check_new_folder(old, True, MARK)
    assert hidden(place) == []


KILLED_AT_THE_LAST_STEP = """
import os, signal, sys
from pathlib import Path
from biomedcoop.output import new_folder
real = Path.replace
def replace(self, target):
    if ".new-" in self.name:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.replace = replace
with new_folder(Path(sys.argv[1]), overwrite=True, mark="metrics.json") as folder:
    (folder / "metrics.json").write_text("new")
"""


def test_a_result_that_a_killed_process_had_moved_away_is_put_back(place: Path, old: Path) -> None:
    killed(KILLED_AT_THE_LAST_STEP, old)
    assert hidden(place) == [".x.new", ".x.old"]
    assert not old.exists()
    with pytest.raises(UserError, match="x exists already"):
        check_new_folder(old, False, MARK)
    assert files_below(place) == OLD
    assert hidden(place) == []


ALIVE = """
import sys
from pathlib import Path
from biomedcoop.output import new_folder
with new_folder(Path(sys.argv[1]), mark="metrics.json") as folder:
    (folder / "metrics.json").write_text("slow")
    print("begun", flush=True)
    sys.stdin.readline()
"""


def test_a_process_that_lives_is_left_alone(place: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ALIVE, str(place / "x")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"
        check_new_folder(place / "x", False, MARK)
        with pytest.raises(RuntimeError), new_folder(place / "x", mark=MARK):
            raise RuntimeError
        assert hidden(place) == [".x.new"]
        os.utime(next(place.iterdir()), (0, 0))  # old, but held
        check_new_folder(place / "x", False, MARK)
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.wait() == 0
    assert files_below(place) == {f"x/{MARK}": "slow"}
    assert hidden(place) == []


def test_what_another_machine_left_is_removed_when_it_is_old(place: Path) -> None:
    for name in (".x.new-0badcafe-00000001", ".x.new-00000002"):  # the second as earlier versions named it
        (place / name).mkdir()
        (place / name / "part").write_text("half")
    (place / ".x.csv.new-00000003").write_text("half")
    others = [".y.new-0badcafe-00000001", ".x.new-1", ".x.newer-00000001", ".x.old-fashioned"]
    for name in others:
        (place / name).mkdir()
        os.utime(place / name, (0, 0))
    check_new_folder(place / "x", False, MARK)
    assert (place / ".x.new-0badcafe-00000001").exists()
    for path in (place / ".x.new-0badcafe-00000001", place / ".x.new-00000002"):
        os.utime(path / "part", (0, 0))
        os.utime(path, (0, 0))
    os.utime(place / ".x.csv.new-00000003", (0, 0))
    check_new_folder(place / "x", False, MARK)
    with new_file(place / "x.csv") as file:
        file.write_text("whole")
    assert sorted(path.name for path in place.iterdir()) == sorted([*others, "x.csv"])


# -- files


def test_a_file_takes_its_place_when_it_is_whole(place: Path) -> None:
    (place / "x.csv").write_text("old")
    (place / "link.csv").symlink_to("x.csv")
    with pytest.raises(RuntimeError), new_file(place / "x.csv") as file:  # noqa: PT012
        file.write_text("half")
        raise RuntimeError
    assert files_below(place) == {"x.csv": "old", "link.csv": "old"}
    with new_file(place / "link.csv") as file:
        file.write_text("new")
    assert (place / "link.csv").is_symlink()
    assert files_below(place) == {"x.csv": "new", "link.csv": "new"}
    with (
        full_disk(),
        pytest.raises(UserError, match=r"cannot write .*x\.csv: File too large"),
        new_file(place / "x.csv") as file,
    ):
        file.write_bytes(b"n" * 100_000)
    assert files_below(place) == {"x.csv": "new", "link.csv": "new"}


def test_a_file_is_written_and_replaced(place: Path) -> None:
    for content in (b"first", b"", b"\x00" * 100_000):
        write_atomically(place / "predictions.csv", content)
        assert (place / "predictions.csv").read_bytes() == content
    assert len(list(place.iterdir())) == 1


def test_a_relative_path_is_taken_from_here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    write_atomically(Path("predictions.csv"), b"x")
    assert files_below(place) == {"predictions.csv": "x"}


def test_a_file_that_cannot_be_written_is_kept_as_it_was(place: Path) -> None:
    path = place / "predictions.csv"
    path.write_text("old")
    with full_disk(), pytest.raises(UserError, match=r"cannot write .*predictions\.csv: File too large; make room"):
        write_atomically(path, b"n" * 100_000)
    with without_rights(place), pytest.raises(UserError, match=r"cannot write .*Permission denied"):
        write_atomically(path, b"new")
    assert files_below(place) == {"predictions.csv": "old"}


def test_files_that_have_no_place(place: Path) -> None:
    (place / "folder").mkdir()
    for path in (place / "folder", place / "none" / "file", place / ("x" * 300)):
        with pytest.raises(UserError, match="cannot write"):
            write_atomically(path, b"new")
    assert [path.name for path in place.iterdir()] == ["folder"]


def test_what_is_no_file_is_written_as_it_is(place: Path) -> None:
    """In a container one often is root, and /dev/null would be gone."""
    script = "import sys; from pathlib import Path; from biomedcoop.output import write_atomically as w; w(Path(sys.argv[1]), b'x')"
    for path, arrives in (("/dev/stdout", b"x"), ("/dev/null", b"")):
        before = Path(path).lstat().st_mode
        done = subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True)
        assert done.stdout == arrives
        assert Path(path).lstat().st_mode == before
    (place / "file").write_text("old")
    (place / "link").symlink_to(place / "file")
    write_atomically(place / "link", b"new")
    assert (place / "link").is_symlink()
    assert files_below(place) == {"file": "new", "link": "new"}


def test_a_file_is_refused_before_long_work(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "there.csv").write_text("old")
    for name, message in (
        ("folder", "folder is a folder; name a file"),
        ("there.csv", "there.csv exists already; choose another name or pass overwrite=True"),
        ("nowhere/new.csv", "nowhere is not a folder; create it first or choose another place"),
        ("there.csv/new.csv", "there.csv is not a folder"),
    ):
        with pytest.raises(UserError, match=message):
            check_new_file(tmp_path / name, overwrite=False)
    check_new_file(tmp_path / "new.csv", overwrite=False)
    check_new_file(tmp_path / "there.csv", overwrite=True)
    assert files_below(tmp_path) == {"there.csv": "old"}

"""A file of ``torch.save``, read without running anything: a zip archive of one pickle and the bytes of each storage.

Tensors are read one by one on demand, so a checkpoint of gigabytes needs the memory of its largest tensor.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedcoop.backbones.restricted_pickle import Refused, StoredTensor, read_pickle
from biomedcoop.errors import UserError
from biomedcoop.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

MOST_PICKLE = 4 * 1024 * 1024
"""Largest size of the pickle, bytes; one of a whole model, with optimiser and scheduler, takes a few hundred thousand."""

BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of a file of torch before version 1.6: a magic number as a pickle."""


class TorchArchive:
    """An open file of ``torch.save``; :func:`open_archive` makes it.

    Attributes:
        path: the file.
        content: what was saved, see :func:`biomedcoop.backbones.restricted_pickle.read_pickle`.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self._archive = path, archive
        self._entries = _checked_entries(archive, path.stat().st_size)
        tables = [name for name in self._entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(tables) != 1:
            raise Refused("it is a zip archive, but none of torch.save")
        self._folder = tables[0].removesuffix("data.pkl")
        if (size := self._entries[tables[0]].file_size) > MOST_PICKLE:
            raise Refused(f"its list of contents takes {size} bytes, more than {MOST_PICKLE}")
        order = self._folder + "byteorder"
        if order in self._entries and self._entries[order].file_size < 16 and archive.read(order) != b"little":
            raise Refused("its numbers are in the byte order of another kind of machine")
        self.content: Any = read_pickle(archive.read(tables[0]))

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Read one tensor; it is contiguous and has memory of its own.

        Raises:
            UserError: its bytes are missing, damaged or of another number.
        """
        with _one_line_errors(self.path):
            dtype: torch.dtype = getattr(torch, stored.storage.dtype)
            name, wanted = f"{self._folder}data/{stored.storage.key}", stored.storage.numel * dtype.itemsize
            entry = self._entries.get(name)
            if entry is None or entry.file_size != wanted:
                size = "none" if entry is None else entry.file_size
                raise Refused(f"a block of numbers should take {wanted} bytes and has {size}")
            if 0 in stored.shape:
                return torch.empty(stored.shape, dtype=dtype)
            numbers = torch.frombuffer(bytearray(self._archive.read(name)), dtype=dtype)
            return numbers.as_strided(stored.shape, stored.stride, stored.offset).clone(
                memory_format=torch.contiguous_format
            )


@contextmanager
def open_archive(path: Path) -> Iterator[TorchArchive]:
    """Open a file of ``torch.save``.

    Raises:
        UserError: it cannot be read, is damaged or in an old format, or holds more than data; one line says which.

    Example:
        >>> import torch
        >>> from pathlib import Path
        >>> from biomedcoop.backbones.torch_archive import open_archive
        >>> torch.save({"ctx": torch.ones(2, 3)}, "model.pth")
        >>> with open_archive(Path("model.pth")) as file:
        ...     file.tensor(file.content["ctx"]).shape
        torch.Size([2, 3])
    """
    with _one_line_errors(path):
        with path.open("rb") as file:
            start = file.read(len(BEFORE_ZIP))
        if start == BEFORE_ZIP:
            raise UserError(
                f"{path}: is in the format of torch before version 1.6, which only running its contents can read; where you trust "
                "its origin, save 'state_dict' and 'epoch' again with torch 1.6 or later"
            )
        archive = zipfile.ZipFile(path)
    with archive:
        with _one_line_errors(path):
            opened = TorchArchive(path, archive)
        yield opened


def _checked_entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by name. torch stores them as they are, so nothing is unpacked and no entry can be larger than the file."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        if entry.filename in entries:
            raise Refused(f"it holds '{entry.filename[:60]}' twice")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise Refused(f"'{entry.filename[:60]}' in it is a link")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
            raise Refused(f"'{entry.filename[:60]}' in it is compressed or encrypted, which torch.save never does")
        entries[entry.filename] = entry
    if (total := sum(entry.file_size for entry in entries.values())) > size:
        raise Refused(f"its entries claim {total} bytes in a file of {size}")
    return entries


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Turn what a spoilt file makes this module and ``zipfile`` raise into one line."""
    try:
        yield
    except Refused as error:
        raise UserError(
            f"{path}: refused, nothing in it was run: {error}; get the file again from its authors"
        ) from error
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file; check the path") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check its access rights") from error
    # flipped bytes make the zip library raise several types
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path}: is no whole checkpoint of PyTorch ({' '.join(str(error).split())[:80]}); download the file again"
        ) from error

"""A disk below SQLite that keeps, at a power cut, only what was synced, and of the rest anything.

`recorded` puts a file system of its own (a VFS) between SQLite and the system's. It passes all on,
and notes what is done to the files of one folder. `Disk` then makes up what a real disk may hold
after a cut at any point: what was written since a file's last sync is there, is missing or is torn
at a sector, in any combination.

The VFS is made with ctypes in the library that Python's own `sqlite3` has loaded, so the real store
runs on it, and nothing has to be compiled.
"""

import _sqlite3
import ctypes
import os
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p, string_at
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random

SECTOR = 512
_NAME = b"lapse-recording"
_STORED = 0x100 | 0x800 | 0x80000
"""The flags of a database, of its rollback journal and of its write-ahead log."""

# A path is passed on as the address that it came as: SQLite keeps that for as long as the file.
_Opens = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, POINTER(c_int))
_Deletes = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_Writes = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncates = CFUNCTYPE(c_int, c_void_p, c_int64)
_Syncs = CFUNCTYPE(c_int, c_void_p, c_int)
_Closes = CFUNCTYPE(c_int, c_void_p)


class _Vfs(Structure):
    """`sqlite3_vfs`; what is not wrapped is an address."""

    _fields_ = (
        ("version", c_int),
        ("file_size", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("app_data", c_void_p),
        ("open", _Opens),
        ("delete", _Deletes),
        ("others", c_void_p * 14),
    )


class _Methods(Structure):
    """`sqlite3_io_methods`."""

    _fields_ = (
        ("version", c_int),
        ("close", _Closes),
        ("read", c_void_p),
        ("write", _Writes),
        ("truncate", _Truncates),
        ("sync", _Syncs),
        ("others", c_void_p * 13),
    )


class _File(Structure):
    """`sqlite3_file`."""

    _fields_ = (("methods", POINTER(_Methods)),)


@dataclass(frozen=True)
class Write:
    file: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    file: str
    size: int


@dataclass(frozen=True)
class Sync:
    file: str


@dataclass(frozen=True)
class Delete:
    file: str


@dataclass(frozen=True)
class Mark:
    """What a test notes among the operations."""

    said: object


class Trace:
    """What was done to the files of a folder, in order.

    Attributes:
        before: the files from which on it is recorded, all synced.
        steps: what was done since.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.before = {}
        self.steps = []

    def begin(self, names):
        """Take the files as they are now as synced, and forget what was done before."""
        self.before = {name: Path(self.folder, name).read_bytes() for name in names}
        self.steps.clear()

    def mark(self, said):
        self.steps.append(Mark(said))


def _library():
    """Return the library that `sqlite3` uses, or the one that it is part of."""
    return ctypes.CDLL(getattr(_sqlite3, "__file__", None))


def can_record():
    """Return whether the library of this Python shows how to put a VFS into it."""
    return hasattr(_library(), "sqlite3_vfs_register")


class _Recording:
    """The VFS. There is one in a process, because SQLite keeps addresses of it."""

    def __init__(self) -> None:
        library = _library()
        self._find, self._register = library.sqlite3_vfs_find, library.sqlite3_vfs_register
        self._find.restype, self._find.argtypes = POINTER(_Vfs), [c_char_p]
        self._register.argtypes = [POINTER(_Vfs), c_int]
        self._system = self._find(None)
        self._own = _Vfs.from_buffer_copy(self._system.contents)
        self._own.name = _NAME
        self._own.open, self._own.delete = _Opens(self._open), _Deletes(self._delete)
        self._methods = {}
        self._names = {}
        self.trace = None

    def use(self):
        assert self._register(ctypes.byref(self._own), 1) == 0

    def leave(self):
        assert self._register(self._system, 1) == 0

    def _note(self, step):
        if self.trace is not None:
            self.trace.steps.append(step)

    def _name_of(self, path):
        folder, name = os.path.split(os.fsdecode(string_at(path)))
        return name if self.trace is not None and folder == self.trace.folder else None

    def _open(self, vfs, path, file, flags, told):
        result = self._system.contents.open(vfs, path, file, flags, told)
        name = self._name_of(path) if path and flags & _STORED else None
        opened = _File.from_address(file)
        if result == 0 and name is not None and opened.methods:
            self._names[file] = name
            opened.methods = ctypes.pointer(self._wrapping(opened.methods))
        return result

    def _delete(self, vfs, path, syncs):
        result = self._system.contents.delete(vfs, path, syncs)
        name = self._name_of(path)
        if result == 0 and name is not None:
            self._note(Delete(name))
        return result

    def _wrapping(self, methods):
        """Return methods that note what they pass on to these."""
        place = ctypes.addressof(methods.contents)
        if place in self._methods:
            return self._methods[place]
        system, names = methods.contents, self._names
        own = self._methods[place] = _Methods.from_buffer_copy(system)

        def close(file):
            names.pop(file, None)
            return system.close(file)

        def write(file, data, size, offset):
            result = system.write(file, data, size, offset)
            if result == 0:
                self._note(Write(names[file], offset, string_at(data, size)))
            return result

        def truncate(file, size):
            result = system.truncate(file, size)
            if result == 0:
                self._note(Truncate(names[file], size))
            return result

        def sync(file, flags):
            result = system.sync(file, flags)
            if result == 0:
                self._note(Sync(names[file]))
            return result

        own.close, own.write = _Closes(close), _Writes(write)
        own.truncate, own.sync = _Truncates(truncate), _Syncs(sync)
        return own


@cache
def _recording():
    return _Recording()


@contextmanager
def recorded(folder):
    """Yield the trace of what SQLite does to the files of a folder inside the block."""
    recording = _recording()
    recording.trace = Trace(folder.resolve())
    recording.use()
    try:
        yield recording.trace
    finally:
        recording.trace = None
        recording.leave()


@dataclass
class Disk:
    """A disk on which the steps of a trace are played, one by one.

    Attributes:
        synced: the files with what is sure to survive a power cut.
        pending: what was done to each file since its last sync.
    """

    synced: dict = field(default_factory=dict)
    pending: dict = field(default_factory=dict)

    @classmethod
    def of(cls, trace):
        return cls({name: bytearray(data) for name, data in trace.before.items()})

    def play(self, step):
        match step:
            case Sync(file):
                content = self.synced.setdefault(file, bytearray())
                for one in self.pending.pop(file, ()):
                    _do(content, one)
            case Write(file) | Truncate(file):
                self.pending.setdefault(file, []).append(step)
            case Delete(file):
                self.synced.pop(file, None)
                self.pending.pop(file, None)
            case Mark():
                pass

    def after_cut(self, chance: Random):
        """Return the files as they may be after a power cut now."""
        files = {name: bytearray(content) for name, content in self.synced.items()}
        kept = chance.choice((0.0, 0.5, 0.5, 0.9, 1.0))
        for name, steps in self.pending.items():
            content = files.setdefault(name, bytearray())
            for step in steps:
                for piece in _pieces(step):
                    if chance.random() < kept:
                        _do(content, piece)
        return files


def _pieces(step):
    """Cut a write at the sectors of the disk."""
    if isinstance(step, Truncate):
        return [step]
    ends = range(step.offset - step.offset % SECTOR + SECTOR, step.offset + len(step.data), SECTOR)
    places = [step.offset, *ends, step.offset + len(step.data)]
    return [
        Write(step.file, start, step.data[start - step.offset : end - step.offset])
        for start, end in pairwise(places)
    ]


def _do(content, step):
    if isinstance(step, Truncate):
        del content[step.size :]
        content.extend(bytes(step.size - len(content)))
        return
    content.extend(bytes(max(0, step.offset - len(content))))
    content[step.offset : step.offset + len(step.data)] = step.data

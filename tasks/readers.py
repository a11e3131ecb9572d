"""Image data sets in the file forms they were published in, read from a local folder.

idx (MNIST), npz, CIFAR's Python batches and CIFAR's binary batches. Nothing here runs code
found in a file: pickles may name numpy's array constructors and nothing else. Every error
is a :class:`~lth_zoo.errors.DataError` that names the file, what it has and what it should.
"""

from __future__ import annotations

import gzip
import math
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_zoo.errors import DataError

if TYPE_CHECKING:
    import numpy as np

#: The environment variable that names the folder of local data.
VARIABLE = "LTH_ZOO_DATA"
#: Looked in last, relative to the current folder.
NEIGHBOUR = Path("../shared/data")
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Part:
    """The train or the test part as it stands in its files.

    ``pixels`` is (n, height, width) or (n, height, width, channels) uint8, ``labels`` (n,)
    integers, ``source`` the file or hub id that an error should name, ``label_source`` the
    file of the labels where that is another one.
    """

    pixels: np.ndarray
    labels: np.ndarray
    source: str
    label_source: str = ""

    def check(self, shape: tuple[int, ...], classes: int, count: int | None = None) -> Part:
        """Return the part itself if it is what it should be.

        Raises:
            DataError: counts, image shape or labels are not as stated.
        """
        images, labels = len(self.pixels), len(self.labels)
        if images != labels:
            other = f" in {self.label_source}" if self.label_source else ""
            raise DataError(f"{self.source}: {images} images but {labels} labels{other}")
        if count is not None and images != count:
            raise DataError(f"{self.source}: {images} images; expected {count}")
        found = "x".join(map(str, self.pixels.shape[1:]))
        wanted = "x".join(map(str, shape))
        if found != wanted or self.pixels.dtype != "uint8":
            message = f"images of {found} {self.pixels.dtype}; expected {wanted} uint8"
            raise DataError(f"{self.source}: {message}")
        wrong = self.labels[(self.labels < 0) | (self.labels >= classes)]
        if len(wrong):
            source = self.label_source or self.source
            raise DataError(f"{source}: label {wrong[0]}; expected 0 to {classes - 1}")
        return self


Parts = Mapping[str, Part]


def roots(data: Path | None) -> list[Path]:
    """Return the folders to look in: the argument, the environment's, the neighbour.

    Raises:
        DataError: one that the user named does not exist.
    """
    named = {"the data folder": data, VARIABLE: os.environ.get(VARIABLE)}
    found = []
    for what, root in named.items():
        if root and not Path(root).is_dir():
            raise DataError(f"{what} is {root}, which is no folder")
        if root:
            found.append(Path(root))
    return found + [NEIGHBOUR] * NEIGHBOUR.is_dir()


def candidates(root: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield where a data set of these folder names may lie below a root.

    The root itself counts only if it bears one of the names: MNIST and Fashion-MNIST use
    the same file names, so files alone do not say which one they are.
    """
    for name in names:
        if root.resolve().as_posix().endswith(f"/{name}"):
            yield root
        yield root / name
        yield root / f"{name}.npz"


def find(folders: Sequence[Path], forms: Sequence[Callable[[Path], Parts | None]]) -> Parts | None:
    """Return the first data set that any form finds in any folder, or None.

    Raises:
        DataError: a file is damaged, or a part of a set is missing.
    """
    for folder in folders:
        for form in forms if folder.exists() else ():
            parts = form(folder)
            if parts is not None:
                return parts
    return None


def idx_parts(folder: Path) -> Parts | None:
    """Read the four idx files of MNIST, plain or gzipped; None if there is none."""
    names = [f"{p}-{k}" for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1")]
    paths = {name: _idx_path(folder, name) for name in names}
    if not any(paths.values()):
        return None
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        raise DataError(f"{folder}: no {missing[0]}-ubyte or {missing[0]}-ubyte.gz")
    read = {name: read_idx(path, ndim=int(name[-1])) for name, path in paths.items() if path}
    pairs = {"train": list(read)[:2], "test": list(read)[2:]}
    return {
        part: Part(read[images], read[labels], str(paths[images]), str(paths[labels]))
        for part, (images, labels) in pairs.items()
    }


def _idx_path(folder: Path, name: str) -> Path | None:
    stems = (f"{name}-ubyte", f"{name.replace('-idx', '.idx')}-ubyte")
    paths = (folder / f"{stem}{end}" for stem in stems for end in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Return the uint8 array of an idx file with that many axes, gzipped or not.

    Raises:
        DataError: truncated, another magic number, or another size than its header says.
    """
    import numpy as np

    data = _bytes(path)
    magic = bytes((0, 0, 8, ndim))
    if data[:4] != magic:
        found = data[:4].hex() or "nothing"
        raise DataError(f"{path}: magic number {found}; expected {magic.hex()}")
    start = 4 + 4 * ndim
    header = data[4:start]
    shape = tuple(np.frombuffer(header, ">u4", count=len(header) // 4).tolist())
    if len(shape) != ndim or len(data) != start + math.prod(shape):
        held = max(0, len(data) - start)
        raise DataError(f"{path}: {held} bytes of data; its header says {shape}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _bytes(path: Path) -> bytes:
    """Return a file's bytes, unpacked if they are gzip's."""
    data = path.read_bytes()
    if data[:2] != GZIP:
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        message = f"gzip data damaged or truncated after {len(data)} bytes"
        raise DataError(f"{path}: {message} ({error}); expected a whole .gz file") from error


def npz_parts(path: Path) -> Parts | None:
    """Read ``x_train, y_train, x_test, y_test`` of one .npz file (the layout of Keras)."""
    import numpy as np

    files = [path] if path.suffix == ".npz" else sorted(path.glob("*.npz"))
    if not files:
        return None
    if len(files) > 1:
        raise DataError(f"{path}: {len(files)} .npz files; expected one")
    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(files[0], allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive]
            if missing:
                message = f"has {', '.join(archive.files)}; expected {', '.join(names)}"
                raise DataError(f"{files[0]}: {message}")
            x, y, x_test, y_test = (archive[name] for name in names)
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as error:
        raise DataError(f"{files[0]}: {error}; expected a whole .npz of plain arrays") from error
    source = str(files[0])
    return {
        "train": Part(x, y.reshape(-1), source),
        "test": Part(x_test, y_test.reshape(-1), source),
    }


#: (train files, test files, key of the labels, label bytes a binary record) of each CIFAR.
_CIFAR: tuple[tuple[tuple[str, ...], tuple[str, ...], bytes, int], ...] = (
    (tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",), b"labels", 1),
    (("train",), ("test",), b"fine_labels", 2),
)


def cifar_pickles(folder: Path) -> Parts | None:
    """Read CIFAR-10's or CIFAR-100's Python version; None if there is none."""
    return _cifar(folder, "", lambda path, key, _: read_cifar_pickle(path, key))


def cifar_binaries(folder: Path) -> Parts | None:
    """Read CIFAR-10's or CIFAR-100's binary version; None if there is none."""
    return _cifar(folder, ".bin", lambda path, _, size: read_cifar_binary(path, size))


def _cifar(
    folder: Path, end: str, read: Callable[[Path, bytes, int], tuple[np.ndarray, np.ndarray]]
) -> Parts | None:
    import numpy as np

    for train, test, key, size in _CIFAR:
        if not any((folder / f"{name}{end}").is_file() for name in train + test):
            continue
        parts = {}
        for part, names in (("train", train), ("test", test)):
            paths = [folder / f"{name}{end}" for name in names]
            missing = [path.name for path in paths if not path.is_file()]
            if missing:
                raise DataError(f"{folder}: no {', '.join(missing)}")
            pixels, labels = zip(*(read(path, key, size) for path in paths), strict=True)
            images = np.concatenate(pixels).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            parts[part] = Part(images, np.concatenate(labels), str(paths[0]))
        return parts
    return None


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that may name numpy's array constructors and nothing else."""

    allowed = frozenset(
        f"{module}.{name}"
        for module, name in (
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        )
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return a constructor of numpy's; refuse every other name."""
        if f"{module}.{name}" not in self.allowed:
            raise pickle.UnpicklingError(f"the pickle names {module}.{name}")
        return super().find_class(module, name)


def read_cifar_pickle(path: Path, key: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (n, 3072) uint8 and labels (n,) of one Python batch.

    Raises:
        DataError: damaged, names anything but numpy arrays, or is no CIFAR batch.
    """
    import numpy as np

    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[key])
    except Exception as error:  # a damaged pickle can raise anything
        message = f"{type(error).__name__}: {error}"
        expected = f"a CIFAR batch, a dictionary of arrays with data and {key.decode()}"
        raise DataError(f"{path}: {message}; expected {expected}") from error
    if pixels.ndim != 2 or pixels.shape[1] != 3072 or labels.shape != pixels.shape[:1]:
        message = f"data of {pixels.shape} and {labels.size} labels; expected (n, 3072) and n"
        raise DataError(f"{path}: {message}")
    return pixels, labels


def read_cifar_binary(path: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (n, 3072) uint8 and labels (n,) of one binary batch; the last label counts.

    Raises:
        DataError: the size is no whole number of records.
    """
    import numpy as np

    data = np.frombuffer(path.read_bytes(), np.uint8)
    record = label_bytes + 3072
    if not len(data) or len(data) % record:
        raise DataError(f"{path}: {len(data)} bytes; expected a multiple of {record}")
    rows = data.reshape(-1, record)
    return rows[:, label_bytes:], rows[:, label_bytes - 1]

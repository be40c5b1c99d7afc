"""Model files: written atomically with skops, read only when they hold nothing but types that the caller names.

What a file says about itself is never trusted. skops already refuses unknown classes, but by default it accepts every
scikit-learn estimator and much of numpy and scipy; a model needs a handful, and each caller lists its own in code.
"""

import io
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Final

MAX_UNPACKED_BYTES: Final = 64 * 2**20
# skops has loaders for functions, methods, reducers and random generators too; plain data and estimators need these.
_LOADERS: Final = frozenset({"DictNode", "JsonNode", "ListNode", "NdArrayNode", "ObjectNode", "TypeNode"})


class ModelFileError(ValueError):
    """The file is not a model that this code can read."""


class UntrustedTypeError(ModelFileError):
    """The file holds a type that its reader did not name; nothing in it was constructed."""


def write(path: Path, content: Any) -> None:
    """Store `content` as `path`. A reader, or a second writer, sees the old file or the new one, never a part."""
    import skops.io

    data: bytes = skops.io.dumps(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path, allowed_types: frozenset[str]) -> Any:
    """The content of a file that `write` made.

    Raises UntrustedTypeError when it holds a type outside `allowed_types` (full names such as `numpy.ndarray`),
    ModelFileError when it is damaged, OSError when it cannot be read.
    """
    import skops.io

    data = path.read_bytes()
    try:
        foreign = _foreign_types(data, allowed_types)
        if foreign:
            raise UntrustedTypeError(f"{path} holds types that have no place in this model: {', '.join(foreign)}.")
        return skops.io.loads(data, trusted=[])
    except ModelFileError:
        raise
    except Exception as error:
        # Damage shows in as many ways as there are layers: zip, JSON, npy, skops, scikit-learn.
        raise ModelFileError(f"{path} is not a readable model file: {error!r}") from error


def _foreign_types(data: bytes, allowed_types: frozenset[str]) -> list[str]:
    """Walk the description of the objects in the file, as JSON and before skops sees it, for types not allowed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > MAX_UNPACKED_BYTES:
            raise ModelFileError(f"The model file would unpack to more than {MAX_UNPACKED_BYTES} bytes.")
        pending: list[Any] = [json.loads(archive.read("schema.json"))]
    foreign: set[str] = set()
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if "__class__" in node:
                name, loader = f"{node.get('__module__')}.{node['__class__']}", node.get("__loader__")
                if name not in allowed_types or loader not in _LOADERS:
                    foreign.add(f"{name} ({loader})")
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return sorted(foreign)

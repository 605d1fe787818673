"""Files are data, not programs: tensors and JSON in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probdl.processes import rank

_KEY, _SUM = "probdl", "checksum"


def write(path: str | os.PathLike, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors, and what JSON can say about them, to one file.

    The file is written beside its place and then moved there, so that an interruption leaves the old file alone. Of
    several processes of one script, the first writes and the others do not.

    Args:
        path: where to; an existing file is replaced.
        tensors: by name; copied to the CPU.
        header: anything that JSON can hold; NaN is not JSON.

    Raises:
        ValueError: if the header holds NaN or an infinity.
        TypeError: if the header holds anything but dicts, lists, text, numbers, booleans and None.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(f"{folder}/line.safetensors", {"slope": torch.tensor([2.0])}, {"unit": "m/s"})
        ...     read(f"{folder}/line.safetensors")
        ({'slope': tensor([2.])}, {'unit': 'm/s'})
    """
    from safetensors.torch import save

    if rank() > 0:
        return
    # A tensor of its own each: safetensors refuses tensors that share memory, as tied weights do.
    own = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    # One entry, as the format keeps no order of several: equal content gives equal files.
    said = json.dumps(header, allow_nan=False)
    content = save(own, metadata={_KEY: json.dumps({**json.loads(said), _SUM: checksum(own, said)})})
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name with nothing behind it
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def read(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the header of a file that ``write`` wrote; nothing in the file is ever run.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is of another kind (a pickle, say), damaged, or not written by this package.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"path must be a file that save wrote; there is no file {str(path)!r}.")
    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if said is None:
            raise ValueError("it has no probdl header")
        header = json.loads(said)
        if not isinstance(header, dict) or header.pop(_SUM, None) != checksum(tensors, json.dumps(header)):
            raise ValueError("its checksum is another one")
        return tensors, header
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"path must be a safetensors file that save wrote; {str(path)!r} is not, or is damaged ({error}). "
            "Other kinds of file, such as pickles, are refused because loading them can run code."
        ) from error


def checksum(tensors: dict[str, Tensor], said: str = "") -> str:
    """Return a checksum of tensors and text, which the format itself lacks."""
    total = zlib.crc32(said.encode())
    for name in sorted(tensors):
        flat = tensors[name].detach().contiguous().reshape(-1).view(torch.uint8)
        total = zlib.crc32(flat.cpu().numpy().data, total)
    return f"{total:08x}"

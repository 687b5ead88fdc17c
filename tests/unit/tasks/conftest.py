import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

_HERE = Path(__file__).resolve().parents[3]


@pytest.fixture
def shared_data() -> Path:
    """The real data sets' files. They are no part of the project: tests that read them skip where they are absent."""
    path = Path(os.environ.get("ORPO_RAY_SHARED_DATA", _HERE.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set ORPO_RAY_SHARED_DATA to their directory")
    return path


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., str]:
    """Writes records as JSON lines, strings as they are; gives the file's path."""

    def write(*records: object, name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return str(path)

    return write

"""The memory-mapped pair source."""

from pathlib import Path

import pytest

from orpo_ray.pairs import PairSource, SourcePrompt, write_pair_source


def prompts(count: int) -> list[SourcePrompt]:
    return [SourcePrompt(f"p{n}", "{}", [n, n + 1], [[n]], [[n, 7]] if n % 3 else []) for n in range(count)]


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 3000])
def test_every_prompt_is_read_back_from_its_place(tmp_path: Path, count: int) -> None:
    written = prompts(count)
    assert write_pair_source(tmp_path, iter(written)) == count
    source = PairSource(tmp_path)
    assert len(source) == count
    assert [source[at] for at in range(count)] == written
    assert [source.prompt_id(at) for at in range(count)] == [prompt.prompt_id for prompt in written]


def test_outside_is_an_error(tmp_path: Path) -> None:
    write_pair_source(tmp_path, prompts(3))
    with pytest.raises(IndexError):
        PairSource(tmp_path)[3]

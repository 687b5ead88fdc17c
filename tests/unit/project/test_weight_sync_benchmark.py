"""What the weight-sync benchmark makes of its marks; no engine is started here."""

from benchmarks import weight_sync


def test_a_weight_sync_is_cut_into_parts_that_add_up() -> None:
    ends = ("step", "gathered", "written", "told", "loaded", "checked", "first_token")
    parts = weight_sync.parts_of({end: 100.0 + at * at for at, end in enumerate(ends)})
    assert parts == {part: 2.0 * at + 1 for at, part in enumerate(weight_sync.PARTS)}


def test_a_weight_sync_is_held_against_the_copy() -> None:
    syncs = [dict.fromkeys(weight_sync.PARTS, seconds) for seconds in (0.1, 0.5, 0.2)]
    row = weight_sync.row_of("1m", "shm", 2_000_000, syncs, copies=[0.9, 0.1, 0.5], restarts=[20.0])
    assert (row["seconds"], row["copy_s"], row["bar_s"]) == (1.2, 0.5, 0.8)
    assert (row["by_bar"], row["mb"], row["restart_s"]) == (1.5, 2.0, 20.0)

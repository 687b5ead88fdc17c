"""What the sampling benchmark makes of its rounds; no engine is started here."""

from pathlib import Path

from benchmarks import sampling


def test_sampling_compares_round_by_round() -> None:
    runs = {
        "stream": [{"tokens_per_s": 90.0}, {"tokens_per_s": 300.0}],
        "generate": [{"tokens_per_s": 100.0}, {"tokens_per_s": 300.0}],
    }
    assert sampling.ratios(runs, "tokens_per_s") == [0.9, 1.0]


def test_both_sides_are_configured_alike_and_the_configuration_is_valid(tmp_path: Path) -> None:
    args = sampling.arguments(["student", "--prompts", "16", "--k", "3", "--refresh", "4"])
    config = sampling.configured(args, tmp_path)
    assert (config.task.train_size, config.sampling.k, config.policy.refresh) == (16, 3, 4)
    assert set(sampling.OPTIONS) <= set(vars(args))


def test_speed_is_by_the_wall_clock_and_by_the_processor() -> None:
    found = sampling.speeds(tokens=1000, wall=10.0, processor=4.0)
    assert (found["tokens_per_s"], found["tokens_per_cpu_s"]) == (100.0, 250.0)

"""The paper's own figures, to lay beside: accuracy in % (arXiv 2509.25100, its table of results)."""

from collections.abc import Mapping

from orpo_ray.config.recipe import RecipeName

TASKS = ("MedQA", "ARC-C", "StrategyQA", "OBQA", "GSM8K")

ACCURACY: Mapping[str, Mapping[RecipeName, tuple[float, ...]]] = {
    "TinyLlama-1.1B": {
        "zero_shot_cot": (29.78, 29.95, 43.52, 26.60, 11.97),
        "single_cot": (32.10, 32.63, 46.25, 29.05, 31.56),
        "diverse_cot": (34.85, 35.40, 47.84, 33.60, 36.22),
        "off_policy": (38.95, 41.20, 49.77, 37.45, 39.45),
        "on_policy": (35.11, 38.01, 49.24, 35.60, 36.88),
        "mixed_policy": (40.25, 43.55, 51.25, 40.10, 40.72),
    },
    "InternLM2.5-1.8B": {
        "zero_shot_cot": (35.82, 37.12, 54.15, 27.40, 41.02),
        "single_cot": (37.94, 40.45, 57.50, 41.35, 44.38),
        "diverse_cot": (40.56, 42.15, 58.66, 54.50, 47.50),
        "off_policy": (49.33, 56.48, 59.39, 53.20, 51.25),
        "on_policy": (43.25, 49.80, 58.50, 52.79, 47.94),
        "mixed_policy": (50.43, 59.32, 61.75, 55.22, 52.47),
    },
}

AVERAGE: Mapping[str, Mapping[RecipeName, float]] = {
    "TinyLlama-1.1B": {
        "zero_shot_cot": 28.36,
        "single_cot": 34.32,
        "diverse_cot": 37.58,
        "off_policy": 41.36,
        "on_policy": 38.97,
        "mixed_policy": 43.17,
    },
    "InternLM2.5-1.8B": {
        "zero_shot_cot": 39.10,
        "single_cot": 44.32,
        "diverse_cot": 48.67,
        "off_policy": 53.93,
        "on_policy": 50.46,
        "mixed_policy": 55.84,
    },
}
"""As printed. The averages of the printed columns differ from these by at most 0.01."""

TEACHER_NEGATIVES: Mapping[str, Mapping[str, float]] = {"InternLM2.5-1.8B": {"MedQA": 41.72, "ARC-C": 45.87}}
"""Off-policy with the teacher's wrong traces in place of the student's."""

TEACHER_AVERAGE = 59.58
"""Zero-shot CoT of InternLM2.5-7B-Chat over the five tasks."""

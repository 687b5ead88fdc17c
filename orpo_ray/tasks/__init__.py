"""Tasks: data sets with prompts and verifiers. Pure Python: nothing here imports ray, torch or vllm."""

from orpo_ray.tasks.registry import TASKS, load_task
from orpo_ray.tasks.splits import question_key, split_rows
from orpo_ray.tasks.task import Message, Row, Task, Verdict

__all__ = ["TASKS", "Message", "Row", "Task", "Verdict", "load_task", "question_key", "split_rows"]

"""Processes of a run are killed at seeded moments, and the ledger is compared with the plan.

The run is DISTILL and EVALUATE as they are: controller, worker group with DeepSpeed, board, splitter, samplers and
evaluator are real processes. Fake are the engines behind samplers and evaluator (tests/tiny/fake_engine.py); each sampler's
has a process of its own, which can be killed.

    python -m tests.chaos --kills 30 --seed 1
"""

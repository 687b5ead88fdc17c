"""EXPORT: the finished student as a model directory that transformers and vLLM load, or as an adapter that peft loads."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from orpo_ray.config.fingerprint import fingerprint
from orpo_ray.engine.adapters import ADAPTER_CONFIG, is_adapter
from orpo_ray.evaluation.evaluator import write_json
from orpo_ray.phases.context import RunContext
from orpo_ray.phases.keys import result_of
from orpo_ray.phases.phase import Phase
from orpo_ray.phases.student import is_converted, student_directory
from orpo_ray.report.wording import model_name
from orpo_ray.weights.published import MANIFEST, check_published, publish_directory


class Export(Phase):
    """The phase."""

    name = "EXPORT"

    def key(self, context: RunContext) -> str:
        export = context.config.export
        how = (export.lora,) if context.config.train.lora is not None else ()
        return fingerprint(export.select, *how, result_of(context, "DISTILL"), result_of(context, "EVALUATE"))

    def run(self, context: RunContext) -> dict[str, Any]:
        """Copy the selected student, and describe it."""
        from orpo_ray.report.browse import RunTraces
        from orpo_ray.report.data_card import data_card
        from orpo_ray.report.data_card_text import data_card_markdown
        from orpo_ray.report.model_card import model_card

        config, initial = context.config, student_directory(context.config)
        source, epoch = self._selected(context)
        facts = check_published(source)
        data = data_card(RunTraces(context.layout, context.config, context.results), context.results)

        def write(directory: Path) -> None:
            write_export(source, initial, directory, config.export.lora, name=model_name(config.student.model))
            card = model_card(config, context.results, epoch, converted=is_converted(config, initial))
            (directory / "README.md").write_text(card, encoding="utf-8")
            (directory / "DATA_CARD.md").write_text(data_card_markdown(data), encoding="utf-8")
            write_json(directory / "data_card.json", data)

        publish_directory(context.layout.export, write, {"step": facts["step"], "epoch": epoch})
        return {"path": str(context.layout.export), "epoch": epoch, "select": context.config.export.select}

    def still_there(self, context: RunContext, result: dict[str, Any]) -> bool:
        """Whether the exported directory is whole."""
        directory = Path(result["path"])
        return directory.is_dir() and bool(check_published(directory))

    def _selected(self, context: RunContext) -> tuple[Path, int]:
        """Directory and epoch of the student to export."""
        evaluations = context.results["EVALUATE"]["evaluations"]
        if context.config.export.select == "best":
            validated = [item for item in evaluations if item["split"] == "validation" and item["epoch"] > 0]
            best = max(
                (item for item in validated if Path(item["path"]).is_dir()),
                key=lambda item: (item["correct"], -item["epoch"]),
            )
            _say_unseen(context, {int(item["epoch"]) for item in validated})
            return Path(best["path"]), int(best["epoch"])
        return Path(context.results["DISTILL"]["weights"]), int(context.results["DISTILL"]["epochs"])


def write_export(version: Path, initial: Path, target: Path, lora: Literal["merged", "adapter"], *, name: str) -> None:
    """Fill `target` with a published version, whichever way it was published.

    Args:
        initial: the initial student's directory, which an adapter is for.
        lora: of a version with an adapter, the whole model with it merged in, or the adapter alone.
        name: what the initial student is called where an adapter is told from its base.
    """
    from orpo_ray.training.publish import ADAPTER_BESIDE, merge_adapter, tokenizer_files

    beside = version / ADAPTER_BESIDE
    adapter = version if is_adapter(version) else beside if is_adapter(beside) else None
    if adapter is not None and lora == "adapter":
        for file in (*adapter.iterdir(), *tokenizer_files(initial)):
            if file.is_file() and file.name != MANIFEST:
                shutil.copy(file, target / file.name)
        told = json.loads((target / ADAPTER_CONFIG).read_text(encoding="utf-8")) | {"base_model_name_or_path": name}
        (target / ADAPTER_CONFIG).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        return
    if adapter == version:
        merge_adapter(initial, version, target)
    else:
        for file in version.iterdir():
            if file.is_file() and file.name != MANIFEST:
                shutil.copy(file, target / file.name)
    _generation_config(target)


def _say_unseen(context: RunContext, validated: set[int]) -> None:
    """A run that trained for `last` kept few students: the best is then the best of those."""
    unseen = sorted(set(range(1, int(context.results["DISTILL"]["epochs"]) + 1)) - validated)
    if unseen:
        epochs = ", ".join(map(str, unseen))
        context.say("note", text=f"export.select: no student is left of epoch {epochs}; the best is one of the others")


def _generation_config(directory: Path) -> None:
    """Readers take the end token from here; a student that came without one gets it from its configuration."""
    if (directory / "generation_config.json").is_file():
        return
    from transformers import AutoConfig, GenerationConfig

    GenerationConfig.from_model_config(AutoConfig.from_pretrained(str(directory))).save_pretrained(str(directory))

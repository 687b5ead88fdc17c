"""What the engine adds to vLLM's worker process: weights replaced whole, the output layer's packed copy too."""

from typing import Any

from orpo_ray.engine.owner import EndsWithOwner
from orpo_ray.weights.link import receive

EXTENSION = "orpo_ray.engine.worker_reload.WorkerReload"
"""For vLLM's `worker_extension_cls`: its methods are called by name through `collective_rpc`."""


class WorkerReload(EndsWithOwner):
    """Mixed into vLLM's worker."""

    def replace_weights(self: Any, directory: str) -> None:
        """Load the weights in `directory`."""
        self.reload_weights(weights_path=directory)
        _pack_tied_output(self)

    def receive_weights(self: Any, address: str, limit_s: float) -> None:
        """Load the weights that are sent at `address`, each of an engine's workers over a link of its own.

        Raises:
            LinkError: they did not come, or not all of them: the engine then has neither these nor the ones before.
        """
        self.reload_weights(weights_iterator=receive(address, self.device, limit_s))
        _pack_tied_output(self)


def _pack_tied_output(worker: Any) -> None:
    """Give an output layer that is tied to the embedding the new weight too.

    On a CPU a layer multiplies by a packed copy of its weight. `reload_weights` (vLLM 0.32) packs anew each layer that it
    loads a weight into, which a tied output layer is not: it went on with the copy of the student that the engine was
    started with.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    if not worker.model_config.hf_text_config.tie_word_embeddings:
        return
    for layer in worker.get_model().modules():
        if isinstance(layer, ParallelLMHead):
            layer.quant_method.process_weights_after_loading(layer)

"""What the engine adds to vLLM's worker process: weights replaced whole, the output layer's packed copy too."""

from typing import Any

EXTENSION = "orpo_ray.engine.worker_reload.WorkerReload"
"""For vLLM's `worker_extension_cls`: its methods are called by name through `collective_rpc`."""


class WorkerReload:
    """Mixed into vLLM's worker."""

    def replace_weights(self: Any, directory: str) -> None:
        """Load the weights in `directory`, also into an output layer that is tied to the embedding.

        On a CPU a layer multiplies by a packed copy of its weight. `reload_weights` (vLLM 0.32) packs anew each layer
        that it loads a weight into, which a tied output layer is not: it went on with the copy of the student that the
        engine was started with.
        """
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        self.reload_weights(weights_path=directory)
        if not self.model_config.hf_text_config.tie_word_embeddings:
            return
        for layer in self.get_model().modules():
            if isinstance(layer, ParallelLMHead):
                layer.quant_method.process_weights_after_loading(layer)

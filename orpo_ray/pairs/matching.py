"""How positives and negatives of one prompt become pairs; the paper leaves it open (DESIGN promise 1)."""

from orpo_ray.pairs.draw import shuffled

NO_NEGATIVE = -1


def match(
    positives: int, negatives: int, pairs_per_prompt: int, seed: int, epoch: int, prompt_id: str
) -> list[tuple[int, int]]:
    """Pairs (chosen index, rejected index) of one prompt in one epoch.

    min(pairs_per_prompt, max(P, N)) pairs, the shorter list cycled; each list in an order drawn anew every epoch, so
    that traces beyond pairs_per_prompt get their turn. Without negatives each pair's rejected index is NO_NEGATIVE:
    the row is trained on by the SFT term alone.

    Args:
        positives: right teacher traces of the prompt, at least 1.
        negatives: wrong student traces of the prompt.
    """
    chosen = shuffled(positives, seed, "chosen", epoch, prompt_id)
    rejected = shuffled(negatives, seed, "rejected", epoch, prompt_id) or [NO_NEGATIVE]
    count = min(pairs_per_prompt, max(positives, negatives))
    return [(chosen[pair % len(chosen)], rejected[pair % len(rejected)]) for pair in range(count)]

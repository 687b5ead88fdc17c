"""What each state of a run does on Ray."""

from orpo_ray.phases.phase import Phase


def all_phases() -> list[Phase]:
    """The phases of a run, in their order. Ray is imported by the ones that need it, when they are asked for."""
    from orpo_ray.phases.cluster import OnCluster
    from orpo_ray.phases.distill import Distill
    from orpo_ray.phases.evaluate import Evaluate
    from orpo_ray.phases.export import Export
    from orpo_ray.phases.prepare import Prepare
    from orpo_ray.phases.seed import Seed
    from orpo_ray.phases.teach_all import TeachAll
    from orpo_ray.phases.trained import WhereTrained

    return [
        Prepare(),
        *(WhereTrained(OnCluster(phase)) for phase in (TeachAll(), Seed(), Distill())),
        OnCluster(Evaluate()),
        WhereTrained(Export()),
    ]

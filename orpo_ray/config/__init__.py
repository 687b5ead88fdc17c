"""Every option of a run once, with its default, unit and check."""

from orpo_ray.config.geometry import Geometry
from orpo_ray.config.load import config_schema, dump_config, load_config, parse_config
from orpo_ray.config.run import RunConfig

__all__ = ["Geometry", "RunConfig", "config_schema", "dump_config", "load_config", "parse_config"]

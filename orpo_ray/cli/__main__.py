"""`python -m orpo_ray.cli`: the command `orpo-ray`, whether or not it is on the path."""

from orpo_ray.cli import main

if __name__ == "__main__":
    main()

"""Runs Helm's own library in the environment of `make tools`: ACTION CHART VALUES, JSON out. No test in here."""

import json
import sys

import helm_python


def main(action: str, chart: str, values: dict) -> object:
    if action == "lint":
        return helm_python.lint(chart, values, strict=True)
    with helm_python.Chart.load(chart) as loaded:
        if action == "render":
            return loaded.render(values, name="release", namespace="orpo-ray")
        try:
            loaded.render(values, name="release", namespace="orpo-ray")
        except helm_python.HelmError as error:
            return str(error)
        return ""


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))))

"""Runs kubernetes-validate in the environment of `make tools`: documents on stdin, mistakes out, as JSON. No test in here."""

import json
import sys

from kubernetes_validate import ValidationError, validate


def mistakes(document: dict, version: str) -> list[str]:
    try:
        validate(document, version, strict=True)
    except ValidationError as error:
        return [f"{document['kind']} {document['metadata'].get('name')} ({version}): {error.message}"]
    return []


if __name__ == "__main__":
    versions = sys.argv[1:]
    print(
        json.dumps(
            [found for document in json.load(sys.stdin) for each in versions for found in mistakes(document, each)]
        )
    )

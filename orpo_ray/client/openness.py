"""Whether a cluster lets anybody in."""

import httpx

_LIMIT_S = 5.0


def answers_without_token(url: str) -> bool:
    """Whether a dashboard tells its jobs to somebody without a token, who could as well submit one (CVE-2023-48022)."""
    try:
        return httpx.get(f"{url}/api/jobs/", timeout=_LIMIT_S).status_code == 200
    except httpx.HTTPError:
        return False

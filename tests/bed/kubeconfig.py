"""Kubeconfigs for the stand-in API server."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path


def write_kubeconfig(
    path: Path, url: str, authority: bytes | Path, user: Mapping[str, str]
) -> Path:
    """One context that leads there. `authority`: a PEM as part of it, or the file that holds one.

    `user` is the user's entry, with `_` for `-`. Returns `path`.
    """
    cluster = {"server": url}
    if isinstance(authority, Path):
        cluster["certificate-authority"] = str(authority)
    else:
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
    entry = {key.replace("_", "-"): value for key, value in user.items()}
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "bed",
                "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed"}}],
                "clusters": [{"name": "bed", "cluster": cluster}],
                "users": [{"name": "bed", "user": entry}],
            }
        )
    )
    return path

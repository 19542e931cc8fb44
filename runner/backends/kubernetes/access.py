"""How a cluster is reached, by a kubeconfig or from a pod: the only importer of `kubernetes`, used for just that.

Requests go through the pool that it makes of a configuration: certificates, proxies, tokens of exec plugins that are
renewed before each request.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import urllib3

from runner.errors import ConfigError


def configure(
    kubeconfig: str | None, context: str | None, *, or_current: bool = False
) -> tuple[Any, str | None, str, bool]:
    """Return the client's configuration, the context's name and namespace, and whether it is the current one.

    Raises ConfigError without a cluster.
    """
    # Imported here: it costs a quarter of a second, and the local backend needs none of it.
    try:
        from kubernetes import config  # noqa: PLC0415
        from kubernetes.client import Configuration  # noqa: PLC0415
    except ModuleNotFoundError as e:
        raise ConfigError(f"clusters need {e.name}, not installed: pip install 'market-data-runner[kubernetes]'") from e
    settings = Configuration()
    try:
        contexts, active = config.list_kube_config_contexts(kubeconfig)  # type: ignore[no-untyped-call]
    except config.ConfigException as e:
        if kubeconfig is None and (or_current or context is None):
            return _in_cluster(settings)
        raise ConfigError(f"kubeconfig {kubeconfig or '(default)'}: {e}; give --kubeconfig FILE") from e
    named = active if context is None else next((c for c in contexts if c["name"] == context), None)
    if named is None and or_current:
        named = active
    if named is None:
        names = ", ".join(c["name"] for c in contexts)
        raise ConfigError(f"context {context}: not in the kubeconfig, which has {names}; give --context")
    try:
        config.load_kube_config(kubeconfig, named["name"], client_configuration=settings, persist_config=False)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as e:
        raise ConfigError(f"context {named['name']}: {e}; correct the kubeconfig") from e
    return (
        settings,
        str(named["name"]),
        str(named["context"].get("namespace") or "default"),
        named["name"] == active["name"],
    )


def _in_cluster(settings: Any) -> tuple[Any, None, str, bool]:
    from kubernetes import config  # noqa: PLC0415

    try:
        config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
    except config.ConfigException as e:
        raise ConfigError("no cluster is configured: set KUBECONFIG, or give --kubeconfig FILE") from e
    own = Path(settings.ssl_ca_cert).parent / "namespace"
    return settings, None, own.read_text(encoding="utf-8").strip() if own.exists() else "default", True


def pool_of(configuration: Any) -> urllib3.PoolManager:
    """Return the pool of connections that a configuration makes."""
    from kubernetes.client import ApiClient  # noqa: PLC0415

    pool: urllib3.PoolManager = ApiClient(configuration).rest_client.pool_manager
    return pool

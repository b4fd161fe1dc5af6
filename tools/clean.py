"""Takes down and deletes every cluster of this machine that `navarch ls` knows: `make clean`."""

from __future__ import annotations

import sys

from navarch.cluster import kubeconfig, lifecycle, teardown
from navarch.cluster.config import ConfigError, known_clusters


def main() -> int:
    failed = 0
    for config in known_clusters():
        print(f"Removing cluster {config.name!r}", file=sys.stderr)
        try:
            with lifecycle.taking_down(config):
                lifecycle.stop(config)
                if config.runtime == "containerd":
                    teardown.remove_traces(config)
                lifecycle.delete(config)
        except (OSError, RuntimeError, ConfigError, lifecycle.StartError, kubeconfig.KubeconfigError) as error:
            print(f"  {error}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
